package auditstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
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
	s.seq.slugs = make(map[string]*place)
	s.seq.open = make(map[attempt]uint64)
	pending, err := s.open(ctx)
	if err != nil {
		if s.db != nil {
			err = errors.Join(err, s.db.Close())
		}
		if s.before != nil {
			err = errors.Join(err, s.before.restore())
		}
		if s.witness != nil {
			err = errors.Join(err, s.witness.close())
		}
		s.sign.close()
		return nil, errors.Join(err, d.close())
	}
	go s.run()
	if err := s.begin(ctx, pending); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// layout is where things are in a log's directory.
type layout struct{ badger, witness, checkpoints string }

func layoutOf(dir string) layout {
	return layout{filepath.Join(dir, "badger"), filepath.Join(dir, "witness"), filepath.Join(dir, checkpointFile)}
}

// found tells what is on disk before Badger is opened, which changes it.
type found struct {
	layout
	history *history // nil: there was no log, or its start was interrupted
	crashed bool     // Badger was not closed
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
	hasWitness, err := exists(f.witness)
	if err != nil {
		return nil, fmt.Errorf("look for the witness: %w", err)
	}
	if hasWitness {
		if f.history, err = readWitness(f.witness); err != nil {
			return nil, err
		}
		if n := f.history.last().size; n > 0 && !hasBadger {
			return nil, fmt.Errorf("%w: the witness saw %d records, and %s has no database", ErrDamaged, n, f.badger)
		}
	}
	f.crashed, err = wasCrashed(f.badger)
	return f, err
}

