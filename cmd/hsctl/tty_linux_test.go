package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hsagent/hsagentd/wire"
)

// A screen is a terminal with hsctl at it, in a process of its own.
type screen struct {
	t    *testing.T
	cmd  *exec.Cmd
	keys *os.File
	done chan struct{} // closed when all output is read

	mu   sync.Mutex
	seen bytes.Buffer
}

// newScreen starts hsctl with all three streams at a terminal.
func newScreen(t *testing.T, a *fakeAgent, args ...string) *screen {
	t.Helper()
	s := &screen{t: t, cmd: exec.Command("hsctl", args...), done: make(chan struct{})}
	s.cmd.Env = append(os.Environ(), "HSAGENT_SOCK="+a.socket, "NO_COLOR=", "TERM=xterm")
	keys, err := pty.Start(s.cmd)
	require.NoError(t, err)
	s.keys = keys
	go func() {
		defer close(s.done)
		_, _ = io.Copy(s, keys) // a terminal ends with EIO
	}()
	t.Cleanup(func() { _ = keys.Close() })
	return s
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.Write(b)
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.ReplaceAll(s.seen.String(), "\r\n", "\n")
}

// await waits until the screen shows want.
func (s *screen) await(want string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return strings.Contains(s.text(), want) }, time.Minute, 5*time.Millisecond,
		"%q on the screen", want)
}

func (s *screen) key(keys string) {
	s.t.Helper()
	_, err := io.WriteString(s.keys, keys)
	require.NoError(s.t, err)
}

// end waits for hsctl and returns its exit code and the whole screen.
func (s *screen) end() (int, string) {
	s.t.Helper()
	_ = s.cmd.Wait() // the exit code tells
	<-s.done
	return s.cmd.ProcessState.ExitCode(), s.text()
}

func TestTerminalTokenPromptHasNoEcho(t *testing.T) {
	a := newFakeAgent(t)
	s := newScreen(t, a, "onboard", "new-client")
	s.await("token of new-client (not shown): ")
	s.key(madeUpToken + "\r")
	code, text := s.end()
	require.Equal(t, 0, code, text)
	require.NotContains(t, text, "0000-4000")
	require.Contains(t, text, "new-client: in the store, portal 42")
	require.Len(t, a.puts, 1)
	require.Equal(t, madeUpToken, a.puts[0].Token)
}

func TestTerminalPassphrasePromptHasNoEcho(t *testing.T) {
	a := newFakeAgent(t)
	s := newScreen(t, a, "unlock")
	s.await("passphrase (not shown): ")
	s.key("open sesame\r")
	code, text := s.end()
	require.Equal(t, 0, code, text)
	require.NotContains(t, text, "sesame")
	require.Equal(t, []string{`/v1/unlock {"passphrase":"open sesame"}`}, a.posts)
}

// TestTerminalPromptInterrupted: Ctrl-C at a prompt gives the echo back.
func TestTerminalPromptInterrupted(t *testing.T) {
	a := newFakeAgent(t)
	s := newScreen(t, a, "onboard", "new-client")
	s.await("(not shown): ")
	s.key("\x03")
	code, text := s.end()
	require.Equal(t, wire.ExitInterrupted, code, text)
	require.Empty(t, a.puts)
	modes, err := unix.IoctlGetTermios(int(s.keys.Fd()), unix.TCGETS)
	require.NoError(t, err)
	require.NotZero(t, modes.Lflag&unix.ECHO)
}

func TestTerminalRemoveAsks(t *testing.T) {
	tests := []struct {
		name, keys string
		code       int
		removed    bool
	}{
		{"yes", "y\r", 0, true},
		{"no", "n\r", wire.ExitFailed, false},
		{"return alone", "\r", wire.ExitFailed, false},
		{"end of input", "\x04", wire.ExitFailed, false},
		{"interrupt", "\x03", wire.ExitInterrupted, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newFakeAgent(t)
			s := newScreen(t, a, "remove", "acme-corp")
			s.await("remove acme-corp (portal 12345678) from the store? [y/N] ")
			s.key(tt.keys)
			code, text := s.end()
			require.Equal(t, tt.code, code, text)
			require.Equal(t, tt.removed, len(a.posts) == 1)
		})
	}
}

