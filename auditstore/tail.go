package auditstore

import (
	"context"
	"errors"
	"fmt"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

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
