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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// socketNames are what a systemd unit may call our socket; a unit that names
// none gets its own name.
var socketNames = []string{"api", "hsagentd.socket"}

// A socket is the listener, and what is to be undone at the end.
type socket struct {
	path      string
	activated bool        // systemd made it and keeps it
	made      identity    // of the file that we made
	mode      fs.FileMode // of it
	lock      *lockFile

	mu sync.Mutex
	net.Listener
	shut bool // closed for good
}

// An identity tells a file from another one that took its name.
type identity struct{ dev, ino uint64 }

func identityOf(info fs.FileInfo) identity {
	st := info.Sys().(*syscall.Stat_t)
	return identity{uint64(st.Dev), st.Ino} //nolint:unconvert // Dev is no uint64 everywhere
}

// activatedSocket returns the listener that systemd passed, or nil if it
// passed none. Anything but one stream socket in the file system is refused.
func activatedSocket() (*socket, error) {
	files := activation.Files(true)
	if len(files) == 0 {
		return nil, nil
	}
	var s *socket
	var errs []error
	for _, f := range files {
		if len(files) > 1 {
			errs = append(errs, fmt.Errorf("systemd passed %d sockets, and hsagentd takes one", len(files)), f.Close())
			continue
		}
		var err error
		s, err = fromFile(f)
		errs = append(errs, err, f.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("take the socket from systemd: %w", err)
	}
	return s, nil
}

func fromFile(f *os.File) (*socket, error) {
	name := f.Name()
	if !strings.HasPrefix(name, "LISTEN_FD_") && name != socketNames[0] && name != socketNames[1] {
		return nil, fmt.Errorf("it is called %q: FileDescriptorName= must be %q", name, socketNames[0])
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("%s: it is no listening stream socket: %w", name, err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok || !strings.HasPrefix(u.Addr().String(), "/") {
		return nil, errors.Join(fmt.Errorf("%s: ListenStream= must be a path, not %s", name, l.Addr()), l.Close())
	}
	u.SetUnlinkOnClose(false) // it is systemd's
	return &socket{Listener: u, path: u.Addr().String(), activated: true}, nil
}

// reserveSocket prepares the directory at path and takes the lock that keeps a
// second daemon out. Then [socket.listen] may be called.
func reserveSocket(e *env, path string, gid int) (*socket, error) {
	if err := prepareDir(e, filepath.Dir(path), gid); err != nil {
		return nil, withCode(exitConfig, err)
	}
	lock, err := takeLock(path + ".lock")
	if err != nil {
		return nil, err
	}
	return &socket{path: path, lock: lock}, nil
}

// prepareDir makes the directory of the socket if it is missing, for us alone
// or for the socket's group too, and refuses one in which somebody else could
// put another socket in our place.
func prepareDir(e *env, dir string, gid int) (err error) {
	mode := fs.FileMode(0o700)
	if gid >= 0 {
		mode = 0o750
	}
	err = os.MkdirAll(filepath.Dir(dir), 0o755) //nolint:gosec // as /run and ~/.local are
	made := os.Mkdir(dir, mode)
	switch {
	case err != nil:
		return fmt.Errorf("make the socket's directory: %w: choose another with --socket, or set XDG_RUNTIME_DIR", err)
	case made == nil && gid >= 0:
		if err := os.Chown(dir, -1, gid); err != nil {
			return fmt.Errorf("give the socket's directory to its group: %w", err)
		}
	case made != nil && !errors.Is(made, fs.ErrExist):
		return fmt.Errorf("make the socket's directory: %w: choose another with --socket", made)
	}
	// Opened without following a link, so that what is checked is what is there.
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("the socket's directory %s must be a directory, not a link: %w", dir, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at the socket's directory: %w", err)
	}
	if owner := int(info.Sys().(*syscall.Stat_t).Uid); owner != 0 && owner != e.uid {
		return fmt.Errorf("the socket's directory %s belongs to uid %d, who could replace the socket: choose another", dir, owner)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("the socket's directory %s can be written by others (mode %04o), who could replace the socket: choose another, or chmod go-w it", dir, info.Mode().Perm())
	}
	if made == nil {
		if err := f.Chmod(mode); err != nil { // the umask that main set keeps a group out
			return fmt.Errorf("open the socket's directory to its group: %w", err)
		}
	}
	return nil
}

// warnOfGroup says in the log if the socket's directory, which was there
// before, keeps the socket's group out.
func (s *socket) warnOfGroup(ctx context.Context, log *slog.Logger, gid int) {
	dir := filepath.Dir(s.path)
	info, err := os.Stat(dir)
	if gid < 0 || err != nil {
		return
	}
	enter := fs.FileMode(0o001)
	if int(info.Sys().(*syscall.Stat_t).Gid) == gid {
		enter = 0o010
	}
	if info.Mode().Perm()&enter == 0 {
		log.WarnContext(ctx, "the socket's group cannot enter the socket's directory: chgrp it to that group, and chmod g+x it",
			"directory", dir, "mode", fmt.Sprintf("%04o", info.Mode().Perm()), "gid", gid)
	}
}

// listen makes the socket, for this user alone or with gid for a group too.
// The umask that main set keeps it closed until its mode is what it shall be.
func (s *socket) listen(ctx context.Context, e *env, gid int) error {
	if err := removeStale(ctx, e, s.path); err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", s.path)
	if err != nil {
		return fmt.Errorf("make the socket: %w", err)
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // Close removes whatever has the name by then; we look first
	s.Listener = u
	mode := fs.FileMode(0o600)
	if gid >= 0 {
		mode = 0o660
		err = os.Chown(s.path, -1, gid)
	}
	if err == nil {
		err = os.Chmod(s.path, mode)
	}
	var info fs.FileInfo
	if err == nil {
		info, err = os.Lstat(s.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("set the socket's rights: %w", err), u.Close())
	}
	s.made, s.mode = identityOf(info), mode
	return nil
}

// removeStale removes a socket that nobody listens on any more. Anything else
// at its path is left alone and refused.
func removeStale(ctx context.Context, e *env, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for an old socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return withCode(exitConfig, fmt.Errorf("%s is in the way and is no socket: move it, or choose another path with --socket", path))
	}
	if owner := int(info.Sys().(*syscall.Stat_t).Uid); owner != e.uid {
		return withCode(exitConfig, fmt.Errorf("%s is a socket of uid %d: choose another path with --socket", path, owner))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return errors.Join(withCode(exitInUse, fmt.Errorf("something else listens on %s: stop it, or choose another path with --socket", path)), c.Close())
	case !errors.Is(err, unix.ECONNREFUSED):
		return withCode(exitInUse, fmt.Errorf("something may listen on %s: %w", path, err))
	}
	now, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("look for an old socket: %w", err)
	}
	if identityOf(now) != identityOf(info) {
		return withCode(exitInUse, fmt.Errorf("%s was replaced while hsagentd looked at it", path))
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	return nil
}

// remove takes the socket's name away, if it is still our socket that has it,
// and lets the lock go. The listener must be closed.
func (s *socket) remove() error {
	if s.activated {
		return nil
	}
	var err error
	if info, lerr := os.Lstat(s.path); lerr == nil && s.Listener != nil && identityOf(info) == s.made {
		err = os.Remove(s.path)
	}
	return errors.Join(err, s.lock.release())
}

// A lockFile is a file under flock with the holder's process number in it.
type lockFile struct{ f *os.File }

// takeLock takes the lock at path, or says who has it.
func takeLock(path string) (*lockFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, withCode(exitConfig, fmt.Errorf("open the lock: %w", err))
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = withCode(exitInUse, fmt.Errorf("another hsagentd runs (%s holds %s): stop it first, or use it", holder(f), path))
		}
		return nil, errors.Join(err, f.Close())
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write the lock: %w", err), f.Close())
	}
	return &lockFile{f}, nil
}

func holder(f *os.File) string {
	b := make([]byte, 20)
	n, err := f.ReadAt(b, 0)
	if pid := strings.TrimSpace(string(b[:n])); n > 0 && err != nil {
		if _, err := strconv.Atoi(pid); err == nil {
			return "pid " + pid
		}
	}
	return "an unknown process"
}

// release lets the lock go. The file stays: whoever removed it could let two
// daemons hold two different ones.
func (l *lockFile) release() error { return l.f.Close() }
