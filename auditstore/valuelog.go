package auditstore

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// memoryFS is where Linux has a file system in memory for everybody.
const memoryFS = "/dev/shm"

// valueDir makes a directory in memory for Badger's value log, and returns ""
// where there can be none: then it stands beside the tables, and only costs
// time.
//
// The value log is always empty: openBadger sees to it that every value stays
// in the tables. But Badger syncs it with each transaction, after the
// write-ahead log, and a sync of a file that has not changed flushes the disk
// all the same: a third of the time that a record takes. In memory there is
// nothing to flush. What is there is made anew at each start and never read.
func (d *dir) valueDir() string {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.lock.Fd()), &st); err != nil {
		return ""
	}
	// The name is the log's alone, so that what a killed process left is
	// found; the log's lock is held.
	path := filepath.Join(memoryFS, fmt.Sprintf("hsagent-%d-%x-%x", os.Geteuid(), st.Dev, st.Ino))
	if err := os.RemoveAll(path); err != nil {
		return ""
	}
	if err := os.Mkdir(path, 0o700); err != nil { // somebody else's would do harm: it must be new
		return ""
	}
	// Badger writes through a memory map, where a full file system means a
	// fault and not an error.
	probe := filepath.Join(path, "probe")
	if os.WriteFile(probe, make([]byte, 64<<10), 0o600) != nil || os.Remove(probe) != nil {
		_ = os.RemoveAll(path) // empty, or found at the next start
		return ""
	}
	d.values = path
	return path
}

// dropValueDir removes the directory, once Badger is closed.
func (d *dir) dropValueDir() error {
	if d.values == "" {
		return nil
	}
	return os.RemoveAll(d.values)
}
