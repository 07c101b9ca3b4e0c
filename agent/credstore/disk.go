package credstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// errUnstable means that a file changed while it was read or replaced.
var errUnstable = errors.New("it is being written: it changed each time it was read")

// A signature tells one state of a file from another without reading it. The
// zero value is a file that is not there.
type signature struct {
	dev, ino uint64
	size     int64
	mtime    int64
	mode     fs.FileMode
	owner    owner
}

type owner struct{ uid, gid uint32 }

func signatureOf(info fs.FileInfo) signature {
	s := signature{size: info.Size(), mtime: info.ModTime().UnixNano(), mode: info.Mode(), owner: ownerOf(info)}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.dev, s.ino = uint64(st.Dev), uint64(st.Ino)
	}
	return s
}

// signatureAt is the signature of what path leads to.
func signatureAt(path string) signature {
	info, err := os.Stat(path)
	if err != nil {
		return signature{}
	}
	return signatureOf(info)
}

// ownerOf is the owner of a file; where the system tells none, one that is
// trusted with nothing.
func ownerOf(info fs.FileInfo) owner {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return owner{st.Uid, st.Gid}
	}
	return owner{^uint32(0), ^uint32(0)}
}

// readStable reads the regular file that path leads to, at most limit bytes of
// it, and only in one piece: inode, size, mode and time of change must be the
// same before and after. The file must be safe from other users' hands.
func readStable(ctx context.Context, path string, limit int64) ([]byte, fs.FileInfo, error) {
	const attempts, pause = 10, 20 * time.Millisecond
	for range attempts {
		b, info, err := readOnce(path, limit)
		if !errors.Is(err, errUnstable) {
			return b, info, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(pause):
		}
	}
	return nil, nil, fmt.Errorf("%s: %w", path, errUnstable)
}

func readOnce(path string, limit int64) ([]byte, fs.FileInfo, error) {
	// Looked at before it is opened: opening a device can do things.
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if err := checkSafe(path, info); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }() // only read
	if info, err = f.Stat(); err != nil {
		return nil, nil, err
	}
	if err := checkSafe(path, info); err != nil {
		return nil, nil, err
	}
	if info.Size() > limit {
		return nil, nil, fmt.Errorf("%s has %d bytes: more than %d are not taken", path, info.Size(), limit)
	}
	b := make([]byte, info.Size()+1)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	before := signatureOf(info)
	if int64(n) != info.Size() || signatureOf(after) != before || signatureAt(path) != before {
		clear(b)
		return nil, nil, errUnstable
	}
	return b[:n], info, nil
}

// checkSafe refuses what is no regular file, and one that another user could
// have written. Root's own files are as good as ours. Root itself also reads
// what belongs to the owner of the directory, such as the service's user.
func checkSafe(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file (mode %s)", path, info.Mode())
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("%s has mode %04o: others may write it: run chmod go-w %s", path, perm, shellQuote(path))
	}
	uid := ownerOf(info).uid
	if uid == 0 || int64(uid) == int64(os.Geteuid()) {
		return nil
	}
	if os.Geteuid() == 0 {
		if dir, err := os.Stat(filepath.Dir(path)); err == nil && ownerOf(dir).uid == uid {
			return nil
		}
	}
	return fmt.Errorf("%s belongs to uid %d, neither to us (uid %d) nor to root: run chown %d %s",
		path, uid, os.Geteuid(), os.Geteuid(), shellQuote(path))
}

// writeTemp writes b, synced, to a new file of mode 0600 beside path.
func writeTemp(path string, b []byte) (string, error) {
	tmp := filepath.Join(filepath.Dir(path), tempPrefix(path)+rand.Text()[:12]+tempSuffix)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(tmp))
	}
	return tmp, nil
}

// replace puts b in the place of path in one step, durably; last is asked
// right before that step and may still refuse. Root leaves the file to the
// owner that it had.
func replace(path string, b []byte, last func() error) error {
	tmp, err := writeTemp(path, b)
	if err != nil {
		return err
	}
	if info, serr := os.Stat(path); serr == nil && os.Geteuid() == 0 {
		o := ownerOf(info)
		err = os.Chown(tmp, int(o.uid), int(o.gid))
	}
	if err == nil && last != nil {
		err = last()
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(filepath.Dir(path))
}

// writeNew makes the file path, whole and durable, or leaves what is there and
// returns an error that wraps [fs.ErrExist].
func writeNew(path string, b []byte) error {
	tmp, err := writeTemp(path, b)
	if err != nil {
		return err
	}
	// Unlike rename, link never replaces a file.
	if err := errors.Join(os.Link(tmp, path), os.Remove(tmp)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

const tempSuffix = ".tmp"

func tempPrefix(path string) string { return "." + filepath.Base(path) + "." }

// sweep removes temporary files that a writer killed long ago left beside path.
// They are encrypted: this is tidiness, so that what cannot be removed stays.
func sweep(path string, now time.Time) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix(path)) || !strings.HasSuffix(e.Name(), tempSuffix) {
			continue
		}
		if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) > time.Hour {
			_ = os.Remove(filepath.Join(filepath.Dir(path), e.Name())) // tidiness, see above
		}
	}
}

// shellQuote writes a path so that it can be pasted into a shell.
func shellQuote(path string) string {
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
