package auditstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
	"golang.org/x/mod/sumdb/tlog"
)

// A checker verifies a stretch of the log.
type checker struct {
	txn     *badger.Txn
	report  *chain.Report
	each    func(stored []byte) error // called with every good record, in the order of its slug
	slugs   []string                  // that have records anywhere; nil: do not look for strangers
	days    *dayChecker               // nil: do not check the days
	batches uint64                    // the size from which on the witness lists each batch
	states  *statements
	pruned  []bool // of the window, as the statements say; nil: none

	want    map[uint64][]expected
	lost    map[string]bool // whose roots differ
	rows    []entry         // of the window
	stubs   []bool          // of the window: their bytes are gone
	bySlug  map[string][]int
	scratch []chain.Hash
}

type expected struct {
	root chain.Hash
	who  string
}

// witness is who among those expected knows where batches end.
const witnessed = "the witness"

func endsBatch(want []expected) bool {
	return slices.ContainsFunc(want, func(e expected) bool { return e.who == witnessed })
}

func newChecker(txn *badger.Txn, r *chain.Report) *checker {
	return &checker{txn: txn, report: r, batches: math.MaxUint64, want: make(map[uint64][]expected), lost: make(map[string]bool), bySlug: make(map[string][]int)}
}

// expect has the root compared when the tree has that size.
func (c *checker) expect(size uint64, root chain.Hash, who string) {
	c.want[size] = append(c.want[size], expected{root, who})
}

// run checks the records from up to to and returns the tree at to.
func (c *checker) run(ctx context.Context, from, to uint64, progress func(done, total uint64)) (*chain.Tree, error) {
	tree, err := chain.TreeAt(from, hashReader(c.txn))
	if err != nil {
		c.report.Add(from, chain.BadHash, "%v", err)
		tree, from = new(chain.Tree), 0
	}
	for size, want := range c.want {
		if size < from {
			t, err := chain.TreeAt(size, hashReader(c.txn))
			if err != nil {
				c.report.Add(size, chain.BadHash, "%v", err)
				continue
			}
			c.compare(t, want)
		}
	}
	c.compare(tree, c.want[from])
	if c.states, err = readStatements(c.txn, to); err != nil {
		return nil, err
	}
	if c.states.broken != nil {
		c.report.Add(to, chain.BadIndex, "what the log says about itself: %v", c.states.broken)
	}
	seqs := c.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(seqPrefix)})
	defer seqs.Close()
	recs := c.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(recPrefix)})
	defer recs.Close()
	for lo := from; lo < to; lo += window {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if progress != nil {
			progress(lo-from, to-from)
		}
		hi := min(lo+window, to)
		c.readRows(seqs, lo, hi)
		if c.pruned, err = c.states.pruned(c.txn, lo, len(c.rows)); err != nil {
			c.report.Add(lo, chain.BadIndex, "what was pruned cannot be read: %v", err)
		}
		if err := c.readRecords(recs, lo); err != nil {
			return nil, err
		}
		c.grow(tree, lo)
		c.report.Records += hi - lo
	}
	if progress != nil {
		progress(to-from, to-from)
	}
	return tree, nil
}

// readRows reads the entries of a window.
func (c *checker) readRows(it *badger.Iterator, lo, hi uint64) {
	clear(c.bySlug)
	c.rows = append(c.rows[:0], make([]entry, hi-lo)...)
	c.stubs = append(c.stubs[:0], make([]bool, hi-lo)...)
	next := lo
	missing := func(until uint64) {
		for ; next < until; next++ {
			c.report.Add(next, chain.Missing, "its hashes are not there")
		}
	}
	for it.Seek(seqKey(seqPrefix, lo)); it.Valid(); it.Next() {
		seq, ok := keySeq(it.Item().Key())
		if ok && seq >= hi {
			break
		}
		if len(it.Item().Key()) != len(seqPrefix)+8 {
			c.report.Add(next, chain.Unknown, "the database has the key %q", it.Item().Key())
			continue
		}
		missing(seq)
		r := &c.rows[seq-lo]
		if err := it.Item().Value(func(v []byte) (err error) { *r, err = parseEntry(v); return err }); err != nil {
			c.report.Add(seq, chain.BadHash, "its hashes cannot be read: %v", err)
		} else {
			c.bySlug[r.slug] = append(c.bySlug[r.slug], int(seq-lo)) //nolint:gosec // below window
		}
		next = seq + 1
	}
	missing(hi)
}

