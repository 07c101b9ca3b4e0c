package main_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/wire"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A running daemon of a test.
type running struct {
	*exec.Cmd
	home   string
	socket string
}

// start sets up a daemon below a home of its own and waits until it answers.
func start(t *testing.T, extra ...string) *running {
	t.Helper()
	home := shortDir(t)
	out, code := outputOf(t, hsagentd(t, home, nil, append([]string{"init"}, pathFlags(home)...)...))
	require.Zero(t, code, out)
	r := &running{Cmd: hsagentd(t, home, extra), home: home, socket: home + "/s/a.sock"}
	log, err := os.Create(home + "/log")
	require.NoError(t, err)
	r.Stdout, r.Stderr = log, log
	require.NoError(t, r.Start())
	require.NoError(t, log.Close())
	t.Cleanup(func() {
		if r.ProcessState == nil {
			require.NoError(t, r.Process.Kill())
			require.Error(t, r.Wait())
		}
	})
	require.Eventually(t, func() bool {
		c, err := net.Dial("unix", r.socket)
		return err == nil && c.Close() == nil
	}, time.Minute, 10*time.Millisecond, "the daemon does not listen")
	return r
}

func (r *running) log(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(r.home + "/log")
	require.NoError(t, err)
	return string(b)
}

func TestThreat12LeakyEnvironmentIsRefused(t *testing.T) {
	tests := []struct{ name, variable string }{
		{"prints headers", "GODEBUG=http2debug=2"},
		{"prints headers a little", "GODEBUG=gctrace=0,http2debug=1"},
		{"with spaces", "GODEBUG= http2debug=2"},
		{"in another name", "GODEBUG=xhttp2debug=2"},
		{"in a value", "GODEBUG=gctrace=http2debug=2"},
		{"lax chunks", "GODEBUG=httplaxcontentlength=1"},
		{"old TLS", "GODEBUG=tls10server=1"},
		{"weak key exchange", "GODEBUG=tlsrsakex=1"},
		{"SHA-1 certificates", "GODEBUG=x509sha1=1"},
		{"short RSA keys", "GODEBUG=rsa1024min=0"},
		{"TLS keys to a file", "SSLKEYLOGFILE=/dev/null"},
		{"core file on a crash", "GOTRACEBACK=crash"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			home := shortDir(t)
			for _, verb := range []string{"", "init", "check", "demo"} {
				args := pathFlags(home)
				if verb == "demo" {
					args = nil
				}
				if verb != "" {
					args = append([]string{verb}, args...)
				}
				out, code := outputOf(t, hsagentd(t, home, []string{tt.variable}, args...))
				require.Equal(t, 78, code, out)
				require.Contains(t, out, "nothing secret was read")
			}
			left, err := os.ReadDir(home)
			require.NoError(t, err)
			require.Empty(t, left, "something was made")
		})
	}
	t.Run("harmless settings", func(t *testing.T) {
		start(t, "GODEBUG=gctrace=0,netdns=go", "GOTRACEBACK=all")
	})
}

func TestThreat14And15ProcessIsClosed(t *testing.T) {
	r := start(t)
	if os.Getuid() != 0 {
		// The same user, another process.
		for _, name := range []string{"mem", "environ", "maps", "fd"} {
			_, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", r.Process.Pid, name))
			require.ErrorIs(t, err, os.ErrPermission, name)
		}
	}
	// A process that is not dumpable belongs to root in /proc, whoever runs it,
	// and refuses another process that lacks privileges.
	for _, name := range []string{"mem", "environ", "maps", "auxv"} {
		cmd := exec.CommandContext(t.Context(), "cat", fmt.Sprintf("/proc/%d/%s", r.Process.Pid, name))
		if os.Getuid() == 0 {
			// Root without any capability is a same-uid process like any other.
			cmd = exec.CommandContext(t.Context(), "setpriv", append([]string{"--bounding-set=-all", "--inh-caps=-all"}, cmd.Args...)...)
		}
		out, err := cmd.CombinedOutput()
		require.Error(t, err, name)
		require.Contains(t, string(out), "denied", name)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.Process.Pid))
	require.NoError(t, err)
	require.Regexp(t, `Max core file size +0 +0 `, string(limits))

	for _, sig := range []syscall.Signal{syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGQUIT} {
		r := start(t)
		require.NoError(t, r.Process.Signal(sig))
		require.Error(t, r.Wait())
		status := r.ProcessState.Sys().(syscall.WaitStatus)
		require.False(t, status.CoreDump(), "%v left a core file", sig)
	}
}

