package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// refusedSettings are the GODEBUG settings with which no secret is read: they
// make the program show what it sends or change how it checks whom it talks
// to, by a part of their names: net/http looks for http2debug anywhere in the
// variable. Others, such as gctrace or netdns, do no harm.
var refusedSettings = []struct{ part, why string }{
	{"http2debug", "prints request headers, tokens included"},
	{"http", "changes how HTTP messages are read and written"},
	{"tls", "weakens TLS"},
	{"x509", "weakens the checking of certificates"},
	{"rsa", "weakens the checking of certificates"},
}

// ignoredVariables would send calls elsewhere or trust other roots if they
// were read. They are not: the config says both.
var ignoredVariables = []struct{ name, key string }{
	{"SSL_CERT_FILE", "upstream.ca_file"}, {"SSL_CERT_DIR", "upstream.ca_file"},
	{"HTTP_PROXY", "upstream.proxy"}, {"HTTPS_PROXY", "upstream.proxy"}, {"ALL_PROXY", "upstream.proxy"},
	{"http_proxy", "upstream.proxy"}, {"https_proxy", "upstream.proxy"}, {"all_proxy", "upstream.proxy"},
}

// harden closes the process to others and refuses an environment in which a
// secret would not stay one. It comes before anything secret is read.
//
// The runtime reads GODEBUG and GOTRACEBACK before main does: they cannot be
// unset here, so the first is refused. The second is overruled, and refused
// where it asks for a core file.
func harden(e *env) error {
	if err := refuseEnvironment(e); err != nil {
		return withCode(exitConfig, err)
	}
	debug.SetTraceback("single") // one goroutine's frames, and no core file
	if err := closeProcess(); err != nil {
		return fmt.Errorf("close the process to others: %w", err)
	}
	return nil
}

func refuseEnvironment(e *env) error {
	var all []error
	for _, setting := range strings.Split(e.getenv("GODEBUG"), ",") {
		for _, r := range refusedSettings {
			if strings.Contains(setting, r.part) {
				all = append(all, fmt.Errorf("GODEBUG has %s, which %s", wire.Quote(strings.TrimSpace(setting)), r.why))
				break
			}
		}
	}
	if e.getenv("SSLKEYLOGFILE") != "" {
		all = append(all, errors.New("SSLKEYLOGFILE is set, which asks programs to write down the keys of TLS connections"))
	}
	switch v := e.getenv("GOTRACEBACK"); v {
	case "crash", "wer":
		all = append(all, fmt.Errorf("GOTRACEBACK is %s, which writes memory to a core file", v))
	}
	if len(all) > 0 {
		all = append(all, errors.New("nothing secret was read: take that out of the environment and start again"))
	}
	return errors.Join(all...)
}

// warnIgnored says which variables have no effect here, though they have one
// on most programs.
func warnIgnored(ctx context.Context, e *env, log *slog.Logger) {
	for _, v := range ignoredVariables {
		if e.getenv(v.name) != "" {
			log.WarnContext(ctx, "ignored an environment variable: the config decides", "variable", v.name, "key", v.key)
		}
	}
}