// readRecords compares the records of a window with its entries.
func (c *checker) readRecords(it *badger.Iterator, lo uint64) error {
	for slug, rows := range c.bySlug {
		if err := c.readSlug(it, slug, rows, lo); err != nil {
			return err
		}
	}
	for _, slug := range c.slugs {
		if _, ok := c.bySlug[slug]; !ok {
			if err := c.readSlug(it, slug, nil, lo); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) readSlug(it *badger.Iterator, slug string, rows []int, lo uint64) error {
	prefix := slugPrefix(recPrefix, slug)
	i := 0
	missing := func(seq uint64) {
		for ; i < len(rows) && lo+uint64(rows[i]) < seq; i++ { //nolint:gosec // an index
			c.report.Add(lo+uint64(rows[i]), chain.Missing, "its bytes are not there") //nolint:gosec // an index
		}
	}
	for it.Seek(slugKey(recPrefix, slug, lo)); it.ValidForPrefix(prefix); it.Next() {
		k := it.Item().Key()
		seq, _ := keySeq(k)
		if len(k) != len(prefix)+8 {
			c.report.Add(lo, chain.Unknown, "the database has the key %q", k)
			continue
		}
		if seq-lo >= uint64(len(c.rows)) {
			break
		}
		missing(seq)
		if i >= len(rows) || lo+uint64(rows[i]) != seq { //nolint:gosec // an index
			c.report.Add(seq, chain.Unknown, "there is a second record of slug %s with this number", wire.Quote(slug))
			continue
		}
		row := rows[i]
		r := &c.rows[row]
		i++
		if isStub(it.Item()) {
			c.stub(it.Item(), seq, row, r)
			continue
		}
		if err := it.Item().Value(func(v []byte) error { return c.record(seq, slug, r, v) }); err != nil {
			c.report.Add(seq, chain.BadForm, "%v", err)
		}
	}
	missing(math.MaxUint64)
	return nil
}

// stub checks what stands in the place of a pruned record.
func (c *checker) stub(it *badger.Item, seq uint64, row int, r *entry) {
	if c.pruned == nil || !c.pruned[row] {
		c.report.Add(seq, chain.Missing, "its bytes are gone, and no record says that they were pruned")
		return
	}
	c.stubs[row] = true
	err := it.Value(func(v []byte) error {
		st, err := parseStub(v)
		switch {
		case err != nil:
			return err
		case !bytes.Equal(v[stubSize:], stubSum(v, r.hashes[0])):
			return errors.New("it is not what was put there")
		case st.millis != r.millis:
			return errors.New("its time is another")
		}
		if st.next > 0 {
			n := st.next - 1
			c.counted(seq, r.slug, &n)
		}
		return nil
	})
	if err != nil {
		c.report.Add(seq, chain.BadIndex, "what is left of it: %v", err)
	}
}

// counted checks that a slug's records are numbered without a gap. It looks
// only where the whole log is read.
func (c *checker) counted(seq uint64, slug string, n *uint64) {
	if c.days == nil || slug == "" {
		return
	}
	if want := c.days.next[slug]; n == nil || *n != want {
		c.report.Add(seq, chain.BadOrder, "it is not number %d of %s", want, wire.Quote(slug))
	}
	if n != nil {
		c.days.next[slug] = *n + 1
	}
}

// record checks the bytes of one record.
func (c *checker) record(seq uint64, slug string, r *entry, v []byte) error {
	if len(v) < chain.SaltSize {
		return errShort
	}
	salt, stored := v[:chain.SaltSize], v[chain.SaltSize:]
	if chain.Leaf(salt, stored) != r.hashes[0] {
		c.report.Add(seq, chain.Changed, "its bytes do not give its hash")
		return nil
	}
	h, err := chain.DecodeHead(stored)
	switch {
	case err != nil:
		return err
	case h.Seq != seq:
		c.report.Add(seq, chain.BadOrder, "record %d stands here", h.Seq)
	case h.Slug != slug:
		c.report.Add(seq, chain.BadIndex, "a record of slug %s stands under %s", wire.Quote(h.Slug), wire.Quote(slug))
	case h.TS.UnixMilli() != r.millis:
		c.report.Add(seq, chain.BadIndex, "its time is given as %s", wire.At(time.UnixMilli(r.millis)))
	}
	c.counted(seq, slug, h.SlugSeq)
	if h.Kind.IsStatement() != c.states.seqs[seq] {
		c.report.Add(seq, chain.BadIndex, "the list of records about the log itself is wrong about it")
	}
	if c.each != nil {
		return c.each(stored)
	}
	return nil
}

// grow adds the window's leaves to the tree. Where a stored hash is wrong it
// goes on with that one, so that each damage is named once.
func (c *checker) grow(tree *chain.Tree, lo uint64) {
	before := c.want[lo]
	for i := range c.rows {
		r, seq := &c.rows[i], lo+uint64(i)
		var leaf chain.Hash
		if len(r.hashes) > 0 {
			leaf = r.hashes[0]
		}
		c.scratch = tree.Add(leaf, c.scratch[:0])
		switch {
		case len(r.hashes) == 0: // named already
		case len(r.hashes) != len(c.scratch):
			c.report.Add(seq, chain.BadHash, "it has %d hashes, not %d", len(r.hashes), len(c.scratch))
		default:
			for l := range c.scratch {
				if c.scratch[l] != r.hashes[l] {
					c.report.Add(seq, chain.BadHash, "the hash of the %d records up to it is wrong", 1<<l)
					tree.Adopt(r.hashes)
					break
				}
			}
		}
		if seq >= c.batches && len(r.hashes) > 0 && r.first != endsBatch(before) {
			c.report.Add(seq, chain.BadIndex, "the witness saw another batch begin")
		}
		if before = c.want[seq+1]; before != nil {
			c.compare(tree, before)
		}
		if c.days != nil && len(r.hashes) > 0 {
			c.days.record(c, seq, r)
		}
		if c.stubs[i] {
			c.report.AddPruned(seq)
		}
	}
}

func (c *checker) compare(tree *chain.Tree, want []expected) {
	root := tree.Root()
	for _, w := range want {
		// Once it differs it stays so: that is one damage.
		if w.root != root && !c.lost[w.who] {
			c.lost[w.who] = true
			c.report.Add(max(tree.Size(), 1)-1, chain.BadRoot, "the log up to here is not the one that %s saw", w.who)
		}
	}
}

// beyond names entries after the end of the log.
func (c *checker) beyond(size uint64) {
	it := c.txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	name := func(prefix []byte, from []byte) {
		for it.Seek(from); it.ValidForPrefix(prefix); it.Next() {
			seq, _ := keySeq(it.Item().Key())
			c.report.Add(seq, chain.Unknown, "an entry stands after the end of the log: %q", it.Item().Key())
		}
	}
	name([]byte(seqPrefix), seqKey(seqPrefix, size))
	for _, slug := range c.slugs {
		name(slugPrefix(recPrefix, slug), slugKey(recPrefix, slug, size))
	}
}

var metaKeys = []string{formatKey, sealKey, checkpointKey, keysKey, erasedKey, flattenKey}

// strangers names keys that no log writes, and days that no record asks for.
func (c *checker) strangers(live bool) {
	it := c.txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	var days uint64
	for it.Rewind(); it.Valid(); {
		k := it.Item().Key()
		switch {
		case bytes.HasPrefix(k, []byte(recPrefix)):
			it.Seek([]byte("a0")) // checked: behind all of a/
			continue
		case bytes.HasPrefix(k, []byte(seqPrefix)):
			it.Seek([]byte("q0"))
			continue
		case bytes.HasPrefix(k, []byte(dayPrefix)), bytes.HasPrefix(k, []byte(wholeDay)):
			days++
		case bytes.HasPrefix(k, []byte(statePrefix)) && len(k) == len(statePrefix)+8:
			if seq, _ := keySeq(k); !live && (!c.states.seqs[seq] || it.Item().ValueSize() > 0) {
				c.report.Add(seq, chain.Unknown, "the database has the key %q", k)
			}
		case slices.Contains(metaKeys, string(k)), bytes.HasPrefix(k, []byte("!badger!")):
		default:
			c.report.Add(0, chain.Unknown, "the database has the key %q", k)
		}
		it.Next()
	}
	if days > c.days.count {
		c.report.Add(0, chain.BadIndex, "there are %d entries of days, and records ask for %d", days, c.days.count)
	}
}

// A dayChecker follows the days of the log and of each slug.
type dayChecker struct {
	whole place
	slugs map[string]day
	next  map[string]uint64 // slugSeq
	count uint64
}

func (d *dayChecker) record(c *checker, seq uint64, e *entry) {
	today := dayOfMillis(e.millis)
	if !d.whole.any || d.whole.day != today {
		d.whole = place{day: today, any: true}
		d.want(c, seq, seqKey(wholeDay, seq), today)
	}
	if was, ok := d.slugs[e.slug]; !ok || was != today {
		d.slugs[e.slug] = today
		d.want(c, seq, slugKey(dayPrefix, e.slug, seq), today)
	}
}

// want checks that the key holds the day.
func (d *dayChecker) want(c *checker, seq uint64, key []byte, today day) {
	d.count++
	it, err := c.txn.Get(key)
	if err == nil {
		err = it.Value(func(v []byte) error {
			got, err := parseDay(v)
			if err == nil && got != today {
				err = errors.New("it is another day")
			}
			return err
		})
	}
	if err != nil {
		c.report.Add(seq, chain.BadIndex, "its day cannot be found: %v", err)
	}
}

// allSlugs lists the slugs that have records, "" among them.
func allSlugs(txn *badger.Txn) ([]string, error) {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(recPrefix)})
	defer it.Close()
	slugs := []string{}
	for it.Rewind(); it.Valid(); {
		slug, _, ok := bytes.Cut(it.Item().Key()[len(recPrefix):], []byte{0})
		if !ok {
			return nil, fmt.Errorf("%w: the database has the key %q", ErrDamaged, it.Item().Key())
		}
		slugs = append(slugs, string(slug))
		it.Seek(append(append([]byte(recPrefix), slug...), 1))
	}
	return slugs, nil
}

// hashReader reads the stored hashes of the tree.
func hashReader(txn *badger.Txn) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, n := tlog.SplitStoredHashIndex(index)
			seq := uint64(n+1)<<level - 1 //nolint:gosec // not below 0
			it, err := txn.Get(seqKey(seqPrefix, seq))
			if err == nil {
				err = it.Value(func(v []byte) error {
					e, err := parseEntry(v)
					if err == nil && level >= len(e.hashes) {
						err = errShort
					}
					if err == nil {
						out[i] = e.hashes[level]
					}
					return err
				})
			}
			if err != nil {
				return nil, fmt.Errorf("the hashes of record %d: %w", seq, err)
			}
		}
		return out, nil
	})
}