func TestThreat16SocketIsClosed(t *testing.T) {
	old := unix.Umask(0o022)
	t.Cleanup(func() { unix.Umask(old) })
	r := start(t)
	dir, err := os.Stat(filepath.Dir(r.socket))
	require.NoError(t, err)
	require.Equal(t, os.ModeDir|0o700, dir.Mode())
	socket, err := os.Stat(r.socket)
	require.NoError(t, err)
	require.Equal(t, os.ModeSocket|0o600, socket.Mode())

	for _, mode := range []os.FileMode{0o777, 0o770, 0o702} {
		home := shortDir(t)
		_, code := outputOf(t, hsagentd(t, home, nil, append([]string{"init"}, pathFlags(home)...)...))
		require.Zero(t, code)
		require.NoError(t, os.Mkdir(home+"/s", 0o700))
		require.NoError(t, os.Chmod(home+"/s", mode))
		out, code := outputOf(t, hsagentd(t, home, nil))
		require.Equal(t, 78, code, out)
		require.Contains(t, out, "can be written by others")
	}
}

func TestThreat35SocketPathIsTaken(t *testing.T) {
	type test struct {
		name string
		code int
		make func(t *testing.T, path string)
	}
	tests := []test{
		{"regular file", 78, func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
		}},
		{"link to a file", 78, func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path+".victim", []byte("precious"), 0o600))
			require.NoError(t, os.Symlink(path+".victim", path))
		}},
		{"link to nothing", 78, func(t *testing.T, path string) {
			require.NoError(t, os.Symlink(path+".victim", path))
		}},
		{"directory", 78, func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) }},
		{"live socket of another program", 75, func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, l.Close()) })
		}},
		{"lock is a link", 78, func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path+".victim", []byte("precious"), 0o600))
			require.NoError(t, os.Symlink(path+".victim", path+".lock"))
		}},
	}
	if os.Getuid() == 0 { // who else can give a file away
		tests = append(tests, test{"dead socket of another user", 78, func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			require.NoError(t, err)
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			require.NoError(t, l.Close())
			require.NoError(t, os.Chown(path, 65534, 65534))
		}})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			home := shortDir(t)
			_, code := outputOf(t, hsagentd(t, home, nil, append([]string{"init"}, pathFlags(home)...)...))
			require.Zero(t, code)
			require.NoError(t, os.Mkdir(home+"/s", 0o700))
			path := home + "/s/a.sock"
			tt.make(t, path)
			before, _ := os.Lstat(path)
			out, code := outputOf(t, hsagentd(t, home, nil))
			require.Equal(t, tt.code, code, out)
			require.Contains(t, out, path)
			after, _ := os.Lstat(path)
			if before != nil {
				require.True(t, os.SameFile(before, after), "it was touched")
			}
			if b, err := os.ReadFile(path + ".victim"); err == nil {
				require.Equal(t, "precious", string(b))
			}
		})
	}
	t.Run("stale socket", func(t *testing.T) {
		r := start(t)
		require.NoError(t, r.Process.Kill())
		require.Error(t, r.Wait())
		_, err := os.Lstat(r.socket)
		require.NoError(t, err, "kill -9 leaves the socket")
		again := hsagentd(t, r.home, nil)
		require.NoError(t, again.Start())
		require.Eventually(t, func() bool {
			_, err := wire.NewClient(r.socket).Status(t.Context())
			return err == nil
		}, time.Minute, 10*time.Millisecond)
		require.NoError(t, again.Process.Signal(syscall.SIGTERM))
		require.NoError(t, again.Wait())
		_, err = os.Lstat(r.socket)
		require.ErrorIs(t, err, os.ErrNotExist)
	})
	t.Run("removed while it runs", func(t *testing.T) {
		r := start(t)
		answers := func() bool {
			_, err := wire.NewClient(r.socket).Status(t.Context())
			return err == nil
		}
		for name, remove := range map[string]func() error{
			"the socket":    func() error { return os.Remove(r.socket) },
			"renamed":       func() error { return os.Rename(r.socket, r.socket+".old") },
			"the directory": func() error { return os.RemoveAll(filepath.Dir(r.socket)) },
		} {
			require.NoError(t, remove(), name)
			require.False(t, answers(), name)
			require.Eventually(t, answers, 20*time.Second, 20*time.Millisecond, "%s: %s", name, r.log(t))
			info, err := os.Lstat(r.socket)
			require.NoError(t, err)
			require.Equal(t, os.ModeSocket|0o600, info.Mode(), name)
			_, code := outputOf(t, hsagentd(t, r.home, nil))
			require.Equal(t, 75, code, "%s: a second daemon is kept out", name)
		}
		require.NoError(t, os.Chmod(r.socket, 0o777))
		require.Eventually(t, func() bool {
			info, err := os.Lstat(r.socket)
			return err == nil && info.Mode().Perm() == 0o600
		}, 20*time.Second, 20*time.Millisecond)

		// Others could put a socket of theirs into such a directory.
		require.NoError(t, os.Chmod(filepath.Dir(r.socket), 0o777))
		require.NoError(t, os.Remove(r.socket))
		require.Eventually(t, func() bool { return strings.Contains(r.log(t), "can be written by others") }, 20*time.Second, 20*time.Millisecond)
		require.False(t, answers())
		require.NoError(t, os.Chmod(filepath.Dir(r.socket), 0o700))
		require.Eventually(t, answers, 20*time.Second, 20*time.Millisecond)
		require.NoError(t, r.Process.Signal(syscall.SIGTERM))
		require.NoError(t, r.Wait(), r.log(t))
		require.NoFileExists(t, r.socket)
	})
	t.Run("replaced while it runs", func(t *testing.T) {
		r := start(t)
		require.NoError(t, os.Remove(r.socket))
		require.NoError(t, os.WriteFile(r.socket, []byte("precious"), 0o600))
		require.NoError(t, r.Process.Signal(syscall.SIGTERM))
		require.NoError(t, r.Wait(), r.log(t))
		b, err := os.ReadFile(r.socket)
		require.NoError(t, err)
		require.Equal(t, "precious", string(b))
	})
}

