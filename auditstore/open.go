package auditstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// crashTail is how many records are verified after a crash, if fewer are
// unsealed: more than Badger's write-ahead logs hold, parts of which it may
// have dropped.
const crashTail = 1 << 16

// mend is what every refusal of a damaged log ends with.
const mend = `nothing was changed: look with "hsagentd check", then restore the directory from a backup or, if records are lost for good, run "hsagentd accept-loss", which records the gap`

func (c *Config) defaults() {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.MinFree = cmp.Or(c.MinFree, defaultMinFree)
	c.Lag = cmp.Or(c.Lag, defaultLag)
	c.fillLag = cmp.Or(c.fillLag, fillLag)
	if c.now == nil {
		c.now = time.Now
	}
}

// Open opens the log in c.Dir, or starts one. It verifies the records since
// the last seal and closes intents without outcome. The error wraps
// [ErrDamaged], [ErrInUse] or [ErrUnavailable] if that is what it means.
func Open(ctx context.Context, c Config) (*Store, error) {
	c.defaults()
	d, err := openDir(c.Dir)
	if err != nil {
		return nil, err
	}
	if err := d.room(c.MinFree); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnavailable, err), d.close())
	}
	s := &Store{
		cfg:      c,
		dir:      d,
		wake:     make(chan struct{}, 1),
		dead:     make(chan struct{}),
		stopped:  make(chan struct{}),
		stopRead: make(chan struct{}),
	}
	s.closed = sync.OnceValue(s.close)
	s.minFree.Store(c.MinFree)
	s.seq.open = make(map[attempt]uint64)
	pending, err := s.open(ctx)
	if err != nil {
		if s.db != nil {
			err = errors.Join(err, s.db.Close())
		}
		if s.before != nil {
			err = errors.Join(err, s.before.restore())
		}
		if s.wal != nil {
			err = errors.Join(err, s.wal.close())
		}
		s.sign.close()
		return nil, errors.Join(err, d.close())
	}
	go s.fillDatabase()
	go s.run()
	if err := s.begin(ctx, pending); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// layout is where things are in a log's directory.
type layout struct {
	badger, checkpoints string
	wal                 [2]string
}

func layoutOf(dir string) layout {
	return layout{
		badger:      filepath.Join(dir, "badger"),
		checkpoints: filepath.Join(dir, checkpointFile),
		wal:         [2]string{filepath.Join(dir, "wal.0"), filepath.Join(dir, "wal.1")},
	}
}

// found tells what is on disk before Badger is opened, which changes it.
type found struct {
	layout
	history *history // nil: there was no log
	crashed bool     // it was not closed
}

func look(dir string) (*found, error) {
	f := &found{layout: layoutOf(dir)}
	if err := putBack(f.badger); err != nil {
		return nil, err
	}
	hasBadger, err := exists(filepath.Join(f.badger, "MANIFEST"))
	if err != nil {
		return nil, fmt.Errorf("look for the audit log: %w", err)
	}
	f.history, err = readWAL(f.wal)
	switch {
	case err != nil:
		return nil, err
	case f.history == nil && hasBadger:
		return nil, fmt.Errorf("%w: there is %s, and its write-ahead log is missing", ErrDamaged, f.badger)
	case f.history != nil && f.history.last().size > 0 && !hasBadger:
		return nil, fmt.Errorf("%w: the write-ahead log saw %d records, and %s has no database", ErrDamaged, f.history.last().size, f.badger)
	}
	f.crashed, err = wasCrashed(f)
	return f, err
}

// wasCrashed reports whether a log was not closed, which leaves neither a
// memtable, nor a file without a byte, nor batches in the write-ahead log.
func wasCrashed(f *found) (bool, error) {
	if f.history != nil && !f.history.clean() {
		return true, nil
	}
	left, err := filepath.Glob(filepath.Join(f.badger, "*.mem"))
	if err != nil || len(left) > 0 {
		return true, err
	}
	left, err = unbornFiles(f.badger)
	if err != nil {
		return false, fmt.Errorf("look for the audit log: %w", err)
	}
	return len(left) > 0, nil
}

