package auditstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// A dir is the log's directory, held under a lock of its own: Badger's lock
// guards only Badger's files.
type dir struct {
	path string
	lock *os.File
	held []heldFile
}

// A heldFile is an open file and the path that must still lead to it.
type heldFile struct {
	f    *os.File
	path string
}

func openDir(path string) (*dir, error) {
	there, err := exists(path)
	if err == nil {
		err = os.MkdirAll(path, 0o700)
	}
	if err == nil && !there {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("make the audit directory: %w", err)
	}
	if err := os.Chmod(path, 0o700); err != nil { //nolint:gosec // a directory needs its x bit
		return nil, fmt.Errorf("close the audit directory to others: %w", err)
	}
	return lockDir(path)
}

// lockDir locks an existing directory.
func lockDir(path string) (*dir, error) {
	name := filepath.Join(path, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit directory's lock: %w", err)
	}
	d := &dir{path: path, lock: f}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w: %s is held by process %s: stop it first", ErrInUse, path, holder(f))
		} else {
			err = fmt.Errorf("lock %s: %w", name, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write the process into %s: %w", name, err), f.Close())
	}
	return d, nil
}

// holder names the process that wrote itself into the lock.
func holder(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 20))
	if b = bytes.TrimSpace(b); err != nil || len(b) == 0 {
		return "of unknown number"
	}
	return string(b)
}

// hold remembers that path must lead to the directory that it leads to now.
func (d *dir) hold(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	d.held = append(d.held, heldFile{f, path})
	return nil
}

// check returns an error if a directory, or the file f at path, has been
// deleted or replaced: writes would still succeed, into nowhere.
func (d *dir) check(f *os.File, path string) error {
	if err := sameFile(heldFile{f, path}); err != nil {
		return err
	}
	for _, h := range d.held {
		if err := sameFile(h); err != nil {
			return err
		}
	}
	return nil
}

func sameFile(h heldFile) error {
	var open, named unix.Stat_t
	if err := unix.Fstat(int(h.f.Fd()), &open); err != nil {
		return fmt.Errorf("look at %s: %w", h.path, err)
	}
	if err := unix.Lstat(h.path, &named); err != nil {
		return fmt.Errorf("%s is gone: %w", h.path, err)
	}
	if open.Dev != named.Dev || open.Ino != named.Ino || open.Nlink == 0 {
		return fmt.Errorf("%s has been replaced", h.path)
	}
	return nil
}

// room returns an error if less than floor bytes are free.
func (d *dir) room(floor uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(d.path, &st); err != nil {
		return fmt.Errorf("ask for the free space of %s: %w", d.path, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < floor { //nolint:gosec // a block size is above 0
		return fmt.Errorf("%s has %d MiB free and needs %d MiB: make room", d.path, free>>20, (floor+1<<20-1)>>20)
	}
	return nil
}

func (d *dir) close() error {
	var errs []error
	for _, h := range d.held {
		errs = append(errs, h.f.Close())
	}
	return errors.Join(append(errs, d.lock.Close())...)
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
