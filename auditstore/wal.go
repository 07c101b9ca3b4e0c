package auditstore

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/hsagent/hsagentd/auditstore/chain"
)

// A wal, a write-ahead log, is where records become durable: each batch is a
// frame, written and synced once. The database is filled from it afterwards, in
// larger pieces. There are two files in turn, the second one only once the first
// is full. A file is used anew when the database has all of it.
//
// The blocks of the files are written before they are used, since syncing a
// file that grows costs twice as much.
type wal struct {
	files  [2]*os.File // nil: not made yet
	paths  [2]string
	active int
	epoch  uint64
	end    int64    // of the last frame
	zeroed [2]int64 // bytes of each file that have blocks

	free chan struct{} // has a value if the file that is not active may be used
	disk sync.Mutex    // held while anything is written
}

const (
	maxSegment = 8 << 20
	growth     = 256 << 10
)

// startWAL begins a write-ahead log behind base, and removes what there was of an
// older one, h, of which the database has all, synced.
func startWAL(paths [2]string, h *history, base sighting) (*wal, error) {
	j := &wal{paths: paths, free: make(chan struct{}, 1)}
	var err error
	if h != nil && h.clean() && h.base() == base {
		err = j.resume(h.segments[0])
	} else {
		err = j.start(h, base)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the write-ahead log: %w", err), j.close())
	}
	j.free <- struct{}{}
	return j, nil
}

// newWAL begins that of a new log, before it has a database: a database
// without a write-ahead log has lost it.
func newWAL(paths [2]string) (*history, error) {
	var empty chain.Tree
	j, err := startWAL(paths, nil, sighting{0, empty.Root()})
	if err == nil {
		err = j.close()
	}
	if err != nil {
		return nil, err
	}
	return readWAL(paths)
}

