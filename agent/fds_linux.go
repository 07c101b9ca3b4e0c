package agent

import (
	"os"

	"golang.org/x/sys/unix"
)

// openFDs counts the descriptors that the process has open, and returns how
// many it may have. Where it cannot be counted, all are taken.
func openFDs() (used, limit int) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, 1 << 20
	}
	limit = int(min(r.Cur, 1<<20))
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return limit, limit // the usual reason
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return limit, limit
	}
	return len(names) - 1, limit // without dir
}