func TestTerminalGetsTableWithColours(t *testing.T) {
	a := newFakeAgent(t)
	code, text := newScreen(t, a, "portals").end()
	require.Equal(t, 0, code)
	require.Contains(t, text, "SLUG")
	require.Contains(t, text, "\x1b[32mready\x1b[0m ")
	require.Contains(t, text, "\x1b[31mquarantined\x1b[0m ")

	_, text = newScreen(t, a, "portals", "--no-color").end()
	require.NotContains(t, text, "\x1b")
	_, text = newScreen(t, a, "audit", "query", "--limit", "2").end()
	require.Contains(t, text, "SEQ       TIME")
	a.set(func() { a.large = true })
	_, text = newScreen(t, a, "audit", "verify").end()
	require.Contains(t, text, "40 of 100 records", "a bar while it takes")
	require.True(t, strings.HasSuffix(text, "\r\x1b[Kok: 25 records, root cm9vdA==\n"), "%q", text)
}

// TestThreat50Terminal: nothing that HubSpot or a store writer sends steers
// the terminal, in a table or in JSON.
func TestThreat50Terminal(t *testing.T) {
	a := newFakeAgent(t)
	a.set(func() { a.hostile = true })
	for _, format := range []string{"table", "json", "csv"} {
		code, text := newScreen(t, a, "portals", "--no-color", "-o", format).end()
		require.Equal(t, 0, code)
		require.Contains(t, text, "owned")
		for _, r := range text {
			require.False(t, r < 0x20 && r != '\n' || r >= 0x7f && r < 0xa0 || r == 0x202e, "%s: %U in %q", format, r, text)
		}
	}
}

// TestInterrupt: a signal ends a call and a follower with 130, without a word.
func TestInterrupt(t *testing.T) {
	for _, args := range [][]string{{"call", "acme-corp", "GET", "/hangs"}, {"audit", "tail", "-f"}} {
		t.Run(args[0], func(t *testing.T) {
			a := newFakeAgent(t)
			cmd := exec.Command("hsctl", args...)
			cmd.Env = append(os.Environ(), "HSAGENT_SOCK="+a.socket)
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			require.NoError(t, cmd.Start())
			_, err = io.ReadFull(out, make([]byte, 6)) // it streams: the beginning comes before the end
			require.NoError(t, err)
			require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
			_, _ = io.Copy(io.Discard, out) // the exit code tells
			_ = cmd.Wait()
			require.Equal(t, wire.ExitInterrupted, cmd.ProcessState.ExitCode())
			require.Empty(t, stderr.String())
		})
	}
}

// TestClosedStdout: a reader that has seen enough is no error to talk about.
func TestClosedStdout(t *testing.T) {
	a := newFakeAgent(t)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, r.Close())
	defer func() { _ = w.Close() }()
	var stderr bytes.Buffer
	e := &env{stdin: strings.NewReader(""), stdout: w, stderr: &stderr, getenv: func(string) string { return "" }}
	code := run(context.Background(), []string{"--socket", a.socket, "call", "acme-corp", "GET", "/echo"}, e)
	require.Equal(t, wire.ExitFailed, code)
	require.Empty(t, stderr.String())
}

// clientsFile writes a CSV that others may not read.
func clientsFile(t *testing.T, rows ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clients.csv")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(rows, "\n")), 0o600))
	return path
}

