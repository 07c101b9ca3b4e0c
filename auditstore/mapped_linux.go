package auditstore

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"golang.org/x/sys/unix"
)

// maxMapped is how many bytes of files may be in the process's resident memory
// before it is worth the work to take some out. The program itself is a part.
const maxMapped = 32 << 20

// unmapMuch is unmap, if there is much to do.
func unmapMuch(db *badger.DB) error {
	if n, err := mappedBytes(); err != nil || n < maxMapped {
		return err
	}
	return unmap(db)
}

// unmap takes the tables' pages out of resident memory: Badger maps each table
// whole, and the system counts all that was ever read or written of it. The
// pages stay in the system's cache, and come back when they are read.
func unmap(db *badger.DB) error {
	// Addresses must not come to mean something else meanwhile. The iterator
	// keeps all tables open that are there before it and after it.
	before := tableIDs(db)
	txn := db.NewTransaction(false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	kept := tableIDs(db)
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("look for the tables' maps: %w", err)
	}
	defer f.Close()
	dir, err := realPath(db.Opts().Dir)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		area, path, ok := bytes.Cut(lines.Bytes(), []byte(" "))
		at := bytes.IndexByte(path, '/')
		if !ok || at < 0 || filepath.Dir(string(path[at:])) != dir {
			continue
		}
		id, ok := table.ParseFileID(string(path[at:]))
		if !ok || !before[id] || !kept[id] {
			continue
		}
		from, to, _ := strings.Cut(string(area), "-")
		begin, err := strconv.ParseUint(from, 16, 64)
		if err != nil {
			return fmt.Errorf("read the tables' maps: %w", err)
		}
		end, err := strconv.ParseUint(to, 16, 64)
		if err != nil {
			return fmt.Errorf("read the tables' maps: %w", err)
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(begin), uintptr(end-begin), unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("let go of table %d: %w", id, errno)
		}
	}
	return lines.Err()
}

// realPath is how the system names a directory.
func realPath(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// mappedBytes is how much of files is in the process's resident memory.
func mappedBytes() (int, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b) // size, resident, shared, ...
	if len(f) < 3 {
		return 0, fmt.Errorf("/proc/self/statm says %q", b)
	}
	pages, err := strconv.Atoi(string(f[2]))
	return pages * os.Getpagesize(), err
}

func tableIDs(db *badger.DB) map[uint64]bool {
	ids := make(map[uint64]bool)
	for _, t := range db.Tables() {
		ids[t.ID] = true
	}
	return ids
}
