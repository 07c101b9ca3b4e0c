package auditstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// A part is what a window holds of the log that is verified, checked as far as
// it can be by itself.
type part struct {
	c      *checker
	lo, hi uint64
	rows   []row
	pruned []bool // as the statements say; nil: none
	report chain.Report
	err    error
}

// A row is one record of a part.
type row struct {
	entry
	there   bool    // its bytes, or what is left of them
	stub    bool    // its bytes are gone
	counted bool    // number is what it says
	number  *uint64 // among its slug's
}

// read reads the log from from to to and hands it to fn in order. As many
// windows are read at a time as there are processors, but one if each record is
// asked for.
func (c *checker) read(ctx context.Context, from, to uint64, fn func(*part)) error {
	abreast := runtime.GOMAXPROCS(0)
	if c.each != nil {
		abreast = 1
	}
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan chan *part, abreast-1) // and one that is waited for
	all.Go(func() {
		defer close(queue)
		for lo := from; lo < to; lo = windowOf(lo) + window {
			done := make(chan *part, 1)
			select {
			case queue <- done:
			case <-ctx.Done():
				return
			}
			p := &part{c: c, lo: lo, hi: min(windowOf(lo)+window, to)}
			all.Go(func() {
				p.err = p.read()
				done <- p
			})
		}
	})
	for done := range queue {
		p := <-done
		if p.err != nil {
			return p.err
		}
		fn(p)
	}
	return ctx.Err()
}

// read reads the part. Badger panics, or faults on its memory map, over some
// damage, and nobody else would contain that here.
func (p *part) read() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: read records %d to %d: %v", ErrDamaged, p.lo, p.hi-1, v)
		}
	}()
	it := p.c.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(windowPrefix)})
	defer it.Close()
	p.readRows(it)
	if p.pruned, err = p.c.states.pruned(p.c.txn, p.lo, len(p.rows)); err != nil {
		p.report.Add(p.lo, chain.BadIndex, "what was pruned cannot be read: %v", err)
	}
	p.readRecords(it)
	return nil
}

// readRows reads the entries. It leaves the iterator behind them.
func (p *part) readRows(it *badger.Iterator) {
	p.rows = make([]row, p.hi-p.lo)
	next := p.lo
	missing := func(until uint64) {
		for ; next < until; next++ {
			p.report.Add(next, chain.Missing, "its hashes are not there")
		}
	}
	from := windowOf(p.lo)
	begin, end := windowKey(from), append(windowKey(from), recMark)
	if from == 0 {
		begin = []byte(windowPrefix)
	} else if p.lo > from {
		begin = rowKey(p.lo)
	}
	for it.Seek(begin); it.Valid() && bytes.Compare(it.Item().Key(), end) < 0; it.Next() {
		seq, ok := parseRowKey(it.Item().Key())
		if !ok {
			p.report.Add(next, chain.Unknown, "the database has the key %q", it.Item().Key())
		}
		if !ok || seq < p.lo || seq >= p.hi {
			continue
		}
		missing(seq)
		r := &p.rows[seq-p.lo]
		if err := it.Item().Value(func(v []byte) (err error) { r.entry, err = parseEntry(v); return err }); err != nil {
			p.report.Add(seq, chain.BadHash, "its hashes cannot be read: %v", err)
		}
		next = seq + 1
	}
	missing(p.hi)
}

// readRecords compares the records, before which the iterator stands, with the
// entries.
func (p *part) readRecords(it *badger.Iterator) {
	end := windowKey(windowOf(p.lo) + window)
	for ; it.Valid() && bytes.Compare(it.Item().Key(), end) < 0; it.Next() {
		slug, seq, ok := parseRecKey(it.Item().Key())
		switch {
		case !ok:
			p.report.Add(p.lo, chain.Unknown, "the database has the key %q", it.Item().Key())
		case seq < p.lo || seq >= p.hi: // not of this part
		case len(p.rows[seq-p.lo].hashes) == 0 || p.rows[seq-p.lo].slug != slug:
			p.report.Add(seq, chain.Unknown, "there is a second record of slug %s with this number", wire.Quote(slug))
		default:
			p.readRecord(it.Item(), seq)
		}
	}
	for i := range p.rows {
		if r := &p.rows[i]; len(r.hashes) > 0 && !r.there {
			p.report.Add(p.lo+uint64(i), chain.Missing, "its bytes are not there")
		}
	}
}

func (p *part) readRecord(it *badger.Item, seq uint64) {
	r := &p.rows[seq-p.lo]
	r.there = true
	if isStub(it) {
		if p.pruned == nil || !p.pruned[seq-p.lo] {
			p.report.Add(seq, chain.Missing, "its bytes are gone, and no record says that they were pruned")
			return
		}
		r.stub = true
		if err := it.Value(r.checkStub); err != nil {
			p.report.Add(seq, chain.BadIndex, "what is left of it: %v", err)
		}
		return
	}
	if err := it.Value(func(v []byte) error { return p.checkRecord(seq, r, v) }); err != nil {
		p.report.Add(seq, chain.BadForm, "%v", err)
	}
}

// checkStub checks what stands in the place of a pruned record.
func (r *row) checkStub(v []byte) error {
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
		r.counted, r.number = true, &n
	}
	return nil
}

// checkRecord checks the bytes of one record.
func (p *part) checkRecord(seq uint64, r *row, v []byte) error {
	if len(v) < chain.SaltSize {
		return errShort
	}
	salt, stored := v[:chain.SaltSize], v[chain.SaltSize:]
	if chain.Leaf(salt, stored) != r.hashes[0] {
		p.report.Add(seq, chain.Changed, "its bytes do not give its hash")
		return nil
	}
	h, err := chain.DecodeHead(stored)
	switch {
	case err != nil:
		return err
	case h.Seq != seq:
		p.report.Add(seq, chain.BadOrder, "record %d stands here", h.Seq)
	case h.Slug != r.slug:
		p.report.Add(seq, chain.BadIndex, "a record of slug %s stands under %s", wire.Quote(h.Slug), wire.Quote(r.slug))
	case h.TS.UnixMilli() != r.millis:
		p.report.Add(seq, chain.BadIndex, "its time is given as %s", wire.At(time.UnixMilli(r.millis)))
	}
	r.counted, r.number = true, h.SlugSeq
	if h.Kind.IsStatement() != p.c.states.seqs[seq] {
		p.report.Add(seq, chain.BadIndex, "the list of records about the log itself is wrong about it")
	}
	if p.c.each != nil {
		return p.c.each(stored)
	}
	return nil
}
