package peer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxCgroupFile bounds what is read of /proc/PID/cgroup.
const maxCgroupFile = 16 << 10

// FromConn asks the kernel who made the connection.
func FromConn(conn *net.UnixConn) (*Caller, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("peer of the connection: %w", err)
	}
	var c *Caller
	cerr := raw.Control(func(fd uintptr) { c, err = fromFD(int(fd)) })
	if err = errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("peer of the connection: %w", err)
	}
	return c, nil
}

// Trace fills in what /proc tells of the caller, if it provably still lives
// after that was read. conn is the connection that it made; on one that was
// closed nothing is known. With digests, the caller has the digest of its
// executable.
func (c *Caller) Trace(conn *net.UnixConn, digests *Digests) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { c.readProc(int(fd), digests) }) // fails on what was closed
}

func fromFD(fd int) (*Caller, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return nil, fmt.Errorf("SO_PEERGROUPS: %w", err)
	}
	return &Caller{
		UID:    int(cred.Uid),
		GID:    int(cred.Gid),
		Groups: groups,
		PID:    int(cred.Pid),
		User:   userName(int(cred.Uid)),
	}, nil
}

// peerGroups returns the supplementary groups that the peer had when it
// connected.
func peerGroups(fd int) ([]int, error) {
	buf := make([]uint32, 64)
	for {
		size := uint32(len(buf) * 4) //nolint:gosec // at most 65,536 groups
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0) //nolint:gosec // the kernel fills buf
		switch {
		case errno == unix.ERANGE && int(size) > len(buf)*4:
			buf = make([]uint32, size/4)
			continue
		case errno != 0:
			return nil, errno
		}
		groups := make([]int, size/4)
		for i := range groups {
			groups[i] = int(buf[i])
		}
		return groups, nil
	}
}

func (c *Caller) readProc(fd int, digests *Digests) {
	if c.PID <= 0 {
		return
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	alive, done := liveness(pidfd, err, c.PID)
	defer done()
	dir := "/proc/" + strconv.Itoa(c.PID)
	exe, _ := os.Readlink(dir + "/exe") // not ours to read for every peer: then it stays ""
	var file *os.File
	if digests != nil {
		file, _ = os.Open(dir + "/exe") // the file itself, whatever has its name by now
	}
	unit, err := readUnit(dir + "/cgroup")
	if !alive() {
		_ = file.Close() // only read; a nil file does not mind
		return
	}
	c.Exe, c.Unit, c.Traced = exe, unit, err == nil
	if file != nil {
		c.digest = digests.of(file)
	}
}

// liveness returns a check that the process of the connection still lives. It
// never mistakes another process with the same pid for it: with a pidfd the
// kernel says so. A kernel that has none to give says that it does not know the
// option (ENOPROTOOPT); there the start time does. Any other error means that
// the process has gone.
func liveness(pidfd int, err error, pid int) (alive func() bool, done func()) {
	switch {
	case err == nil:
		return func() bool { return pidfdAlive(pidfd) }, func() {
			_ = unix.Close(pidfd) // nothing was written to it
		}
	case errors.Is(err, unix.ENOPROTOOPT):
		before := startTime(pid)
		return func() bool { return before != "" && before == startTime(pid) }, func() {}
	}
	return func() bool { return false }, func() {}
}

func pidfdAlive(pidfd int) bool {
	err := unix.PidfdSendSignal(pidfd, 0, nil, 0)
	return err == nil || errors.Is(err, unix.EPERM)
}

// startTime is field 22 of /proc/PID/stat, in clock ticks since boot.
func startTime(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	s := string(b)
	s = s[strings.LastIndexByte(s, ')')+1:] // the name may have spaces and brackets
	f := strings.Fields(s)
	if len(f) < 20 {
		return ""
	}
	return f[19]
}

// readUnit returns the last systemd unit in the process's cgroup path.
func readUnit(file string) (string, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0) // os.Open asks the poller about it first
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }() // only read
	buf := make([]byte, maxCgroupFile)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return "", err
	}
	unit, known := unitOf(string(buf[:n]))
	if !known {
		return "", errors.New("no control group of systemd's")
	}
	return unit, nil
}

// unitOf finds the unit in the text of /proc/PID/cgroup: the last path segment
// that ends in .service or .scope, in the unified hierarchy (the line "0::") or,
// where systemd does not use that one, in its own. Without either it is not known
// whether there is a unit.
func unitOf(cgroup string) (unit string, known bool) {
	for line := range strings.Lines(cgroup) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3) // number, controllers, path
		unified := f[0] == "0" && len(f) == 3 && f[1] == ""
		if !unified && (len(f) < 3 || f[1] != "name=systemd" || unit != "") {
			continue
		}
		known = true
		for seg := range strings.SplitSeq(f[2], "/") {
			if strings.HasSuffix(seg, ".service") || strings.HasSuffix(seg, ".scope") {
				unit = seg
			}
		}
	}
	return unit, known
}