func TestThreat36SocketPathThatCannotBe(t *testing.T) {
	home := shortDir(t)
	_, made := outputOf(t, hsagentd(t, home, nil, append([]string{"init"}, pathFlags(home)...)...))
	require.Zero(t, made)
	for _, path := range []string{"@hsagent", "", "/" + strings.Repeat("x", 107), "/tmp/a\x01" + strings.Repeat("y", 200)} {
		out, code := outputOf(t, hsagentd(t, home, nil, "--socket", path))
		require.Equal(t, 2, code, out)
		require.Contains(t, out, "--socket: ")
	}
	out, code := outputOf(t, hsagentd(t, home, []string{"HSAGENT_SOCK=@x"}))
	require.Equal(t, 2, code)
	require.Contains(t, out, "HSAGENT_SOCK: ")
}

func TestThreat59SecondDaemon(t *testing.T) {
	r := start(t)
	first := strconv.Itoa(r.Process.Pid)
	for range 20 {
		out, code := outputOf(t, hsagentd(t, r.home, nil))
		require.Equal(t, 75, code, out)
		require.Contains(t, out, "pid "+first)
	}
	// Each of the three is guarded by itself.
	other := shortDir(t)
	_, made := outputOf(t, hsagentd(t, other, nil, append([]string{"init"}, pathFlags(other)...)...))
	require.Zero(t, made)
	flags := pathFlags(r.home)
	require.Len(t, flags, 6)
	for i := 0; i < len(flags); i += 2 {
		out, code := outputOf(t, hsagentd(t, other, nil, flags[i:i+2]...))
		require.Equal(t, 75, code, "%s: %s", flags[i], out)
		require.Contains(t, out, first, flags[i])
	}
	st, err := wire.NewClient(r.socket).Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, r.Process.Pid, st.PID)
	require.Empty(t, st.Audit.LastError)
}

// TestNotify plays systemd: it listens for what the daemon says, passes the
// socket, and sends the signals.
func TestNotify(t *testing.T) {
	home := shortDir(t)
	hub, err := sandbox.New(sandbox.Demo()).Start()
	require.NoError(t, err)
	t.Cleanup(hub.Close)
	_, code := outputOf(t, hsagentd(t, home, nil, append([]string{"init"}, pathFlags(home)...)...))
	require.Zero(t, code)

	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: home + "/n", Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, manager.Close()) })
	l, err := net.Listen("unix", home+"/api")
	require.NoError(t, err)
	passed, err := l.(*net.UnixListener).File()
	require.NoError(t, err)

	// A client that connects before the daemon is there gets its answer once
	// it is ready.
	early := make(chan error, 1)
	go func() {
		_, err := wire.NewClient(home + "/api").Status(t.Context())
		early <- err
	}()
	// LISTEN_PID must be the daemon's own: a shell sets it and becomes the daemon.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "LISTEN_PID=$$ exec "+binaries+"/hsagentd --log-format json")
	cmd.Env = hsagentd(t, home, []string{
		"NOTIFY_SOCKET=" + home + "/n", "LISTEN_FDS=1", "LISTEN_FDNAMES=api", "WATCHDOG_USEC=300000",
	}).Env
	cmd.ExtraFiles = []*os.File{passed}
	require.NoError(t, cmd.Start())

	said := make(chan string, 100)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := manager.Read(buf)
			if err != nil {
				return
			}
			s := bufio.NewScanner(strings.NewReader(string(buf[:n])))
			for s.Scan() {
				said <- s.Text()
			}
		}
	}()
	expect := func(prefix string) string {
		t.Helper()
		for {
			select {
			case line := <-said:
				if strings.HasPrefix(line, prefix) {
					return line
				}
			case <-time.After(time.Minute):
				require.Fail(t, "systemd was not told", prefix)
			}
		}
	}
	require.Equal(t, "READY=1", <-said, "nothing comes before it")
	require.NoError(t, <-early)
	require.Equal(t, "STATUS=portals: 0 ready", expect("STATUS="))
	expect("WATCHDOG=1")
	expect("WATCHDOG=1")
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	expect("RELOADING=1")
	expect("MONOTONIC_USEC=")
	expect("READY=1")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	expect("STOPPING=1")
	require.NoError(t, cmd.Wait())
	_, err = os.Lstat(home + "/api")
	require.NoError(t, err, "systemd's socket stays")
}
