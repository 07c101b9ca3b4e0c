package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/hsagent/hsagentd/wire"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// flags are the command line's, which say the same as some keys of the config.
type flags struct {
	set *pflag.FlagSet

	config, socket, store, identity, auditDir string
	upstream, upstreamCA                      string
	logLevel, logFormat                       string
	version, help                             bool
}

func newFlags(verb string) *flags {
	f := &flags{set: pflag.NewFlagSet(verb, pflag.ContinueOnError)}
	s := f.set
	s.SortFlags = false
	s.SetOutput(io.Discard) // errors come back, and help is printed by us
	s.Usage = func() {}
	s.StringVar(&f.config, "config", "", "config `FILE`")
	s.StringVar(&f.socket, "socket", "", "`PATH` of the Unix socket")
	s.StringVar(&f.store, "store", "", "encrypted `FILE` of all credentials")
	s.StringVar(&f.identity, "identity", "", "age identity `FILE` that opens the store")
	s.StringVar(&f.auditDir, "audit-dir", "", "`DIR` of the audit log")
	s.StringVar(&f.upstream, "upstream", "", "`URL` in place of https://api.hubapi.com")
	s.StringVar(&f.upstreamCA, "upstream-ca", "", "PEM `FILE` of TLS roots in place of the system's")
	s.StringVar(&f.logLevel, "log-level", "", "debug, info, warn or error: what is logged from this `LEVEL` up")
	s.StringVar(&f.logFormat, "log-format", "", "text, json or journal: `FORMAT` of the log on stderr")
	s.BoolVar(&f.version, "version", false, "print the version and exit")
	s.BoolVarP(&f.help, "help", "h", false, "print this help and exit")
	return f
}

// begin begins a verb that has no arguments but flags. From then on the process
// is closed to others, and what it makes is its own until it is opened on
// purpose. done means that the verb has nothing to do any more.
func (f *flags) begin(e *env, args []string, help string) (done bool, err error) {
	if done, err := f.parse(e, args, help); done {
		return true, err
	}
	err = f.noArgs()
	if err == nil {
		unix.Umask(0o077)
		err = harden(e)
	}
	return err != nil, err
}

// parse reads args. done means that the command has been served already, by
// help or the version.
func (f *flags) parse(e *env, args []string, help string) (done bool, err error) {
	err = f.set.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp) || err == nil && f.help:
		_, err = io.WriteString(e.stdout, help)
		return true, err
	case err != nil:
		return true, usageError("%w", err)
	case f.version:
		_, err = fmt.Fprintln(e.stdout, "hsagentd", wire.Version)
		return true, err
	}
	return false, nil
}

// noArgs refuses arguments where there are none to give.
func (f *flags) noArgs() error {
	if f.set.NArg() == 0 {
		return nil
	}
	switch arg := f.set.Arg(0); arg {
	case "init", "check", "accept-loss", "rotate-audit-key", "demo":
		return usageError("the verb comes first: hsagentd %s …", arg)
	default:
		return usageError("unexpected argument %s", wire.Quote(arg))
	}
}

func usageError(format string, args ...any) error {
	return &codeError{exitUsage, fmt.Errorf(format+"\nTry: hsagentd --help", args...)}
}

// absolute completes a path that was typed: a shell's user may name one from
// where it stands. In the config file, which has no such place, paths are
// whole.
func absolute(path string) string {
	if path == "" || strings.HasPrefix(path, "@") || filepath.IsAbs(path) {
		return path // an empty or abstract one is refused by name
	}
	whole, err := filepath.Abs(path)
	if err != nil {
		return path // and this is refused as not absolute
	}
	return whole
}

// apply puts the flags that were given into c.
func (f *flags) apply(c *config) []error {
	for _, v := range []struct {
		flag, key, value string
		to               *string
	}{
		{"socket", "socket", absolute(f.socket), &c.Socket},
		{"store", "store", absolute(f.store), &c.Store},
		{"identity", "identity", absolute(f.identity), &c.Identity},
		{"audit-dir", "audit_dir", absolute(f.auditDir), &c.AuditDir},
		{"upstream", "upstream", f.upstream, &c.Upstream.BaseURL},
		{"upstream-ca", "upstream", absolute(f.upstreamCA), &c.Upstream.CAFile},
		{"log-format", "log_format", f.logFormat, &c.LogFormat},
	} {
		if f.set.Changed(v.flag) {
			*v.to, c.origins[v.key] = v.value, "--"+v.flag
		}
	}
	if !f.set.Changed("log-level") {
		return nil
	}
	c.origins["log_level"] = "--log-level"
	if err := c.LogLevel.UnmarshalText([]byte(f.logLevel)); err != nil {
		return []error{&problem{"log_level", "--log-level: " + err.Error()}}
	}
	return nil
}