// resume goes on with a file that has nothing but a head. The other one may be
// there, with nothing in it.
func (j *wal) resume(seg segment) error {
	if seg.path == j.paths[1] {
		j.active = 1
	}
	if err := removeIfThere(j.paths[1-j.active]); err != nil {
		return err
	}
	f, err := os.OpenFile(seg.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	j.files[j.active], j.epoch, j.end, j.zeroed[j.active] = f, seg.epoch, seg.end, seg.end
	return nil
}

// start leaves one file, which has nothing but a head. A kill at any moment
// leaves one that says the same.
func (j *wal) start(h *history, base sighting) error {
	if h != nil {
		// The older of two goes first: the younger alone is a write-ahead log too.
		old := h.segments[:len(h.segments)-1]
		for _, seg := range old {
			if err := os.Remove(seg.path); err != nil {
				return err
			}
			if err := syncDir(filepath.Dir(seg.path)); err != nil {
				return err
			}
		}
		if h.segments[len(old)].path == j.paths[0] {
			j.active = 1
		}
	}
	head, err := j.head(base)
	if err != nil {
		return err
	}
	path := j.paths[j.active]
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	j.files[j.active], j.end = f, segmentHead
	j.zeroed[j.active] = segmentHead
	_, err = f.WriteAt(head, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err == nil {
		err = removeIfThere(j.paths[1-j.active])
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

// head draws an epoch, and returns the head of a segment.
func (j *wal) head(base sighting) ([]byte, error) {
	var b [word]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("draw an epoch: %w", err)
	}
	b[0] |= 0x80 // no word of a frame's head, and not 0
	j.epoch = binary.BigEndian.Uint64(b[:])
	return appendHead(nil, j.epoch, base), nil
}

// file is the active one.
func (j *wal) file() (*os.File, string) { return j.files[j.active], j.paths[j.active] }

// full reports whether a batch must go into the other file.
func (j *wal) full(b []byte) bool { return j.end+int64(len(b))+3*word > maxSegment }

// append makes a batch durable; b begins with beginFrame.
func (j *wal) append(b []byte, f frame) error {
	j.disk.Lock()
	defer j.disk.Unlock()
	if err := j.put(endFrame(b, j.epoch, f)); err != nil {
		return fmt.Errorf("write the write-ahead log: %w", err)
	}
	return nil
}

// put writes a frame behind the last one, syncs it, and marks it.
func (j *wal) put(b []byte) error {
	f := j.files[j.active]
	if err := j.grow(f, j.end+int64(len(b))+word); err != nil {
		return err
	}
	if _, err := f.WriteAt(b, j.end); err != nil {
		return err
	}
	if err := datasync(f); err != nil {
		return err
	}
	j.end += int64(len(b))
	return j.word(f, j.end-word, j.epoch+1)
}

// await returns when nothing is being written. Where the disk hangs, who would
// touch a mapped file waits here: in a page fault it would hold up the whole
// process, since Go cannot stop the world around it.
func (j *wal) await() {
	j.disk.Lock()
	defer j.disk.Unlock()
}

// word writes a mark or an end.
func (j *wal) word(f *os.File, at int64, w uint64) error {
	var b [word]byte
	binary.BigEndian.PutUint64(b[:], w)
	_, err := f.WriteAt(b[:], at)
	return err
}

// grow gives the active file blocks up to n, and more.
func (j *wal) grow(f *os.File, n int64) error {
	have := j.zeroed[j.active]
	if n <= have {
		return nil
	}
	want := (n + growth - 1) / growth * growth
	if _, err := f.WriteAt(make([]byte, want-have), have); err != nil {
		return err
	}
	j.zeroed[j.active] = want
	return nil
}

// turn is append to the other file, once that is free. It returns the file that
// must be released when the database has what is in it.
//
// With wipe nothing is left of what was there before.
func (j *wal) turn(dead <-chan struct{}, b []byte, f frame, before sighting, wipe bool) (old int, err error) {
	select {
	case <-j.free:
	case <-dead:
		return 0, errors.New("the write-ahead log is full, and the database takes nothing")
	}
	j.disk.Lock()
	defer j.disk.Unlock()
	old, end, epoch := j.active, j.end, j.epoch
	j.active = 1 - old
	err = j.make()
	if err == nil && wipe {
		err = j.clear(j.active)
	}
	if err == nil {
		err = j.begin(before)
	}
	if err == nil {
		err = j.put(endFrame(b, j.epoch, f))
	}
	if err == nil {
		err = j.word(j.files[old], end, ^epoch)
	}
	if err != nil {
		return old, fmt.Errorf("continue the write-ahead log in %s: %w", j.paths[j.active], err)
	}
	return old, nil
}

// begin gives the active file another head, so that what is behind it is free
// space, before anything is written there.
func (j *wal) begin(base sighting) error {
	head, err := j.head(base)
	if err != nil {
		return err
	}
	f := j.files[j.active]
	if err := j.grow(f, segmentHead); err != nil {
		return err
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return err
	}
	j.end = segmentHead
	return datasync(f)
}

// make opens the active file, if it is not there yet.
func (j *wal) make() error {
	if j.files[j.active] != nil {
		return nil
	}
	f, err := os.OpenFile(j.paths[j.active], os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	j.files[j.active] = f
	return syncDir(filepath.Dir(j.paths[j.active]))
}

// release lets a file be used anew. With wipe nothing of it is left.
func (j *wal) release(old int, wipe bool) error {
	if wipe {
		if err := j.clear(old); err != nil {
			return err
		}
	}
	j.free <- struct{}{}
	return nil
}

func (j *wal) clear(i int) error {
	if err := j.files[i].Truncate(0); err != nil {
		return fmt.Errorf("clear the write-ahead log: %w", err)
	}
	j.zeroed[i] = 0
	return nil
}

// segment tells how far the active file goes.
func (j *wal) segment() segment {
	return segment{path: j.paths[j.active], epoch: j.epoch, end: j.end}
}

func (j *wal) close() error {
	var errs []error
	for _, f := range j.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

func removeIfThere(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
