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

// open brings the store to where the sequencer can start, and returns the
// intents that have no outcome.
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
	own, err := s.startSigner(t)
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
	s.seq.index.db = s.db
	if err := s.finishPruning(); err != nil {
		return nil, err
	}
	pending := make([]*chain.Record, 0, len(t.pending))
	for k, r := range t.pending {
		s.seq.open[k] = r.Seq
		pending = append(pending, r)
	}
	slices.SortFunc(pending, func(a, b *chain.Record) int { return cmp.Compare(a.Seq, b.Seq) })
	return append(own, pending...), nil
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
	size := t.tree.Size()
	now := sighting{size, t.tree.Root()}
	var err error
	if s.wal, err = startWAL(f.wal, f.history, now); err != nil {
		return err
	}
	for _, path := range []string{s.cfg.Dir, f.badger} {
		if err := s.dir.hold(path); err != nil {
			return fmt.Errorf("open the audit directory: %w", err)
		}
	}
	s.notes = t.notes
	s.seq.index = index{tree: *t.tree, slugs: t.slugs, whole: t.whole}
	s.seq.sealed = t.seal.size
	s.written = s.wal.segment()
	s.size.Store(size)
	s.durable.Store(size)
	s.fill = newFiller(size, s.cfg.fillLag)
	return nil
}

// fillDatabase is the filler's goroutine.
func (s *Store) fillDatabase() {
	if err := s.fill.run(s.db, s.wal.release); err != nil {
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

// A tail is the end of a log as it is on disk, and what to do about it.
type tail struct {
	report  chain.Report
	tree    *chain.Tree
	seal    seal
	whole   place
	slugs   map[string]*place
	pending map[attempt]*chain.Record
	notes   []string

	unformatted bool // the database is new
}

func newTail() *tail {
	return &tail{tree: new(chain.Tree), slugs: make(map[string]*place), pending: make(map[attempt]*chain.Record)}
}

// readTail verifies the end of the log against its seal and the write-ahead log, and
// fills the database with what only the write-ahead log has.
func readTail(ctx context.Context, db *badger.DB, f *found) (*tail, error) {
	t := newTail()
	err := db.View(func(txn *badger.Txn) error { return t.readDatabase(ctx, txn, f) })
	if err != nil || !t.report.OK() || f.history == nil {
		return t, err
	}
	if f.history.torn() {
		t.notes = append(t.notes, fmt.Sprintf("what stood behind record %d was never acknowledged, and was cut off by a crash", f.history.last().size))
	}
	if err := replay(db, f.history, t); err != nil {
		return t, err
	}
	t.report.Root = t.tree.Root()
	return t, nil
}

func (t *tail) readDatabase(ctx context.Context, txn *badger.Txn, f *found) error {
	size, err := t.readEnd(txn)
	if err != nil {
		return err
	}
	if f.history == nil {
		if size > 0 {
			return fmt.Errorf("%w: %s holds %d records, and its write-ahead log is missing", ErrDamaged, f.badger, size)
		}
		t.unformatted = true
		return nil
	}
	if err := t.checkFormat(txn, size == 0 && f.history.base().size == 0); err != nil {
		return fmt.Errorf("%s: %w", f.badger, err)
	}
	t.reconcile(f.history, size)
	if !t.report.OK() {
		return nil
	}
	from, err := t.readSeal(txn, size)
	if err != nil || !t.report.OK() {
		return err
	}
	if f.crashed {
		from = min(from, size-min(size, crashTail))
	}
	c := newChecker(txn, &t.report)
	c.expect(t.seal.size, t.seal.root, "the seal")
	for _, seen := range f.history.seen {
		if from <= seen.size && seen.size <= size {
			c.expect(seen.size, seen.root, "the write-ahead log")
		}
	}
	c.each = t.pair
	t.tree, err = c.run(ctx, from, size, nil)
	if err == nil {
		t.report.Root = t.tree.Root()
	}
	return err
}

// readEnd finds the number of records in the database.
func (t *tail) readEnd(txn *badger.Txn) (size uint64, err error) {
	err = lastRow(txn, func(seq uint64, it *badger.Item) error {
		var e entry
		if err := it.Value(func(v []byte) (err error) { e, err = parseEntry(v); return err }); err != nil {
			return fmt.Errorf("%w: record %d: %w", ErrDamaged, seq, err)
		}
		size = seq + 1
		t.whole = place{day: dayOfMillis(e.millis), any: true}
		return nil
	})
	return size, err
}

// reconcile compares what Badger holds with what the write-ahead log saw: it is filled
// from the write-ahead log, and so at most behind it.
func (t *tail) reconcile(h *history, size uint64) {
	switch {
	case size < h.base().size:
		t.report.Add(size, chain.Missing, "the write-ahead log saw %d records, the database holds %d", h.base().size, size)
	case size > h.last().size:
		t.report.Add(h.last().size, chain.Unknown, "the write-ahead log saw %d records, the database holds %d", h.last().size, size)
	}
}

// checkFormat checks the database's format, which an empty one may lack.
func (t *tail) checkFormat(txn *badger.Txn, empty bool) error {
	b, err := value(txn, formatKey)
	switch {
	case err != nil:
		return err
	case b == nil && empty:
		t.unformatted = true
	case b == nil:
		return fmt.Errorf("%w: it does not say which format the log has", ErrDamaged)
	case string(b) != format:
		return fmt.Errorf("the audit log has format %q, and this program writes %q: use the program that wrote it", b, format)
	}
	return nil
}

// readSeal reads the last seal, and returns where verification starts.
func (t *tail) readSeal(txn *badger.Txn, size uint64) (uint64, error) {
	it, err := txn.Get([]byte(sealKey))
	if errors.Is(err, badger.ErrKeyNotFound) {
		var empty chain.Tree
		t.seal.root = empty.Root()
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("%w: read the seal: %w", ErrDamaged, err)
	}
	err = it.Value(func(v []byte) (err error) { t.seal, err = parseSeal(v); return err })
	if err != nil {
		return 0, fmt.Errorf("%w: read the seal: %w", ErrDamaged, err)
	}
	if t.seal.size > size {
		t.report.Add(size, chain.Missing, "the seal covers %d records, the database holds %d", t.seal.size, size)
	}
	return t.seal.open, nil
}

// pair finds the intents without outcome.
func (t *tail) pair(stored []byte) error {
	h, err := chain.DecodeHead(stored)
	if err != nil {
		return err
	}
	switch h.Kind {
	case chain.CallIntent, chain.CallOutcome, chain.CallInterrupted:
	default:
		return nil
	}
	r, err := chain.Decode(stored)
	if err != nil {
		return err
	}
	k := attempt{r.CallID, r.Attempt}
	if r.Kind == chain.CallIntent {
		t.pending[k] = r
	} else {
		delete(t.pending, k)
	}
	return nil
}
