package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/term"
)

// maxSecret bounds a token or passphrase with its surroundings.
const maxSecret = 64 << 10

// prompt asks for a secret at the terminal that stdin is, without echo.
func (e *env) prompt(ctx context.Context, question string) (string, error) {
	fd, ok := terminal(e.stdin)
	if !ok {
		return "", errors.New("stdin is no terminal")
	}
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read the terminal's state: %w", err)
	}
	// The echo goes off before the question shows: an answer may come at once.
	if err := echoOff(fd); err != nil {
		return "", err
	}
	_, _ = fmt.Fprint(e.stderr, question) // the terminal shows it, or the user will not answer
	answer, err := interruptible(ctx, func() (string, error) { return readHidden(fd, e.stdin) })
	// After an interruption the read goes on in the background: the state is
	// the one from before in any case.
	err = errors.Join(err, term.Restore(fd, before))
	_, _ = fmt.Fprintln(e.stderr) // the line end that was not echoed
	return answer, err
}

// confirm asks a question at the terminal; only "y" and "yes" mean yes.
func (e *env) confirm(ctx context.Context, question string) (bool, error) {
	_, _ = fmt.Fprint(e.stderr, question+" [y/N] ") // the terminal shows it, or the user will not answer
	answer, err := interruptible(ctx, func() (string, error) { return bufio.NewReader(e.stdin).ReadString('\n') })
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

// readSecret reads a secret from a file, a pipe or a descriptor.
func readSecret(ctx context.Context, r io.Reader) (string, error) {
	return interruptible(ctx, func() (string, error) {
		b, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
		if err == nil && len(b) > maxSecret {
			err = fmt.Errorf("more than %d bytes", maxSecret)
		}
		return string(bytes.TrimPrefix(b, []byte("\uFEFF"))), err
	})
}

// interruptible waits for read or for the end of ctx, whichever comes first:
// a read from a terminal or a pipe cannot be stopped, only left behind.
func interruptible(ctx context.Context, read func() (string, error)) (string, error) {
	type result struct {
		s   string
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := read()
		done <- result{s, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case r := <-done:
		return r.s, r.err
	}
}
