package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/hsagent/hsagentd/wire"
)

// systemSocket is where the system service listens.
const systemSocket = "/run/hsagent/agent.sock"

// maxSocketPath is the longest path that a Unix socket's address holds.
const maxSocketPath = 107

// An env is what one run of hsctl touches outside itself. Tests make their own.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	uid            int

	global globalOptions
}

// globalOptions are the flags of every command.
type globalOptions struct {
	socket  string
	output  string
	quiet   bool
	noColor bool
}

// stdEnv is the environment of the process.
func stdEnv() *env {
	return &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, uid: os.Getuid()}
}

// socket is the path of the agent's socket: flag, environment, default.
func (e *env) socket() string {
	if e.global.socket != "" {
		return e.global.socket
	}
	if s := e.getenv("HSAGENT_SOCK"); s != "" {
		return s
	}
	if e.uid == 0 {
		return systemSocket
	}
	dir := e.getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = "/run/user/" + strconv.Itoa(e.uid)
	}
	return filepath.Join(dir, "hsagent", "agent.sock")
}

// client returns a client for the agent's socket; it has not connected yet.
func (e *env) client() (*wire.Client, error) {
	path := e.socket()
	switch {
	case strings.HasPrefix(path, "@") || strings.Contains(path, "\x00"):
		return nil, usagef("socket %s: abstract sockets have no permissions; give a path", wire.Quote(path))
	case len(path) > maxSocketPath:
		return nil, usagef("socket %s: the path has %d bytes, a socket's may have %d", wire.Quote(path), len(path), maxSocketPath)
	}
	return wire.NewClient(path), nil
}

// terminal returns the descriptor of v and whether it is a terminal.
func terminal(v any) (fd int, ok bool) {
	f, isFile := v.(*os.File)
	if !isFile {
		return -1, false
	}
	fd = int(f.Fd())
	return fd, term.IsTerminal(fd)
}

// note tells the user what was done, unless --quiet is set.
func (e *env) note(format string, args ...any) {
	if !e.global.quiet {
		e.complain(fmt.Sprintf(format, args...))
	}
}

// complain writes msg to stderr, each line with the program's name before it,
// safe for a terminal and with tokens masked.
func (e *env) complain(msg string) {
	for line := range strings.Lines(msg) {
		line = wire.Printable(wire.MaskTokens(strings.TrimRight(line, "\n")))
		_, _ = fmt.Fprintf(e.stderr, "hsctl: %s\n", line) // nobody is left to tell when stderr is closed
	}
}
