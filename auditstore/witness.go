package auditstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"golang.org/x/mod/sumdb/tlog"
)

// A witness is a small file beside Badger that grows with each batch:
//
//	1042 b3fTq…=     the tree's size and root after the batch; synced
//	1042 durable     both this file and Badger were synced
//
// It tells what Badger should hold, since Badger drops what it cannot read
// without a word. The second line is not synced by itself. If it is there, the
// batch was acknowledged and must be in Badger; if it is missing, the batch
// may have been cut off by a crash.
type witness struct {
	path string
	f    *os.File
	size int64  // bytes in the file
	tail []byte // lines of the last two batches
}

// maxWitness is the size at which the file starts anew.
const maxWitness = 4 << 20

// A sighting is one batch as the witness saw it.
type sighting struct {
	size   uint64
	root   chain.Hash
	marked bool  // durable
	at     int64 // where its line starts in the file
}

// A history is what the witness file says.
type history struct {
	seen []sighting // never empty
	end  int64      // where the last whole line ends
}

func (h *history) last() sighting { return h.seen[len(h.seen)-1] }

// before returns the sighting before the last one.
func (h *history) before() (sighting, bool) {
	if len(h.seen) < 2 {
		return sighting{}, false
	}
	return h.seen[len(h.seen)-2], true
}

// readWitness reads the file. A torn last line is left out.
func readWitness(path string) (*history, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the witness: %w", err)
	}
	h := &history{}
	for n := 1; ; n++ {
		line, rest, whole := bytes.Cut(b[h.end:], []byte("\n"))
		if !whole {
			break
		}
		if err := h.add(string(line)); err != nil {
			return nil, fmt.Errorf("%w: %s, line %d: %w", ErrDamaged, path, n, err)
		}
		h.end = int64(len(b) - len(rest))
	}
	if len(h.seen) == 0 {
		return nil, fmt.Errorf("%w: %s has no whole line", ErrDamaged, path)
	}
	return h, nil
}

func (h *history) add(line string) error {
	num, what, _ := strings.Cut(line, " ")
	size, err := strconv.ParseUint(num, 10, 63)
	if err != nil || strconv.FormatUint(size, 10) != num {
		return errors.New("does not start with a size")
	}
	if what == "durable" {
		if len(h.seen) == 0 || h.last().size != size {
			return errors.New("says that a batch is durable which does not stand before it")
		}
		if h.last().marked {
			return errors.New("says twice that a batch is durable")
		}
		h.seen[len(h.seen)-1].marked = true
		return nil
	}
	root, err := tlog.ParseHash(what)
	if err != nil {
		return errors.New("has no root hash")
	}
	if len(h.seen) > 0 && size <= h.last().size {
		return errors.New("is not larger than the one before")
	}
	if len(h.seen) > 0 && !h.last().marked {
		return errors.New("names a batch that began before the one before it was durable")
	}
	h.seen = append(h.seen, sighting{size: size, root: root, at: h.end})
	return nil
}

// openWitness opens the file for appending, cut to its first n bytes.
func openWitness(path string, n int64) (*witness, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the witness: %w", err)
	}
	w := &witness{path: path, f: f, size: n}
	if err := w.load(n); err != nil {
		return nil, errors.Join(fmt.Errorf("open the witness: %w", err), f.Close())
	}
	return w, nil
}

func (w *witness) load(n int64) error {
	if err := w.f.Truncate(n); err != nil {
		return err
	}
	if err := datasync(w.f); err != nil {
		return err
	}
	b := make([]byte, min(n, 512)) // more than two batches' lines
	if _, err := w.f.ReadAt(b, n-int64(len(b))); err != nil && n > 0 {
		return err
	}
	w.tail = lastTwo(b)
	return nil
}

// lastTwo returns the lines of the last two batches in b.
func lastTwo(b []byte) []byte {
	end, batches := len(b), 0
	for end > 0 {
		start := bytes.LastIndexByte(b[:end-1], '\n') + 1
		if !bytes.HasSuffix(b[start:end], []byte(" durable\n")) {
			if batches++; batches == 2 {
				return bytes.Clone(b[start:])
			}
		}
		end = start
	}
	return bytes.Clone(b)
}

// note writes that the log has this size and root, and syncs.
func (w *witness) note(size uint64, root chain.Hash) error {
	if w.size > maxWitness {
		if err := w.rotate(); err != nil {
			return fmt.Errorf("start the witness anew: %w", err)
		}
	}
	if err := w.write(fmt.Appendf(nil, "%d %s\n", size, root)); err != nil {
		return fmt.Errorf("write the witness: %w", err)
	}
	if err := datasync(w.f); err != nil {
		return fmt.Errorf("sync the witness: %w", err)
	}
	return nil
}

// mark writes that the batch up to size is durable everywhere.
func (w *witness) mark(size uint64) error {
	if err := w.write(fmt.Appendf(nil, "%d durable\n", size)); err != nil {
		return fmt.Errorf("write the witness: %w", err)
	}
	return nil
}

func (w *witness) write(line []byte) error {
	n, err := w.f.Write(line)
	w.size += int64(n)
	w.tail = lastTwo(append(w.tail, line...))
	return err
}

// rotate replaces the file by one that holds only the last two batches.
func (w *witness) rotate() error {
	name := w.path + ".new"
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(w.tail)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(name, w.path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(w.path))
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	old := w.f
	w.f, w.size = f, int64(len(w.tail))
	return old.Close()
}

func (w *witness) close() error {
	return errors.Join(w.f.Sync(), w.f.Close())
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