// wasCrashed reports whether a database was not closed: a clean close leaves no
// memtable behind.
func wasCrashed(badger string) (bool, error) {
	left, err := filepath.Glob(filepath.Join(badger, "*.mem"))
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
	if s.before, err = keepBefore(f); err != nil {
		return nil, err
	}
	o := badgerOptions(f.badger, &badgerLog{log: s.cfg.Log, fail: s.latch})
	if values := s.dir.valueDir(); values != "" {
		o = o.WithValueDir(values)
	}
	careful := s.before.path != ""
	s.db, err = openBadger(s.before.careful(o))
	if err != nil {
		return nil, withMend(err)
	}
	var t *tail
	err = s.db.View(func(txn *badger.Txn) (err error) { t, err = readTail(ctx, txn, f); return err })
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

// start makes database, witness and memory agree.
func (s *Store) start(f *found, t *tail) error {
	if f.history == nil {
		if err := s.create(f); err != nil {
			return err
		}
		h, err := readWitness(f.witness)
		if err != nil {
			return err
		}
		t.keep = h.end
	}
	w, err := openWitness(f.witness, t.keep)
	if err != nil {
		return err
	}
	s.witness = w
	size := t.tree.Size()
	if t.unmarkedBefore != nil {
		err = s.witness.mark(t.unmarkedBefore.size)
	}
	if err == nil && t.unseen {
		err = s.witness.note(size, t.tree.Root())
	}
	if err == nil && (t.unseen || t.unmarked) {
		err = s.witness.mark(size)
	}
	if err != nil {
		return err
	}
	for _, path := range []string{s.cfg.Dir, f.badger} {
		if err := s.dir.hold(path); err != nil {
			return fmt.Errorf("open the audit directory: %w", err)
		}
	}
	s.notes = t.notes
	s.seq.tree = *t.tree
	s.seq.sealed = t.seal.size
	s.seq.whole = t.whole
	s.size.Store(size)
	s.durable.Store(size)
	return nil
}

// create starts a log: an empty database, then the witness of that.
func (s *Store) create(f *found) error {
	err := s.db.Update(func(txn *badger.Txn) error { return txn.Set([]byte(formatKey), []byte(format)) })
	if err != nil {
		return fmt.Errorf("start the audit log: %w", err)
	}
	w, err := openWitness(f.witness, 0)
	if err != nil {
		return err
	}
	var empty chain.Tree
	err = errors.Join(w.note(0, empty.Root()), w.mark(0), w.close(), syncDir(s.cfg.Dir))
	if err != nil {
		return fmt.Errorf("start the witness: %w", err)
	}
	return nil
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
	report         chain.Report
	tree           *chain.Tree
	seal           seal
	whole          place
	pending        map[attempt]*chain.Record
	keep           int64     // bytes of the witness that stay
	unseen         bool      // the witness lacks the last batch
	unmarked       bool      // the witness does not know that it is durable
	unmarkedBefore *sighting // a batch before, of which it does not know that either
	notes          []string
}

// readTail verifies the end of the log against its seal and the witness.
func readTail(ctx context.Context, txn *badger.Txn, f *found) (*tail, error) {
	t := &tail{tree: new(chain.Tree), pending: make(map[attempt]*chain.Record)}
	size, start, err := t.readEnd(txn)
	if err != nil {
		return nil, err
	}
	if f.history == nil {
		if size > 0 {
			return nil, fmt.Errorf("%w: %s holds %d records, and the witness %s is missing", ErrDamaged, f.badger, size, f.witness)
		}
		return t, nil
	}
	if err := checkFormat(txn); err != nil {
		return nil, fmt.Errorf("%s: %w", f.badger, err)
	}
	t.reconcile(f.history, size, start)
	if !t.report.OK() {
		return t, nil
	}
	from, err := t.readSeal(txn, size)
	if err != nil || !t.report.OK() {
		return t, err
	}
	if f.crashed {
		from = min(from, size-min(size, crashTail))
	}
	c := newChecker(txn, &t.report)
	c.expect(t.seal.size, t.seal.root, "the seal")
	for _, seen := range f.history.seen[max(0, len(f.history.seen)-2):] {
		if seen.size <= size {
			c.expect(seen.size, seen.root, witnessed)
		}
	}
	c.each = t.pair
	t.tree, err = c.run(ctx, from, size, nil)
	if err != nil {
		return nil, err
	}
	t.report.Root = t.tree.Root()
	return t, nil
}

// readEnd finds the number of records and where the last batch starts.
func (t *tail) readEnd(txn *badger.Txn) (size, start uint64, err error) {
	it := txn.NewIterator(badger.IteratorOptions{Reverse: true})
	defer it.Close()
	for it.Seek(seqKey(seqPrefix, math.MaxUint64)); it.ValidForPrefix([]byte(seqPrefix)); it.Next() {
		seq, ok := keySeq(it.Item().Key())
		if !ok || seq >= math.MaxInt64 {
			return 0, 0, fmt.Errorf("%w: the database has the key %q", ErrDamaged, it.Item().Key())
		}
		var e entry
		if err := it.Item().Value(func(v []byte) (err error) { e, err = parseEntry(v); return err }); err != nil {
			return 0, 0, fmt.Errorf("%w: record %d: %w", ErrDamaged, seq, err)
		}
		if size == 0 {
			size = seq + 1
			t.whole = place{day: dayOfMillis(e.millis), any: true}
		}
		if e.first || size-seq >= maxBatch {
			return size, seq, nil
		}
	}
	return size, 0, nil
}

// reconcile compares what Badger holds with what the witness saw. They may
// differ by the last batch, of which a crash leaves one or the other.
func (t *tail) reconcile(h *history, size, start uint64) {
	last := h.last()
	t.keep = h.end
	before, two := h.before()
	switch {
	case size == last.size:
		t.unmarked = !last.marked
	case size > last.size && start == last.size:
		t.unseen = true
		if !last.marked { // that it is durable follows from the batch after it
			t.unmarkedBefore = &last
		}
		t.notes = append(t.notes, fmt.Sprintf("the witness lacked the last batch, records %d to %d; it was added", start, size-1))
	case size < last.size && !last.marked && two && size == before.size:
		t.keep, t.unmarked = last.at, !before.marked
		t.notes = append(t.notes, fmt.Sprintf("records %d to %d were never acknowledged and were cut off by a crash", size, last.size-1))
	case size > last.size:
		t.report.Add(last.size, chain.Unknown, "the witness saw %d records, the database holds %d", last.size, size)
	default:
		t.report.Add(size, chain.Missing, "the witness saw %d records, the database holds %d", last.size, size)
	}
}

func checkFormat(txn *badger.Txn) error {
	it, err := txn.Get([]byte(formatKey))
	if err != nil {
		return fmt.Errorf("%w: read the log's format: %w", ErrDamaged, err)
	}
	return it.Value(func(v []byte) error {
		if string(v) != format {
			return fmt.Errorf("the audit log has format %q, and this program writes %q: use the program that wrote it", v, format)
		}
		return nil
	})
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
