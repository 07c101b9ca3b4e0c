package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/hsagent/hsagentd/wire"
)

// Forms of the log.
const (
	formatText    = "text"
	formatJSON    = "json"
	formatJournal = "journal"
)

// newLogger returns the daemon's logger. Whatever the form, anything that
// looks like a token is masked at the last door: where the line is written.
func newLogger(e *env, format string, from slog.Leveler) *slog.Logger {
	if format == "" {
		format = formatText
		if ok, err := journal.StderrIsJournalStream(); err == nil && ok {
			format = formatJournal
		}
	}
	opts := &slog.HandlerOptions{Level: from}
	switch format {
	case formatJournal:
		return slog.New(&journalHandler{min: from, send: journal.Send})
	case formatJSON:
		return slog.New(slog.NewJSONHandler(e.stderr, opts))
	default:
		return slog.New(slog.NewTextHandler(e.stderr, opts))
	}
}

// A journalHandler writes records to systemd's journal in its own protocol:
// each attribute is a field, its name in upper case after those of its groups.
type journalHandler struct {
	min    slog.Leveler
	send   func(message string, p journal.Priority, fields map[string]string) error
	prefix string // of the groups that are open, such as "STORE_"
	fields map[string]string
}

func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.min.Level() }

func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	fields := map[string]string{"SYSLOG_IDENTIFIER": "hsagentd"}
	for k, v := range h.fields {
		fields[k] = v
	}
	if !r.Time.IsZero() {
		fields["SYSLOG_TIMESTAMP"] = r.Time.UTC().Format(wire.TimeFormat)
	}
	r.Attrs(func(a slog.Attr) bool {
		addField(fields, h.prefix, a)
		return true
	})
	if err := h.send(wire.MaskTokens(r.Message), priority(r.Level), fields); err != nil {
		return fmt.Errorf("send to the journal: %w", err)
	}
	return nil
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.fields = make(map[string]string, len(h.fields)+len(attrs))
	for k, v := range h.fields {
		n.fields[k] = v
	}
	for _, a := range attrs {
		addField(n.fields, h.prefix, a)
	}
	return &n
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	n := *h
	n.prefix += fieldName(name) + "_"
	return &n
}

// addField adds what a stands for: one field, or those of a group.
func addField(fields map[string]string, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += fieldName(a.Key) + "_"
		}
		for _, m := range v.Group() {
			addField(fields, prefix, m)
		}
		return
	}
	if a.Equal(slog.Attr{}) {
		return
	}
	name := prefix + fieldName(a.Key)
	if slices.Contains(reservedFields, name) {
		name = "HSAGENT_" + name
	}
	text := v.String()
	if v.Kind() == slog.KindTime {
		text = v.Time().UTC().Format(time.RFC3339Nano)
	}
	fields[name] = wire.MaskTokens(text)
}

// reservedFields mean something to the journal.
var reservedFields = []string{"MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER", "SYSLOG_TIMESTAMP", "SYSLOG_PID", "ERRNO", "UNIT", "TID"}

// fieldName makes a name that the journal takes: capital letters, digits and
// underscores, a letter first, at most 64 bytes.
func fieldName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, wire.MaskTokens(key))
	if name == "" || name[0] < 'A' || name[0] > 'Z' {
		name = "X" + name
	}
	return name[:min(len(name), 48)]
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
