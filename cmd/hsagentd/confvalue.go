package main

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// A duration is written as "10s". It is a struct so that a bare number, which
// has no unit, does not fit.
type duration struct {
	time.Duration `toml:"-"`
}

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%s is no duration: write it as \"10s\" or \"1m30s\"", wire.Quote(string(b)))
	}
	d.Duration = v
	return nil
}

// An age is written as "400d", or as a duration.
type age struct {
	time.Duration `toml:"-"`
}

func (a *age) UnmarshalText(b []byte) error {
	if days, ok := strings.CutSuffix(string(b), "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return fmt.Errorf("%s is no age: write it as \"400d\"", wire.Quote(string(b)))
		}
		a.Duration = time.Duration(n) * 24 * time.Hour
		return nil
	}
	var d duration
	if err := d.UnmarshalText(b); err != nil {
		return fmt.Errorf("%s is no age: write it as \"400d\"", wire.Quote(string(b)))
	}
	a.Duration = d.Duration
	return nil
}

// A size is written as plain bytes or as "2GiB".
type size int64

func (s *size) UnmarshalText(b []byte) error {
	text, shift := string(b), 0
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if n, ok := strings.CutSuffix(text, unit); ok {
			text, shift = strings.TrimSpace(n), 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > maxRequestBytes || n<<shift>>shift != n {
		return fmt.Errorf("%s is no size: write bytes, or \"512MiB\", \"2GiB\"", wire.Quote(string(b)))
	}
	*s = size(n << shift)
	return nil
}

// A level is what is logged from there up: a word, not a number.
type level struct {
	slog.Level `toml:"-"`
}

func (l *level) UnmarshalText(b []byte) error {
	switch string(b) {
	case "debug":
		l.Level = slog.LevelDebug
	case "info":
		l.Level = slog.LevelInfo
	case "warn":
		l.Level = slog.LevelWarn
	case "error":
		l.Level = slog.LevelError
	default:
		return fmt.Errorf("%s is no log level: want debug, info, warn or error", wire.Quote(string(b)))
	}
	return nil
}
