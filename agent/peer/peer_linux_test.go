package peer

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestUnitOf(t *testing.T) {
	tests := []struct{ name, cgroup, want string }{
		{"a service", "0::/system.slice/sync.service\n", "sync.service"},
		{"a user's service", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/job.service\n", "job.service"},
		{"a scope", "0::/user.slice/user-1000.slice/session-2.scope\n", "session-2.scope"},
		{"below a service", "0::/system.slice/sync.service/worker/7\n", "sync.service"},
		{"a template", "0::/system.slice/system-job.slice/job@a.service", "job@a.service"},
		{"beside old hierarchies", "12:cpu:/system.slice/other.service\n1:name=systemd:/other.service\n0::/system.slice/sync.service\n", "sync.service"},
		{"old hierarchies alone", "12:cpu:/system.slice/other.service\n", ""},
		{"the root", "0::/\n", ""},
		{"a slice", "0::/user.slice\n", ""},
		{"no unit in a name", "0::/x.servicex/service\n", ""},
		{"nothing", "", ""},
		{"garbage", "\x00\xff\n::::\n0:", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, unitOf(tt.cgroup)) })
	}
}

func TestReadUnitOfNoFile(t *testing.T) {
	require.Empty(t, readUnit(filepath.Join(t.TempDir(), "none")))
	require.Empty(t, readUnit(t.TempDir()))
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
	alive, done := liveness(-1, dead) // no pidfd: as on an older kernel
	defer done()
	require.False(t, alive())
	alive, done = liveness(-1, os.Getpid())
	defer done()
	require.True(t, alive())
}

func TestClosedConnection(t *testing.T) {
	server, _ := pair(t)
	require.NoError(t, server.Close())
	_, err := FromConn(server)
	require.Error(t, err)
}
