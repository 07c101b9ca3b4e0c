//go:build faults

package peer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// reuses names the variable that makes of TestFaultReusedPIDs the program that
// it starts, in a process namespace of its own.
const reuses = "PEER_TEST_REUSES"

// A process connects and ends, and at once another program gets its number:
// 10,000 times. What the connection is said to be is never that program.
func TestFaultReusedPIDs(t *testing.T) {
	if n, err := strconv.Atoi(os.Getenv(reuses)); err == nil {
		reusePIDs(t, n)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFaultReusedPIDs$", "-test.v")
	cmd.Env = append(os.Environ(), reuses+"=10000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}

func reusePIDs(t *testing.T, times int) {
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	require.NoError(t, unix.Mount("proc", "/proc", "proc", 0, ""))
	dir, err := os.MkdirTemp("/tmp", "hs") // a socket's path has 107 bytes at most
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	defer l.Close()
	other, err := exec.LookPath("sleep")
	require.NoError(t, err)

	reused := 0
	for range times {
		first := connectAndEnd(t, path)
		next := exec.Command(other, "60")
		require.NoError(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(first-1)), 0))
		require.NoError(t, next.Start())
		if next.Process.Pid == first {
			reused++
			now, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", first))
			require.NoError(t, err)
			require.Contains(t, now, "/", "the control: there is such a program")
		}
		conn, err := l.AcceptUnix()
		require.NoError(t, err)
		c, err := FromConn(conn)
		require.NoError(t, err)
		c.Trace(conn, NewDigests())
		require.Equal(t, first, c.PID)
		require.Empty(t, c.Exe, "the program of another process")
		require.Empty(t, c.SHA256())
		require.False(t, c.Traced)
		require.NoError(t, conn.Close())
		require.NoError(t, next.Process.Kill())
		_ = next.Wait() // it was killed
	}
	t.Logf("%d connections of processes that had ended, %d numbers taken by another program", times, reused)
	require.Greater(t, reused, times*9/10, "numbers are not used again: the test sees nothing")
}

// connectAndEnd has a process of its own connect to a socket and end, and
// returns its number, which is free by then.
func connectAndEnd(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	addr := unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	for i := range path {
		addr.Path[i] = int8(path[i])
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, errno := forkToConnect(fd, &addr)
	require.Zero(t, errno)
	var ws unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	require.NoError(t, err)
	require.Zero(t, ws.ExitStatus())
	return pid
}

// forkToConnect makes a process that does nothing but system calls: after a
// fork there is no Go any more.
//
//go:norace
//go:noinline
func forkToConnect(fd int, addr *unix.RawSockaddrUnix) (pid int, errno syscall.Errno) {
	size := unsafe.Sizeof(*addr)
	r, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || r != 0 {
		return int(r), errno
	}
	_, _, errno = syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(addr)), size)
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
	}
}
