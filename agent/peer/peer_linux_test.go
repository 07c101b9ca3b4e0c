package peer

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestUnitOf(t *testing.T) {
	const unknown = "unknown"
	tests := []struct{ name, cgroup, want string }{
		{"a service", "0::/system.slice/sync.service\n", "sync.service"},
		{"a user's service", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/job.service\n", "job.service"},
		{"a scope", "0::/user.slice/user-1000.slice/session-2.scope\n", "session-2.scope"},
		{"below a service", "0::/system.slice/sync.service/worker/7\n", "sync.service"},
		{"a template", "0::/system.slice/system-job.slice/job@a.service", "job@a.service"},
		{"beside old hierarchies", "12:cpu:/system.slice/other.service\n1:name=systemd:/other.service\n0::/system.slice/sync.service\n", "sync.service"},
		{"old hierarchies alone", "12:cpu:/system.slice/other.service\n", unknown},
		{"systemd's old hierarchy", "9:name=systemd:/system.slice/sync.service\n4:memory:/other.service\n", "sync.service"},
		{"systemd's old hierarchy beside an unused one", "9:name=systemd:/system.slice/sync.service\n0::/\n", "sync.service"},
		{"no unit in either", "9:name=systemd:/\n0::/\n", ""},
		{"a name that pretends", "4:memory:/a:name=systemd:/b.service\n", unknown},
		{"of another kind", "9:name=systemd2:/a.service\n10:cpu,name=systemd:/b.service\n", unknown},
		{"the root", "0::/\n", ""},
		{"a slice", "0::/user.slice\n", ""},
		{"no unit in a name", "0::/x.servicex/service\n", ""},
		{"nothing", "", unknown},
		{"garbage", "\x00\xff\n::::\n0:", unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			unit, known := unitOf(tt.cgroup)
			if !known {
				require.Empty(t, unit)
				unit = unknown
			}
			require.Equal(t, tt.want, unit)
		})
	}
}

func TestReadUnitNotKnown(t *testing.T) {
	old := filepath.Join(t.TempDir(), "cgroup")
	require.NoError(t, os.WriteFile(old, []byte("4:memory:/other.service\n"), 0o600))
	for _, file := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir(), old} {
		unit, err := readUnit(file)
		require.Empty(t, unit)
		require.Error(t, err)
	}
}

// pair is a connection and its other end.
func pair(t *testing.T) (server, client *net.UnixConn) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hs") // a socket's path has 107 bytes at most
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	require.NoError(t, err)
	defer l.Close()
	client, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	require.NoError(t, err)
	server, err = l.AcceptUnix()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return server, client
}

func TestThreat16CallerIsWhoTheKernelSays(t *testing.T) {
	server, _ := pair(t)
	c, err := FromConn(server)
	require.NoError(t, err)
	c.Trace(server, nil)
	exe, err := os.Executable()
	require.NoError(t, err)
	require.Equal(t, os.Geteuid(), c.UID)
	require.Equal(t, os.Getegid(), c.GID)
	require.Equal(t, os.Getpid(), c.PID)
	require.Equal(t, exe, c.Exe)
	require.Equal(t, userName(os.Geteuid()), c.User)
	groups, err := os.Getgroups()
	require.NoError(t, err)
	require.ElementsMatch(t, groups, c.Groups)
	for _, g := range append(groups, os.Getegid()) {
		require.True(t, c.InGroup(g))
	}
	require.False(t, c.InGroup(987_654))
}

func TestThreat30DeadCallersHaveNoProgram(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fds[0]), "ours")
	conn, err := net.FileConn(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	t.Cleanup(func() { _, _ = conn.Close(), unix.Close(fds[1]) })
	c, err := FromConn(conn.(*net.UnixConn))
	require.NoError(t, err)
	require.Equal(t, os.Getpid(), c.PID, "of a pair, whoever made it")

	cmd := exec.Command("/bin/true")
	require.NoError(t, cmd.Run())
	dead := cmd.ProcessState.Pid()
	require.Empty(t, startTime(dead), "a process that has ended")
	tests := []struct {
		name string
		err  error // of SO_PEERPIDFD
		pid  int
		want bool
	}{
		{"an older kernel, a dead process", unix.ENOPROTOOPT, dead, false},
		{"an older kernel, a live process", unix.ENOPROTOOPT, os.Getpid(), true},
		{"a dead process, its number taken by a live one", unix.EINVAL, os.Getpid(), false},
		{"the same, as newer kernels say it", unix.ESRCH, os.Getpid(), false},
		{"no room for the descriptor", unix.EMFILE, os.Getpid(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			alive, done := liveness(-1, tt.err, tt.pid)
			defer done()
			require.Equal(t, tt.want, alive())
		})
	}
}