// open brings the store to where the sequencer can start. It returns what begin
// is to record: a change of keys, and the intents that have no outcome.
func (s *Store) open(ctx context.Context) ([]*chain.Record, error) {
	var f *found
	var err error
	if s.cfg.acceptLoss {
		f, s.witnessed, err = lookAnyway(s.cfg.Dir)
	} else {
		f, err = look(s.cfg.Dir)
	}
	if err != nil {
		return nil, withMend(err)
	}
	if f.history == nil && !s.cfg.acceptLoss {
		if f.history, err = newWAL(f.wal); err != nil {
			return nil, err
		}
	}
	if s.before, err = keepBefore(f, s.cfg.acceptLoss); err != nil {
		return nil, err
	}
	o := badgerOptions(f.badger, &badgerLog{log: s.cfg.Log, fail: s.latch})
	careful := s.before.path != ""
	s.db, err = openBadger(s.before.careful(o))
	if err != nil {
		return nil, withMend(err)
	}
	t, err := readTail(ctx, s.db, f)
	if err == nil && !t.report.OK() {
		err = damaged(s.cfg.Dir, &t.report)
	}
	if s.cfg.acceptLoss && errors.Is(err, ErrDamaged) {
		t, err = s.salvage(ctx, f)
	}
	if err != nil {
		return nil, withMend(err)
	}
	changed, err := s.startSigner(t)
	if err != nil {
		return nil, err
	}
	if err := s.before.drop(); err != nil {
		return nil, err
	}
	if careful {
		if err := s.reopen(o); err != nil {
			return nil, err
		}
	}
	if err := s.start(f, t); err != nil {
		return nil, err
	}
	if err := s.flattenAtStart(); err != nil {
		return nil, err
	}
	s.seq.index.db = s.db // which may have been opened anew
	if err := s.finishPruning(); err != nil {
		return nil, err
	}
	pending := make([]*chain.Record, 0, len(t.pending)+1)
	for k, r := range t.pending {
		s.seq.open[k] = r.Seq
		pending = append(pending, r)
	}
	slices.SortFunc(pending, func(a, b *chain.Record) int { return cmp.Compare(a.Seq, b.Seq) })
	if changed != nil {
		pending = slices.Insert(pending, 0, changed)
	}
	return pending, nil
}

// reopen opens the database with other options. No goroutine uses it yet.
func (s *Store) reopen(o badger.Options) error {
	err := s.db.Close()
	s.db = nil
	if err == nil {
		s.db, err = openBadger(o)
	}
	if err != nil {
		return fmt.Errorf("open the audit log again: %w", err)
	}
	return nil
}

func withMend(err error) error {
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%w; %s", err, mend)
	}
	return err
}

// damaged turns a report into an error that names the first few damages.
func damaged(dir string, r *chain.Report) error {
	var errs []error
	for _, d := range r.Damage[:min(3, len(r.Damage))] {
		errs = append(errs, errors.New(d.String()))
	}
	return fmt.Errorf("%w: %s: %d damages, the first: %w", ErrDamaged, dir, r.Damaged, errors.Join(errs...))
}

// start makes database, write-ahead log and memory agree.
func (s *Store) start(f *found, t *tail) error {
	if t.unformatted {
		err := s.db.Update(func(txn *badger.Txn) error { return txn.Set([]byte(formatKey), []byte(format)) })
		if err == nil {
			err = syncDir(s.cfg.Dir) // the database's name
		}
		if err != nil {
			return fmt.Errorf("start the audit log: %w", err)
		}
	}
	s.notes = t.notes
	s.seq.index = index{db: s.db, tree: *t.tree, slugs: t.slugs, whole: t.whole}
	s.seq.sealed = t.seal.size
	if err := s.recordGap(); err != nil {
		return err
	}
	size := s.seq.index.tree.Size()
	var err error
	if s.wal, err = startWAL(f.wal, f.history, sighting{size, s.seq.index.tree.Root()}); err != nil {
		return err
	}
	for _, path := range []string{s.cfg.Dir, f.badger} {
		if err := s.dir.hold(path); err != nil {
			return fmt.Errorf("open the audit directory: %w", err)
		}
	}
	s.written = s.wal.segment()
	s.size.Store(size)
	s.durable.Store(size)
	s.fill = newFiller(size, s.cfg.fillLag)
	return nil
}

// fillDatabase is the filler's goroutine.
func (s *Store) fillDatabase() {
	if err := s.fill.run(s.db, s.wal); err != nil {
		s.latch(err)
	}
}

// begin records what opening the log found: for every intent without outcome
// that its call may have left, and a change of keys.
func (s *Store) begin(ctx context.Context, pending []*chain.Record) error {
	interrupted := 0
	for _, r := range pending {
		if r.Kind == chain.CallIntent {
			interrupted++
			r.Kind, r.TS, r.Actor = chain.CallInterrupted, wire.Time{}, ""
		} else {
			s.notes = append(s.notes, string(r.Kind)+": "+r.Reason)
		}
		if err := s.AppendLazy(*r); err != nil {
			return fmt.Errorf("record what was found at the start: %w", err)
		}
	}
	if len(pending) == 0 {
		return nil
	}
	if interrupted > 0 {
		s.notes = append(s.notes, fmt.Sprintf("%d calls were interrupted and may have left", interrupted))
	}
	// What new keys have not signed yet cannot be verified with them.
	if _, err := s.await(ctx, &item{done: make(chan result, 1), seal: true}); err != nil {
		return fmt.Errorf("record what was found at the start: %w", err)
	}
	return nil
}
