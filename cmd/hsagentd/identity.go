package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/wire"
	"golang.org/x/term"
)

// maxPassphrase in bytes: what is longer is another file.
const maxPassphrase = 4096

// findIdentity returns the path of the identity: the one that is configured,
// else systemd's credential, else identity.age, else identity.txt.
func (c *config) findIdentity() string {
	if c.Identity != "" {
		return c.Identity
	}
	for _, p := range []string{c.paths.credential, c.paths.protected} {
		if p == "" {
			continue
		}
		if _, err := os.Lstat(p); err == nil {
			return p
		}
	}
	return c.paths.plain
}

// A passphraseOnce is the passphrase that the start was given. It opens the
// identity once: an agent that was locked later stays so until somebody who
// knows the passphrase unlocks it.
type passphraseOnce struct{ b []byte }

func (p *passphraseOnce) take() []byte {
	b := p.b
	p.b = nil
	return b
}

// identityLoader returns what reads the identity at path for the agent.
func identityLoader(path string, start *passphraseOnce) func([]byte) (*credstore.Identity, error) {
	return func(passphrase []byte) (*credstore.Identity, error) {
		if passphrase == nil {
			passphrase = start.take()
		}
		if passphrase == nil {
			return credstore.LoadIdentity(path, nil)
		}
		return credstore.LoadIdentity(path, func() ([]byte, error) { return passphrase, nil })
	}
}

// passphraseFile reads what HSAGENT_PASSPHRASE_FILE names: a file, or a
// descriptor by its number or as /dev/fd/N. It returns nil where the variable
// is not set.
func passphraseFile(e *env) (_ []byte, err error) {
	name := e.getenv("HSAGENT_PASSPHRASE_FILE")
	if name == "" {
		return nil, nil
	}
	defer func() {
		if err != nil {
			err = withCode(exitConfig, fmt.Errorf("read the passphrase from HSAGENT_PASSPHRASE_FILE: %w", err))
		}
	}()
	f, err := openPassphrase(e, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		_, _ = fmt.Fprintf(e.stderr, "hsagentd: others may read the passphrase in %s (mode %04o): run chmod 600 on it\n",
			wire.Quote(name), info.Mode().Perm()) // a warning that cannot be shown changes nothing
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPassphrase+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxPassphrase {
		clear(b)
		return nil, fmt.Errorf("%s has more than %d bytes", name, maxPassphrase)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return nil, fmt.Errorf("%s is empty", name)
	}
	return b, nil
}

func openPassphrase(e *env, name string) (*os.File, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(name, "/dev/fd/"))
	if err != nil {
		return os.OpenFile(name, os.O_RDONLY|syscall.O_NOCTTY, 0)
	}
	if n == 0 {
		return e.stdin, nil
	}
	if f := os.NewFile(uintptr(n), "descriptor "+strconv.Itoa(n)); n > 0 && f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("descriptor %d: %w", n, fs.ErrInvalid)
}

// newPassphrase asks twice for a new passphrase, without echo, unless
// HSAGENT_PASSPHRASE_FILE names one.
func newPassphrase(e *env) ([]byte, error) {
	if b, err := passphraseFile(e); b != nil || err != nil {
		return b, err
	}
	if !term.IsTerminal(int(e.stdin.Fd())) {
		return nil, usageError("--passphrase needs a terminal to ask at, or HSAGENT_PASSPHRASE_FILE")
	}
	first, err := ask(e, "New passphrase: ")
	if err != nil {
		return nil, err
	}
	second, err := ask(e, "Once more: ")
	if err != nil {
		return nil, err
	}
	defer clear(second)
	switch {
	case len(first) == 0:
		return nil, errors.New("the passphrase is empty: nothing was made")
	case !bytes.Equal(first, second):
		clear(first)
		return nil, errors.New("the two differ: nothing was made")
	}
	return first, nil
}

func ask(e *env, prompt string) ([]byte, error) {
	if _, err := io.WriteString(e.stderr, prompt); err != nil {
		return nil, err
	}
	b, err := term.ReadPassword(int(e.stdin.Fd()))
	_, werr := io.WriteString(e.stderr, "\n")
	if err = errors.Join(err, werr); err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	return b, nil
}
