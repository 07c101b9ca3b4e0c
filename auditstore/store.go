package auditstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// What the errors of this package wrap.
var (
	// ErrUnavailable means that a record was not, or is not known to be, made
	// durable: the log is closed, shut after an error, or short of space.
	ErrUnavailable = errors.New("the audit log is unavailable")
	// ErrDamaged means that the log on disk is not the one that was written.
	ErrDamaged = errors.New("the audit log is damaged")
	// ErrInUse means that another process has the log open.
	ErrInUse = errors.New("the audit log is in use")
)

var errClosed = fmt.Errorf("%w: it is closed", ErrUnavailable)

const (
	defaultLag = 20 * time.Millisecond
	sealEvery  = 1000        // records
	sealAfter  = time.Minute // with new records
)

// Config is what a Store needs.
type Config struct {
	Dir     string        // made with mode 0700 if missing
	Actor   string        // hsagentd/<version>: the actor of records that name none
	Log     *slog.Logger  // nil: discards
	MinFree uint64        // bytes of free space below which nothing is appended; 0: what Badger may need at once
	Lag     time.Duration // how long a lazy record may wait for company; 0: 20 ms

	// Keys returns what signs the checkpoints of the log of that name; "" is a
	// log that has none yet, and takes the first key's. nil: no checkpoints.
	Keys func(origin string) (chain.Keys, error)
	Sink Sink     // gets a copy of each checkpoint; nil: none
	Hold []string // slugs whose records are not pruned

	now        func() time.Time
	fillLag    time.Duration
	acceptLoss bool // open a log that is not the one of its checkpoints
}

// A Store is an open audit log. It is safe for concurrent use.
type Store struct {
	cfg    Config
	dir    *dir
	db     *badger.DB
	wal    *wal
	fill   *filler
	before *keep // the database before it was opened, until the log is known to be sound
	seq    sequencer
	sign   signer
	notes  []string

	witnessed *sighting  // how a log stood that is lost; nil if none is
	gap       *chain.Gap // that was accepted when the log was opened

	minFree atomic.Uint64 // Config.MinFree
	durable atomic.Uint64 // records that are synced
	size    atomic.Uint64 // records that have a number

	mu      sync.Mutex
	written segment // of the write-ahead log, that is durable
	queue   []*item
	urgent  bool // somebody waits for the queue
	sealDue bool
	closing bool
	err     error       // why the log is shut for good
	short   string      // why nothing is taken at the moment
	batch   []*item     // that is being written
	batches uint64      // that were begun
	writing *time.Timer // armed while batch is written; nil: none is
	stalled bool        // that takes too long
	grown   chan struct{}
	lag     *time.Timer // armed while lazy records wait
	sealing *time.Timer // armed while unsealed records wait

	wake    chan struct{} // of the sequencer
	dead    chan struct{} // closed with err
	stopped chan struct{} // closed when the sequencer has ended
	closed  func() error  // closes once

	pruning    sync.Mutex // one at a time
	flattening atomic.Bool
	background sync.WaitGroup // what uses the database beside readers

	readers  sync.WaitGroup
	stopRead chan struct{}
}

// An item is a record in the queue, or, without one, a place in it.
type item struct {
	rec  *chain.Record
	seal bool        // seal the log with this batch
	wipe bool        // leave nothing of older batches in the write-ahead log
	done chan result // nil: nobody waits
}

type result struct {
	receipt chain.Receipt
	err     error
}

// Append makes rec durable and returns its receipt; it sets Seq, SlugSeq and,
// if they are empty, TS and Actor. Values of a token's form are masked, and a
// record over [chain.MaxRecord] is trimmed, not refused.
//
// An error means that the record may or may not be in the log. It wraps
// [ErrUnavailable] if the log takes nothing, or if its disk does not answer for
// ten seconds; it is ctx's if ctx ended first. In both cases a record that was
// still queued is not written, but one whose batch was being synced may be. An
// intent that the disk took after the ten seconds gets an outcome, since its call
// has not left; one whose ctx has ended gets none, so give it a ctx that does not.
func (s *Store) Append(ctx context.Context, rec chain.Record) (chain.Receipt, error) {
	if err := prepare(&rec); err != nil {
		return chain.Receipt{}, err
	}
	it := &item{rec: &rec, done: make(chan result, 1)}
	return s.await(ctx, it)
}

// AppendLazy queues rec, which becomes durable with the next batch or within
// Config.Lag and one sync. An error that wraps [ErrUnavailable] means that the
// log is shut or closed.
func (s *Store) AppendLazy(rec chain.Record) error {
	if err := prepare(&rec); err != nil {
		return err
	}
	return s.enqueue(&item{rec: &rec})
}

// Flush waits until everything queued so far is durable.
func (s *Store) Flush(ctx context.Context) error {
	_, err := s.await(ctx, &item{done: make(chan result, 1)})
	return err
}

