package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"
)

// socketWatch is how often the socket's name is looked at.
const socketWatch = 2 * time.Second

// Accept accepts on the socket that has the name now.
func (s *socket) Accept() (net.Conn, error) {
	for {
		l := s.current()
		c, err := l.Accept()
		if err == nil || s.current() == l {
			return c, err
		}
	}
}

// Close closes the listener for good.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = true
	return s.Listener.Close()
}

func (s *socket) current() net.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Listener
}

// watch sees to it that the socket's path leads to us until ctx ends: clean-up
// jobs and people remove sockets. What somebody else put there stays.
func (s *socket) watch(ctx context.Context, e *env, gid int, log *slog.Logger) {
	tick := time.NewTicker(socketWatch)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		mended, err := s.mend(ctx, e, gid)
		switch {
		case err != nil && err.Error() != said:
			said = err.Error()
			log.ErrorContext(ctx, "clients cannot reach the agent", "socket", s.path, "error", err)
		case mended != "":
			log.WarnContext(ctx, "the socket was mended", "socket", s.path, "because", mended)
			fallthrough
		case err == nil:
			said = ""
		}
	}
}

// mend makes the socket anew if its name is gone, and gives it its mode back.
func (s *socket) mend(ctx context.Context, e *env, gid int) (mended string, err error) {
	info, err := os.Lstat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.activated:
		return "", errors.New("the socket is gone, and it is systemd's: run systemctl restart hsagentd.socket")
	case errors.Is(err, fs.ErrNotExist):
		if err := s.rebind(ctx, e, gid); err != nil {
			return "", fmt.Errorf("the socket is gone and cannot be made again: %w", err)
		}
		return "it was removed", nil
	case err != nil:
		return "", fmt.Errorf("look at the socket: %w", err)
	case s.activated:
		return "", nil
	case identityOf(info) != s.made:
		return "", errors.New("something else has taken the socket's name: move it away, and the agent listens there again")
	case info.Mode().Perm() != s.mode:
		if err := os.Chmod(s.path, s.mode); err != nil {
			return "", fmt.Errorf("the socket's mode was changed to %04o and cannot be set back: %w", info.Mode().Perm(), err)
		}
		return fmt.Sprintf("its mode was %04o", info.Mode().Perm()), nil
	}
	return "", nil
}

// rebind makes the socket as a start does, in a directory in which nobody else
// can, and under the lock that has the name now.
func (s *socket) rebind(ctx context.Context, e *env, gid int) error {
	if err := prepareDir(e, filepath.Dir(s.path), gid); err != nil {
		return err
	}
	lock := s.lock
	if !lock.has(s.path + ".lock") {
		var err error
		if lock, err = takeLock(s.path + ".lock"); err != nil {
			return err
		}
	}
	next := &socket{path: s.path}
	err := next.listen(ctx, e, gid)
	if err == nil {
		s.mu.Lock()
		if s.shut {
			err = errors.Join(next.Close(), os.Remove(s.path))
		} else {
			err = s.Listener.Close()
			s.Listener, s.made, s.mode = next.Listener, next.made, next.mode
		}
		s.mu.Unlock()
	}
	if lock != s.lock {
		err = errors.Join(err, s.lock.release())
		s.lock = lock
	}
	return err
}

// has reports whether path leads to this lock.
func (l *lockFile) has(path string) bool {
	held, err := l.f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(held, named)
}
