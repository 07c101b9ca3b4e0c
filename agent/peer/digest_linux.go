package peer

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"sync"
	"syscall"
)

// Limits of what is hashed. A larger file, or more of them, is never known.
const (
	maxExecutable = 1 << 30
	maxDigests    = 1024
	maxHashing    = 2  // files at once
	maxWaiting    = 64 // files that are read or wait for it: each is open
)

// Digests are the SHA-256 of executables. Each file is read once, in the
// background, and known again by what the kernel says of it: whoever can write
// it can set its size and mtime back, but not its ctime.
type Digests struct {
	mu    sync.Mutex
	known map[fileKey]*digest
	slots chan struct{} // one for each file that is being read
	open  int           // files that are read or wait for it
}

type fileKey struct {
	dev, ino            uint64
	size                int64
	mtimeSec, mtimeNsec int64
	ctimeSec, ctimeNsec int64
}

// NewDigests returns an empty set.
func NewDigests() *Digests {
	return &Digests{known: map[fileKey]*digest{}, slots: make(chan struct{}, maxHashing)}
}

// of returns the file's digest, perhaps before it is known. It takes the file
// over.
func (d *Digests) of(f *os.File) *digest {
	key, ok := keyOf(f)
	if !ok || key.size > maxExecutable {
		_ = f.Close() // only read
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if dg := d.known[key]; dg != nil {
		_ = f.Close() // only read
		return dg
	}
	if d.open >= maxWaiting { // somebody makes executables faster than they can be read
		_ = f.Close() // only read
		return nil
	}
	d.open++
	if len(d.known) >= maxDigests {
		clear(d.known) // they are read again as they are asked for
	}
	dg := &digest{done: make(chan struct{})}
	d.known[key] = dg
	go d.read(f, key, dg)
	return dg
}

func (d *Digests) read(f *os.File, key fileKey, dg *digest) {
	d.slots <- struct{}{}
	defer func() {
		<-d.slots
		_ = f.Close() // only read
		close(dg.done)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.open--
	}()
	h := sha256.New()
	_, err := io.Copy(h, f)
	if after, ok := keyOf(f); err == nil && ok && after == key {
		dg.sum = hex.EncodeToString(h.Sum(nil))
		return
	}
	d.mu.Lock()
	delete(d.known, key) // a file that changes under the reader is tried again
	d.mu.Unlock()
}

func keyOf(f *os.File) (fileKey, bool) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return fileKey{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileKey{}, false
	}
	m, c := st.Mtim, st.Ctim
	//nolint:unconvert // the fields' types are the architecture's
	return fileKey{uint64(st.Dev), st.Ino, st.Size, int64(m.Sec), int64(m.Nsec), int64(c.Sec), int64(c.Nsec)}, true
}