// A process connects, hands its end to another one and ends: its program is
// not taken from whoever lives now.
func TestThreat30CallerThatEndsHasNoProgram(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "hs") // a socket's path has 107 bytes at most
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	require.NoError(t, err)
	defer l.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestConnectAndEnd$")
	cmd.Env = append(os.Environ(), "PEER_TEST_SOCKET="+filepath.Join(dir, "s"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	conn, err := l.AcceptUnix()
	require.NoError(t, err)
	defer conn.Close()
	c, err := FromConn(conn)
	require.NoError(t, err)
	c.Trace(conn, NewDigests())
	require.Equal(t, cmd.Process.Pid, c.PID)
	require.Empty(t, c.Exe)
	require.Empty(t, c.Unit)
	require.False(t, c.Traced)
	require.Empty(t, c.SHA256())
}

// TestConnectAndEnd is the program that the test above starts.
func TestConnectAndEnd(t *testing.T) {
	path := os.Getenv("PEER_TEST_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	defer conn.Close()
}

func TestDigests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	write := func(text string, mtime time.Time) string {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.NoError(t, os.Chtimes(path, mtime, mtime))
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:])
	}
	d := NewDigests()
	get := func() (*digest, string) {
		f, err := os.Open(path)
		require.NoError(t, err)
		dg := d.of(f)
		return dg, (&Caller{digest: dg}).SHA256()
	}
	then := time.Now().Add(-time.Hour)
	want := write("one", then)
	first, sum := get()
	require.Equal(t, want, sum)
	again, _ := get()
	require.Same(t, first, again, "the file is read once")

	// Another program with the same size and the same mtime is another one.
	want = write("two", then)
	_, sum = get()
	require.Equal(t, want, sum)

	dir, err := os.Open(t.TempDir())
	require.NoError(t, err)
	require.Nil(t, d.of(dir), "no file")
	require.Empty(t, (&Caller{}).SHA256())
}

// Who runs ever new programs gets no digests for them, and takes neither the
// descriptors nor, once they are read, the others' turn.
func TestDigestsAreBounded(t *testing.T) {
	dir := t.TempDir()
	d := NewDigests()
	for range maxHashing {
		d.slots <- struct{}{} // two endless files
	}
	get := func(name string) *digest {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			require.NoError(t, os.WriteFile(path, []byte(name), 0o600))
		}
		f, err := os.Open(path)
		require.NoError(t, err)
		dg := d.of(f)
		if dg == nil {
			require.ErrorIs(t, f.Close(), os.ErrClosed)
		}
		return dg
	}
	var waiting []*digest
	for i := range maxWaiting {
		waiting = append(waiting, get(strconv.Itoa(i)))
		require.NotNil(t, waiting[i])
	}
	require.Nil(t, get("one more"))
	require.Same(t, waiting[0], get("0"), "it is waited for already")
	for range maxHashing {
		<-d.slots
	}
	for _, dg := range waiting {
		require.NotEmpty(t, (&Caller{digest: dg}).SHA256())
	}
	require.Eventually(t, func() bool { return get("one more") != nil }, 20*time.Second, time.Millisecond)
}

func TestDigestOfACaller(t *testing.T) {
	server, _ := pair(t)
	c, err := FromConn(server)
	require.NoError(t, err)
	c.Trace(server, NewDigests())
	self, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	sum := sha256.Sum256(self)
	require.Equal(t, hex.EncodeToString(sum[:]), c.SHA256())
	require.True(t, c.Traced)
}

func TestClosedConnection(t *testing.T) {
	server, _ := pair(t)
	c, err := FromConn(server)
	require.NoError(t, err)
	require.NoError(t, server.Close())
	_, err = FromConn(server)
	require.Error(t, err)
	c.Trace(server, NewDigests())
	require.False(t, c.Traced)
	require.Empty(t, c.Exe)
}
