package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/wire"
)

const exitNoCommand = 127 // as shells have it

// demo runs a throw-away agent on a sandbox HubSpot, and a command with it.
func demo(ctx context.Context, e *env, args []string) (err error) {
	f := newFlags("hsagentd demo")
	f.set.SetInterspersed(false)
	f.logLevel = "warn"
	if done, err := f.parse(e, args, helpDemo); done {
		return err
	}
	for _, flag := range []string{"config", "socket", "store", "identity", "audit-dir", "upstream", "upstream-ca", "log-format"} {
		if f.set.Changed(flag) {
			return usageError("--%s: the demo has its own", flag)
		}
	}
	if err := harden(e); err != nil {
		return err
	}
	var from level
	if err := from.UnmarshalText([]byte(f.logLevel)); err != nil {
		return usageError("--log-level: %w", err)
	}
	var cmd *exec.Cmd
	if f.set.NArg() > 0 {
		if cmd, err = command(e, f.set.Args()); err != nil {
			return err
		}
	}
	// A path below /tmp, not $TMPDIR: a socket's can have no more than 107 bytes.
	dir, err := os.MkdirTemp("/tmp", "hsagent-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	log := newLogger(e, formatText, from.Level)
	hub, c, err := stage(ctx, e, dir)
	if err != nil {
		return fmt.Errorf("set up the demo: %w", err)
	}
	defer hub.Close()
	return perform(ctx, &daemon{env: e, cfg: c, log: log}, cmd)
}

// stage makes the sandbox HubSpot, and identity, store and config for it.
func stage(ctx context.Context, e *env, dir string) (_ *sandbox.Listening, _ *config, err error) {
	play := sandbox.Demo()
	hub, err := sandbox.New(play).Start()
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			hub.Close()
		}
	}()
	c := newConfig(e)
	c.Socket = filepath.Join(dir, "agent.sock")
	c.Store = filepath.Join(dir, "store.age")
	c.Identity = filepath.Join(dir, "identity.txt")
	c.AuditDir = filepath.Join(dir, "audit")
	c.Upstream.BaseURL = hub.URL
	c.Upstream.CAFile = filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(c.Upstream.CAFile, hub.CAPEM, 0o600); err != nil {
		return nil, nil, err
	}
	id, err := credstore.GenerateIdentity(c.Identity, nil, false)
	if err != nil {
		return nil, nil, err
	}
	if _, _, err := c.obtainKeys(c.findKey(), ""); err != nil {
		return nil, nil, err
	}
	if err := credstore.Create(ctx, c.Store, id, nil); err != nil {
		return nil, nil, err
	}
	_, err = credstore.Open(c.Store, id).Update(ctx, func(edit *credstore.Edit) error {
		now := time.Now()
		for _, p := range play.Portals {
			slug, err := wire.ParseSlug(p.Slug)
			if err != nil {
				return err
			}
			if err := edit.Put(credstore.Entry{
				Slug: slug, Token: p.Token, PortalID: p.ID, AddedAt: now, LastRotatedAt: now, Datacenter: p.DataHosting,
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return hub, c, err
}

// perform serves until cmd has ended or, without one, until ctx ends.
func perform(ctx context.Context, d *daemon, cmd *exec.Cmd) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- d.run(ctx, func() { close(ready) }) }()
	select {
	case err := <-ended:
		return err
	case <-ready:
	}
	if cmd == nil {
		_, err := fmt.Fprintf(d.env.stdout, "export HSAGENT_SOCK=%s\n", d.cfg.Socket)
		return errors.Join(err, <-ended)
	}
	cmd.Env = append(cmd.Environ(), "HSAGENT_SOCK="+d.cfg.Socket)
	cmderr := cmd.Run()
	stop()
	return errors.Join(codeOf(cmderr), <-ended)
}

// command finds the program on PATH or, so that it works right after a build,
// beside this one.
func command(e *env, args []string) (*exec.Cmd, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		self, serr := os.Executable()
		beside := filepath.Join(filepath.Dir(self), args[0])
		if info, ferr := os.Stat(beside); serr != nil || ferr != nil || info.Mode()&0o111 == 0 || filepath.Base(args[0]) != args[0] {
			if errors.Is(err, fs.ErrPermission) {
				return nil, &codeError{exitNoCommand, err}
			}
			return nil, &codeError{exitNoCommand, fmt.Errorf("%s was not found on PATH, nor beside hsagentd", wire.Quote(args[0]))}
		}
		path = beside
	}
	cmd := exec.Command(path, args[1:]...) //nolint:gosec,noctx // what the user asked for; signals reach it from the terminal
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.stdin, e.stdout, os.Stderr
	return cmd, nil
}

// codeOf passes the command's exit code on. Like a shell, it reports a signal
// as 128 and its number.
func codeOf(err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return fmt.Errorf("run the command: %w", err)
	case exit.ExitCode() < 0:
		return &codeError{code: 128 + signalOf(exit)}
	}
	return &codeError{code: exit.ExitCode()}
}

// signalOf is the number of the signal that ended the command.
func signalOf(exit *exec.ExitError) int {
	if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() {
		return int(st.Signal())
	}
	return 0
}
