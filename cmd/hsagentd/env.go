package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hsagent/hsagentd/wire"
)

// An env is the outside world: what tests replace.
type env struct {
	stdin  *os.File
	stdout io.Writer
	stderr io.Writer // masks tokens
	getenv func(string) string
	uid    int
	// release gives the signals back to the system: the next one ends the
	// process at once.
	release func()
}

func systemEnv(release func()) *env {
	return &env{
		stdin:   os.Stdin,
		stdout:  os.Stdout,
		stderr:  maskingWriter{os.Stderr},
		getenv:  os.Getenv,
		uid:     os.Geteuid(),
		release: release,
	}
}

// A maskingWriter masks everything of a token's form. It relies on each Write
// holding whole lines, which is how slog's handlers and fmt write.
type maskingWriter struct{ w io.Writer }

func (m maskingWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(m.w, wire.MaskTokens(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// A codeError decides the exit code. One without err has been reported.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

// withCode gives err the exit code, unless it has one. nil stays nil.
func withCode(code int, err error) error {
	var c *codeError
	if err == nil || errors.As(err, &c) {
		return err
	}
	return &codeError{code, err}
}

func exitCode(err error) int {
	var c *codeError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &c):
		return c.code
	}
	return exitFailed
}
