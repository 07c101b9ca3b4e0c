package auditstore

import (
	"context"
	"errors"
	"log/slog"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// Verify checks the whole log as it is now: each record against its leaf hash,
// each hash of the tree, the entries that serve queries, and the root against
// every batch that the write-ahead log still holds and every checkpoint. It streams,
// and memory stays flat. It calls progress, unless that is nil, now and then.
// What is wrong with the log stands in the report; an error means that it could
// not be read.
func (s *Store) Verify(ctx context.Context, progress func(done, total uint64)) (chain.Report, error) {
	size, done, err := s.reading(ctx)
	if err != nil {
		return chain.Report{}, err
	}
	defer done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.stopRead:
			cancel()
		case <-ctx.Done():
		}
	}()
	v := &verification{live: true, progress: progress, dir: s.cfg.Dir, sink: s.cfg.Sink}
	v.db, v.txn = s.db, s.db.NewTransaction(false)
	defer v.txn.Discard()
	if v.size, err = s.sizeIn(v.txn, size); err != nil {
		return chain.Report{}, err
	}
	if s.sign.keys != nil {
		v.trusted = s.sign.keys.Verifiers()
	}
	v.history, err = readLive(s.writtenSegment)
	if errors.Is(err, ErrDamaged) {
		v.report.Add(v.size, chain.BadRoot, "%v", err)
		v.history = &history{} // the rest is looked at all the same
	} else if err != nil {
		return chain.Report{}, err
	}
	err = v.run(ctx)
	return v.report, err
}

// sizeIn returns how many records a transaction sees: size, and what has come to
// the database since that was asked for.
func (s *Store) sizeIn(txn *badger.Txn, size uint64) (uint64, error) {
	err := lastRow(txn, func(seq uint64, _ *badger.Item) error {
		if seq < s.size.Load() { // no record has a higher number
			size = max(size, seq+1)
		}
		return nil
	})
	if errors.Is(err, ErrDamaged) {
		err = nil // it is named where it stands
	}
	return size, err
}

// Check verifies the log in dir, which no process may have open. It
// changes nothing: what Badger tidies up after a crash is put back.
func Check(ctx context.Context, dir string, log *slog.Logger) (chain.Report, error) {
	return CheckSigned(ctx, Config{Dir: dir, Log: log})
}

// CheckSigned is [Check] with the keys that must have signed the last
// checkpoint, and the sink that may know a later one.
func CheckSigned(ctx context.Context, c Config) (chain.Report, error) {
	c.defaults()
	d, err := lockDir(c.Dir)
	if err != nil {
		return chain.Report{}, err
	}
	r, err := check(ctx, &c)
	return r, errors.Join(err, d.close())
}

func check(ctx context.Context, c *Config) (r chain.Report, err error) {
	f, err := look(c.Dir)
	if err != nil {
		return r, err
	}
	before, err := keepBefore(f, false)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, before.restore()) }()
	// A database that was not closed is filled from the write-ahead log, in the place of
	// the copy that comes back.
	o := before.careful(badgerOptions(f.badger, &badgerLog{log: c.Log}))
	db, err := openBadger(o.WithReadOnly(!f.crashed))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	t, err := readTail(ctx, db, f)
	if err != nil {
		return r, err
	}
	txn := db.NewTransaction(false)
	defer txn.Discard()
	return checkIn(ctx, c, f, db, txn, t)
}

// checkIn verifies what a transaction sees.
func checkIn(ctx context.Context, c *Config, f *found, db *badger.DB, txn *badger.Txn, t *tail) (r chain.Report, err error) {
	v := &verification{db: db, txn: txn, history: f.history, dir: c.Dir, sink: c.Sink, crashed: f.crashed}
	if t.report.OK() {
		v.size = t.tree.Size()
	} else if f.history != nil {
		v.size = f.history.last().size // what lies behind it is named as such, not read
	}
	if c.Keys != nil {
		known, err := readSigned(v.txn)
		if err != nil && !errors.Is(err, ErrDamaged) {
			return r, err
		}
		keys, err := c.Keys(known.origin)
		if err == nil {
			keys, err = keys.For(known.nameOr(keys))
		}
		if err != nil {
			return r, err
		}
		v.trusted = keys.Verifiers()
	}
	err = v.run(ctx)
	return v.report, err
}