// prepare checks what a record's key is made of.
func prepare(rec *chain.Record) error {
	if rec.ClientSlug != "" {
		if _, err := wire.ParseSlug(rec.ClientSlug); err != nil {
			return fmt.Errorf("append a record: %w", err)
		}
	}
	return nil
}

func (s *Store) await(ctx context.Context, it *item) (chain.Receipt, error) {
	if err := s.enqueue(it); err != nil {
		return chain.Receipt{}, err
	}
	select {
	case r := <-it.done:
		return r.receipt, r.err
	case <-s.dead:
		return chain.Receipt{}, s.failure()
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.queue = slices.DeleteFunc(s.queue, func(q *item) bool { return q == it })
		return chain.Receipt{}, ctx.Err()
	}
}

// maxWaiting is how many records may wait for a disk that takes nothing. Outcomes
// are queued beyond it: there are no more of them than calls that have left.
// Refusals are not: there is no end to them.
const maxWaiting = 8 * maxBatch

var errWaiting = fmt.Errorf("%w: its disk takes nothing, and %d records wait for it", ErrUnavailable, maxWaiting)

func (s *Store) enqueue(it *item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return s.err
	case s.closing:
		return errClosed
	case s.stalled && it.done != nil:
		return errStalled
	case s.short != "" && len(s.queue) >= maxWaiting && it.done == nil && it.rec.Kind == chain.CallDenied:
		return errWaiting
	}
	s.queue = append(s.queue, it)
	if it.done != nil || len(s.queue) >= maxBatch && s.short == "" {
		s.hurry()
	} else if s.lag == nil {
		s.lag = time.AfterFunc(s.cfg.Lag, s.lagOver)
	}
	return nil
}

// hurry has the queue written now. It needs mu.
func (s *Store) hurry() {
	s.urgent = true
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
	}
}

// lagOver ends the wait of lazy records.
func (s *Store) lagOver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = nil
	if len(s.queue) > 0 {
		s.hurry()
	}
}

// sealTime asks for a seal.
func (s *Store) sealTime() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealing, s.sealDue = nil, true
	s.hurry()
}

// latch shuts the log for good. The first error stays.
func (s *Store) latch(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = fmt.Errorf("%w until it is opened anew: %w", ErrUnavailable, err)
	s.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "the audit log is shut", slog.Any("error", err))
	close(s.dead)
	for _, it := range s.queue {
		it.reply(result{err: s.err})
	}
	s.queue = nil
}

func (s *Store) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (it *item) reply(r result) {
	select {
	case it.done <- r:
	default: // nobody waits, or is told already
	}
}

// Status tells how the log stands.
func (s *Store) Status() wire.AuditStatus {
	durable := s.durable.Load() // before size, which is never less
	st := wire.AuditStatus{Path: s.cfg.Dir, Size: s.size.Load(), Durable: durable}
	if text := s.sign.failed.Load(); text != nil {
		st.SinkError = *text
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		st.LastError = wire.Fault(s.err.Error())
	case s.closing:
		st.LastError = wire.Fault(errClosed.Error())
	default:
		st.LastError = wire.Fault(s.short)
	}
	return st
}

// Notes says what [Open] found and mended, for the record of the agent's start.
func (s *Store) Notes() []string { return slices.Clone(s.notes) }

// Wait blocks until a record with a sequence greater than after is durable.
// After [math.MaxUint64] means any record. It ends with [ErrUnavailable] when
// the log is closed or shut.
func (s *Store) Wait(ctx context.Context, after uint64) error {
	for {
		s.mu.Lock()
		if s.durable.Load() > after+1 {
			s.mu.Unlock()
			return nil
		}
		if err := s.err; err != nil || s.closing {
			s.mu.Unlock()
			if err == nil {
				err = errClosed
			}
			return err
		}
		if s.grown == nil {
			s.grown = make(chan struct{})
		}
		grown := s.grown
		s.mu.Unlock()
		select {
		case <-grown:
		case <-s.stopRead:
		case <-s.dead:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Unmap takes what was read and written of the log's tables out of the process's
// resident memory, if it is much: it can be read anew.
func (s *Store) Unmap() error {
	done, err := s.using()
	if err != nil {
		return err
	}
	defer done()
	return unmapMuch(s.db)
}

// reading counts a reader, and returns how many records the database has: all
// that are durable.
func (s *Store) reading(ctx context.Context) (size uint64, done func(), err error) {
	if done, err = s.using(); err != nil {
		return 0, nil, err
	}
	if size, err = s.fill.wait(ctx, s.stopRead); err != nil {
		done()
		return 0, nil, fmt.Errorf("read the log: %w", err)
	}
	return size, done, nil
}

// using counts who uses the database, for whom Close waits.
func (s *Store) using() (done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, errClosed
	}
	s.readers.Add(1)
	return s.readers.Done, nil
}

// writtenSegment is how far the write-ahead log goes.
func (s *Store) writtenSegment() segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}