func TestTerminalBar(t *testing.T) {
	a := newFakeAgent(t)
	path := clientsFile(t, "new-a,"+token("a")+",42", "new-b,"+token("b")+",666")
	code, text := newScreen(t, a, "onboard", "--csv", path).end()
	require.Equal(t, wire.ExitFailed, code, text)
	require.Contains(t, text, "\r["+strings.Repeat(".", barWidth)+"] 0 of 2 rows")
	require.Contains(t, text, "\r["+strings.Repeat("#", barWidth/2)+strings.Repeat(".", barWidth/2)+"] 1 of 2 rows, about 0s left\x1b[K\r\x1b[K")
	require.Contains(t, text, "\x1b[K2      new-b                \x1b[31mrejected\x1b[0m  identity_mismatch")
	require.NotContains(t, text, "0000-4000")

	code, text = newScreen(t, a, "onboard", "--csv", path, "--quiet").end()
	require.Equal(t, wire.ExitFailed, code, text)
	require.NotContains(t, text, " rows, ")
	code, text = newScreen(t, a, "onboard", "--csv", "-").end()
	require.Equal(t, wire.ExitUsage, code, text)
}

// TestTerminalOnboardInterrupted: Ctrl-C while tokens are verified leaves
// nothing written, and says so.
func TestTerminalOnboardInterrupted(t *testing.T) {
	a := newFakeAgent(t)
	s := newScreen(t, a, "onboard", "--csv", clientsFile(t, "new-a,"+token("a")+",42", "hangs,"+token("b")+",43"))
	s.await("new-a  42            ")
	s.key("\x03")
	code, text := s.end()
	require.Equal(t, wire.ExitInterrupted, code, text)
	require.Contains(t, text, "hsctl: interrupted: nothing was written\n")
	require.NotContains(t, text, "shred")
}

func TestTerminalChecklist(t *testing.T) {
	a := newFakeAgent(t)
	s := newScreen(t, a, "rotate", "acme-corp")
	s.await("new token of acme-corp (not shown): ")
	s.key(madeUpToken + "\r")
	code, text := s.end()
	require.Equal(t, 0, code, text)
	require.NotContains(t, text, "0000-4000")
	require.Contains(t, text, "\x1b[32m[x]\x1b[0m the new token is in the store")
	require.Contains(t, text, "[ ] CI secrets has it")
	require.Contains(t, text, "next: when CI secrets has it")
}

// TestThreat57ProcessList: while tokens are on their way, neither the arguments
// nor the environment of hsctl has one.
func TestThreat57ProcessList(t *testing.T) {
	a := newFakeAgent(t)
	s := newScreen(t, a, "onboard", "--csv", clientsFile(t, "new-a,"+token("a")+",42", "hangs,"+token("b")+",43"))
	s.await("new-a  42            ")
	for _, file := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid), file))
		require.NoError(t, err)
		require.NotEmpty(t, b)
		require.NotContains(t, string(b), "0000-4000")
	}
	s.key("\x03")
	code, text := s.end()
	require.Equal(t, wire.ExitInterrupted, code)
	require.NotContains(t, text, "0000-4000")
}

// What is asked shows escaped, and what was typed before a question shows is no
// answer to it.
func TestThreat50ConfirmAtATerminal(t *testing.T) {
	a := newFakeAgent(t)
	s := newScreen(t, a, "confirm")
	const question = "confirm? [y/n] "
	s.await("DELETE /crm/v3/objects/contacts/7")
	s.await(question)
	s.key("y\ry\r") // one of them for what is still to come
	s.await("call 1 for acme-corp: allowed")
	s.await("PATCH /crm/v3/objects/deals/8")
	require.Eventually(t, func() bool { return strings.Count(s.text(), question) == 2 }, 20*time.Second, 5*time.Millisecond)
	s.key("n\r")
	s.await("call 2 for acme-corp: refused")
	s.key("\x03")
	code, text := s.end()
	require.Equal(t, wire.ExitInterrupted, code, text)
	require.Contains(t, text, `/bin/\x1b[2Jsh`)
	require.Contains(t, text, `x\x0d\x0aclient  other pat-na1-***`)
	require.NotContains(t, text, "\x1b[2J")
	a.set(func() {
		require.Equal(t, []string{`{"id":"1","allow":true}`, `{"id":"2","allow":false}`}, a.posts)
	})
}
