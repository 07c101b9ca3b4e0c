package credstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockPause is how often a lock that another process holds is tried again.
const lockPause = 10 * time.Millisecond

// lock takes the flock on path+".lock", which outside writers share, and
// returns what lets it go. It waits for as long as ctx allows. The lock file
// stays: to remove it would let two writers hold two different ones.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	path += ".lock"
	for {
		held, err := tryLock(path)
		if err != nil {
			return nil, fmt.Errorf("lock the store: %w", err)
		}
		if held != nil {
			// Closing the only descriptor lets the lock go; nothing was written.
			return func() { _ = held.Close() }, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the lock %s, which another writer holds: %w", path, ctx.Err())
		case <-time.After(lockPause):
		}
	}
}

// tryLock returns the locked file, or nil if somebody else holds the lock.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		_ = f.Close() // not locked, not written
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
			return nil, nil
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// Somebody may have removed the file meanwhile: then our lock is on a file
	// that nobody else will find.
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if now := signatureAt(path); now.ino != signatureOf(info).ino || now.dev != signatureOf(info).dev {
		_ = f.Close() // not the lock any more
		return nil, nil
	}
	return f, nil
}
