package auditstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
	"golang.org/x/mod/sumdb/tlog"
)

// A checker verifies a stretch of the log.
type checker struct {
	db     *badger.DB // nil: too little is read to unmap it
	txn    *badger.Txn
	report *chain.Report
	each   func(stored []byte) error // called with every good record, those of a slug in their order
	days   *dayChecker               // nil: do not check the days
	states *statements

	want    map[uint64][]expected
	lost    map[string]bool // whose roots differ
	scratch []chain.Hash
}

type expected struct {
	root chain.Hash
	who  string
}

func newChecker(txn *badger.Txn, r *chain.Report) *checker {
	return &checker{txn: txn, report: r, want: make(map[uint64][]expected), lost: make(map[string]bool)}
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
	parts := 0
	err = c.read(ctx, from, to, func(p *part) {
		if parts++; parts%8 == 0 && c.db != nil {
			_ = unmapMuch(c.db) // it costs nothing but memory
		}
		if progress != nil {
			progress(p.lo-from, to-from)
		}
		c.report.Join(&p.report)
		c.grow(tree, p)
		c.report.Records += p.hi - p.lo
	})
	if err != nil {
		return nil, err
	}
	if progress != nil {
		progress(to-from, to-from)
	}
	return tree, nil
}

// grow adds the window's leaves to the tree. Where a stored hash is wrong it
// goes on with that one, so that each damage is named once.
func (c *checker) grow(tree *chain.Tree, p *part) {
	for i := range p.rows {
		r, seq := &p.rows[i], p.lo+uint64(i)
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
		if want := c.want[seq+1]; want != nil {
			c.compare(tree, want)
		}
		if c.days != nil && len(r.hashes) > 0 {
			c.days.record(c, seq, &r.entry)
		}
		if c.days != nil && r.counted && r.slug != "" {
			c.days.number(c, seq, r)
		}
		if r.stub {
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
	looked := windowKey(windowOf(size + window - 1)) // what no key is has been named up to here
	for it.Seek(windowKey(windowOf(size))); it.ValidForPrefix([]byte(windowPrefix)); it.Next() {
		k := it.Item().Key()
		seq, ok := parseRowKey(k)
		if !ok {
			_, seq, ok = parseRecKey(k)
		}
		if ok && seq >= size || !ok && bytes.Compare(k, looked) >= 0 {
			c.report.Add(seq, chain.Unknown, "an entry stands after the end of the log: %q", k)
		}
	}
}

var metaKeys = []string{formatKey, sealKey, checkpointKey, keysKey, erasedKey, prunedKey, flattenKey}

// strangers names keys that no log writes, and days that no record asks for.
func (c *checker) strangers() {
	it := c.txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	var days uint64
	for it.Rewind(); it.Valid(); {
		k := it.Item().Key()
		switch {
		case bytes.HasPrefix(k, []byte(windowPrefix)):
			it.Seek([]byte("a0")) // checked: behind all of a/
			continue
		case bytes.HasPrefix(k, []byte(dayPrefix)), bytes.HasPrefix(k, []byte(wholeDay)):
			days++
		case bytes.HasPrefix(k, []byte(statePrefix)) && len(k) == len(statePrefix)+8:
			if seq, _ := keySeq(k); !c.states.seqs[seq] || it.Item().ValueSize() > 0 {
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
		d.want(c, seq, slugDay(e.slug, seq), today)
	}
}

// number checks that a slug's records are numbered without a gap.
func (d *dayChecker) number(c *checker, seq uint64, r *row) {
	if want := d.next[r.slug]; r.number == nil || *r.number != want {
		c.report.Add(seq, chain.BadOrder, "it is not number %d of %s", want, wire.Quote(r.slug))
	}
	if r.number != nil {
		d.next[r.slug] = *r.number + 1
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

// hashReader reads the stored hashes of the tree.
func hashReader(txn *badger.Txn) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, n := tlog.SplitStoredHashIndex(index)
			seq := uint64(n+1)<<level - 1 //nolint:gosec // not below 0
			it, err := txn.Get(rowKey(seq))
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