// A verification checks all records of a log.
type verification struct {
	db       *badger.DB
	txn      *badger.Txn
	size     uint64
	live     bool     // the log may grow meanwhile
	history  *history // nil: do not look at the write-ahead log, the seal and checkpoints
	dir      string
	sink     Sink
	trusted  chain.Verifiers // that must have signed the last checkpoint
	crashed  bool
	progress func(done, total uint64)
	each     func(stored []byte) error // see checker

	report chain.Report
}

func (v *verification) run(ctx context.Context) error {
	c := newChecker(v.txn, &v.report)
	c.db, c.each = v.db, v.each
	known, err := v.expect(c)
	if err != nil {
		return err
	}
	c.days = &dayChecker{slugs: make(map[string]day), next: make(map[string]uint64)}
	tree, err := c.run(ctx, 0, v.size, v.progress)
	if err != nil {
		return err
	}
	v.report.Root = tree.Root()
	c.beyond(v.size)
	c.strangers()
	v.report.Gaps = c.states.gaps
	if v.history == nil {
		return nil
	}
	n := &notary{txn: v.txn, size: v.size, live: v.live, crashed: v.crashed, known: known, states: c.states, report: &v.report}
	return n.check(ctx, v.dir, v.sink, v.trusted)
}

// expect has the tree compared with what the write-ahead log, the seal and the
// database's checkpoint say.
func (v *verification) expect(c *checker) (known signed, err error) {
	if v.history == nil {
		return known, nil
	}
	for _, seen := range v.history.seen {
		if seen.size <= v.size {
			c.expect(seen.size, seen.root, "the write-ahead log")
		} else if !v.live {
			v.report.Add(v.size, chain.Missing, "the write-ahead log saw %d records", seen.size)
		}
	}
	seal, err := value(v.txn, sealKey)
	if err != nil {
		return known, err
	}
	if seal != nil {
		sl, err := parseSeal(seal)
		switch {
		case err != nil:
			v.report.Add(v.size, chain.BadIndex, "the seal: %v", err)
		case sl.size <= v.size:
			c.expect(sl.size, sl.root, "the seal")
			v.checkOpen(&sl)
		default:
			v.report.Add(v.size, chain.BadIndex, "the seal: it covers %d records", sl.size)
		}
	}
	known, err = readSigned(v.txn)
	switch {
	case errors.Is(err, ErrDamaged):
		v.report.Add(v.size, chain.BadNote, "%v", err)
	case err != nil:
		return known, err
	case known.note == "":
	case seal == nil:
		v.report.Add(v.size, chain.Missing, "the database has a checkpoint, and the seal beside it is not there")
	case known.size <= v.size:
		c.expect(known.size, known.root, "the database's checkpoint")
	default:
		v.report.Add(v.size, chain.Missing, "the database's checkpoint is of %d records", known.size)
	}
	return known, nil
}

// checkOpen checks that the first call that the seal names as open is one.
func (v *verification) checkOpen(sl *seal) {
	if sl.open == sl.size {
		return
	}
	first, err := readRecord(v.txn, sl.open)
	open := err == nil && first.Kind == chain.CallIntent
	for seq := sl.open + 1; open && seq < sl.size; seq++ {
		if r, err := readRecord(v.txn, seq); err == nil { // else it is named where it stands
			open = r.CallID != first.CallID || r.Attempt != first.Attempt
		}
	}
	if !open {
		v.report.Add(sl.open, chain.BadIndex, "the seal says that it is a call without an outcome")
	}
}
