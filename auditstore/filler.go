package auditstore

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	badger "github.com/dgraph-io/badger/v4"
)

const (
	fillLag    = time.Second // how long a batch may wait for company
	unmapEvery = 32 << 20    // bytes written, whose tables are then taken out of memory
	fillBytes  = 192 << 10   // of keys and values in one transaction: well below what Badger takes, 15 % of a memtable
)

// A filling is a batch on its way from the write-ahead log to the database.
type filling struct {
	frame  []byte // as it stands in the write-ahead log; the records' values lie in it
	index  []byte // other keys and values
	writes []write
	size   uint64 // records of the log with it

	turned bool // with it the write-ahead log left its file old
	old    int
	wipe   bool // of which nothing may stay
}

// A write is a key and its value. What belongs to one record is not parted.
type write struct {
	key, value []byte
	last       bool // of its record
}

func (b *filling) set(key, value []byte) { b.writes = append(b.writes, write{key: key, value: value}) }

// end ends a record's writes.
func (b *filling) end() { b.writes[len(b.writes)-1].last = true }

func (b *filling) reset() {
	clear(b.writes)
	*b = filling{frame: b.frame[:0], index: b.index[:0], writes: b.writes[:0]}
}

// keep has something written into the index, and returns that.
func (b *filling) keep(write func([]byte) []byte) []byte {
	at := len(b.index)
	b.index = write(b.index)
	return b.index[at:len(b.index):len(b.index)]
}

// store keeps a record's value that is not from here.
func (b *filling) store(value []byte) []byte {
	at := len(b.frame)
	b.frame = append(b.frame, value...)
	return b.frame[at:len(b.frame):len(b.frame)]
}

// flush writes what is there, and starts anew.
func (b *filling) flush(db *badger.DB) error {
	if err := writeAll(db, []*filling{b}); err != nil {
		return fmt.Errorf("fill the database from the write-ahead log: %w", err)
	}
	b.reset()
	return nil
}

// writeAll commits what is in batches, and returns when that is synced.
func writeAll(db *badger.DB, all []*filling) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	txn, bytes := db.NewTransaction(true), 0
	defer func() { txn.Discard() }()
	for _, b := range all {
		for _, r := range b.writes {
			if err := txn.Set(r.key, r.value); err != nil {
				return err
			}
			if bytes += len(r.key) + len(r.value); r.last && bytes >= fillBytes {
				if err := txn.Commit(); err != nil {
					return err
				}
				txn, bytes = db.NewTransaction(true), 0
			}
		}
	}
	return txn.Commit()
}

// A filler puts into the database what the write-ahead log has made durable, in
// transactions that are much larger than batches. A reader has it hurry.
type filler struct {
	mu     sync.Mutex
	queue  []*filling
	bytes  int
	hasty  bool // do not wait for company
	last   bool // no more comes
	lag    time.Duration
	timer  *time.Timer   // armed while batches wait
	pushed uint64        // batches
	filled uint64        // of them
	size   uint64        // records in the database
	moved  chan struct{} // closed when filled grows; nil: nobody waits
	err    error

	wake    chan struct{}
	stopped chan struct{}
	spare   chan *filling // to be used again
}

func newFiller(size uint64, lag time.Duration) *filler {
	return &filler{size: size, lag: lag, wake: make(chan struct{}, 1), stopped: make(chan struct{}), spare: make(chan *filling, 8)}
}

// empty returns a filling to be filled.
func (f *filler) empty() *filling {
	select {
	case b := <-f.spare:
		return b
	default:
		return &filling{}
	}
}

func (f *filler) push(b *filling) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = append(f.queue, b)
	f.bytes += len(b.frame) + len(b.index)
	f.pushed++
	if f.bytes >= fillBytes || b.turned {
		f.hurry()
	} else if f.timer == nil {
		f.timer = time.AfterFunc(f.lag, f.lagOver)
	}
}

// hurry needs mu.
func (f *filler) hurry() {
	f.hasty = true
	select {
	case f.wake <- struct{}{}:
	default: // it is awake
	}
}

// hurryNow has what is queued written now.
func (f *filler) hurryNow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hurry()
}

func (f *filler) lagOver() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.timer = nil
	if len(f.queue) > 0 {
		f.hurry()
	}
}

// wait waits until the database has all that was pushed, and returns how many
// records that are.
func (f *filler) wait(ctx context.Context, stop <-chan struct{}) (uint64, error) {
	f.mu.Lock()
	want := f.pushed
	for f.filled < want && f.err == nil {
		f.hurry()
		if f.moved == nil {
			f.moved = make(chan struct{})
		}
		moved := f.moved
		f.mu.Unlock()
		select {
		case <-moved:
		case <-stop:
			return 0, errClosed
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	if f.filled < want {
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, f.err)
	}
	return f.size, nil
}

// finish has the filler end once the database has everything, and returns why
// it has not.
func (f *filler) finish() error {
	f.mu.Lock()
	f.last = true
	f.hurry()
	f.mu.Unlock()
	<-f.stopped
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// take waits for work.
func (f *filler) take() (all []*filling, last bool) {
	for {
		f.mu.Lock()
		if f.hasty {
			all, last = f.queue, f.last
			f.queue, f.bytes, f.hasty = nil, 0, false
			f.mu.Unlock()
			return all, last
		}
		f.mu.Unlock()
		<-f.wake
	}
}

// run is the filler's goroutine. It releases the files of the write-ahead log
// that are done with.
func (f *filler) run(db *badger.DB, j *wal) (err error) {
	defer close(f.stopped)
	written := 0
	for {
		all, last := f.take()
		j.await()
		if err = writeAll(db, all); err != nil {
			err = fmt.Errorf("fill the database: %w", err)
		}
		for _, b := range all {
			written += len(b.frame)
			if err == nil && b.turned {
				err = j.release(b.old, b.wipe)
			}
		}
		if written >= unmapEvery {
			written = 0
			_ = unmapMuch(db) // it costs nothing but memory
		}
		f.advance(all, err)
		if err != nil || last {
			return err
		}
	}
}

// advance tells who waits.
func (f *filler) advance(all []*filling, err error) {
	f.mu.Lock()
	if f.err = err; err == nil && len(all) > 0 {
		f.filled += uint64(len(all))
		f.size = all[len(all)-1].size
	}
	if f.moved != nil {
		close(f.moved)
		f.moved = nil
	}
	f.mu.Unlock()
	for _, b := range all {
		if b.reset(); cap(b.frame) > fillBytes {
			continue
		}
		select {
		case f.spare <- b:
		default:
		}
	}
}
