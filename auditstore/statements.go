package auditstore

import (
	"errors"
	"fmt"
	"math"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"golang.org/x/mod/sumdb/tlog"
)

// statements are the records that are about the log itself. Their numbers
// stand under a key of their own, since a verifier needs them before it comes
// to what they are about.
type statements struct {
	seqs   map[uint64]bool // all of them
	prunes []pruneAt
	gaps   []chain.Gap
	keys   chain.Verifiers // that signed at some time
	broken error           // one of them cannot be read
}

// A pruneAt is where a statement about pruned records stands, and what lies
// between the first and the last of them. It is read again when it is needed:
// what it lists may be long.
type pruneAt struct {
	seq  uint64
	span chain.Range
}

// readStatements reads those below size.
func readStatements(txn *badger.Txn, size uint64) (*statements, error) {
	s := &statements{seqs: make(map[uint64]bool)}
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(statePrefix)})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		seq, ok := keySeq(it.Item().Key())
		if !ok || seq >= size {
			continue // named as a stranger, or not yet of concern
		}
		r, err := readRecord(txn, seq)
		if err == nil {
			err = s.add(r)
		}
		if err != nil {
			s.broken = errors.Join(s.broken, fmt.Errorf("record %d: %w", seq, err))
		}
		s.seqs[seq] = true
	}
	return s, nil
}

// statementSeqs lists the numbers of statements in a stretch.
func statementSeqs(txn *badger.Txn, w stretch) map[uint64]bool {
	seqs := make(map[uint64]bool)
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(statePrefix)})
	defer it.Close()
	for it.Seek(seqKey(statePrefix, w.lo)); it.Valid(); it.Next() {
		seq, ok := keySeq(it.Item().Key())
		if !ok || seq >= w.hi {
			break
		}
		seqs[seq] = true
	}
	return seqs
}

func (s *statements) add(r *chain.Record) error {
	switch r.Kind {
	case chain.AuditKey:
		keys, err := chain.ParseVerifiers(r.Reason)
		s.keys = append(s.keys, keys...)
		return err
	case chain.AuditGap:
		g, err := chain.ParseGap(r)
		if err == nil {
			s.gaps = append(s.gaps, *g)
		}
		return err
	case chain.AuditPruned:
		p, err := chain.ParsePruning(r)
		if err == nil {
			s.prunes = append(s.prunes, pruneAt{r.Seq, chain.Range{First: p.Seqs[0].First, Last: p.Seqs[len(p.Seqs)-1].Last}})
		}
		return err
	}
	return fmt.Errorf("it is of kind %q, which says nothing about the log", r.Kind)
}

// pruned reports for each of the n records from lo on whether a statement says
// that it was pruned; nil is none of them.
func (s *statements) pruned(txn *badger.Txn, lo uint64, n int) ([]bool, error) {
	var out []bool
	end := lo + uint64(n) //nolint:gosec // a window
	for _, p := range s.prunes {
		if p.span.Last < lo || p.span.First >= end {
			continue
		}
		r, err := readRecord(txn, p.seq)
		if err != nil {
			return nil, err
		}
		list, err := chain.ParsePruning(r)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = make([]bool, n)
		}
		for _, g := range list.Seqs {
			for seq := max(g.First, lo); seq <= g.Last && seq < end; seq++ {
				out[seq-lo] = true
			}
		}
	}
	return out, nil
}

// A pruneCheck tells whether records were pruned, for who signs that: by a
// statement that is in the tree of the checkpoint, or came after it.
type pruneCheck struct {
	txn    *badger.Txn
	c      *chain.Checkpoint
	states *statements // nil: not read yet
	from   uint64      // the window that pruned is about
	pruned []bool      // nil: none there
}

// record returns an error unless the record was pruned.
func (p *pruneCheck) record(seq uint64) error {
	if err := p.read(); err != nil {
		return err
	}
	if from := windowOf(seq); p.pruned == nil || p.from != from {
		var err error
		if p.pruned, err = p.states.pruned(p.txn, from, window); err != nil {
			return err
		}
		p.from = from
	}
	if p.pruned == nil || !p.pruned[seq-p.from] {
		return fmt.Errorf("%w: its bytes are gone, and no record says that they were pruned", ErrDamaged)
	}
	return nil
}

// read reads the statements, once.
func (p *pruneCheck) read() error {
	if p.states != nil {
		return nil
	}
	states, err := readStatements(p.txn, math.MaxUint64)
	if err == nil {
		err = states.broken
	}
	if err != nil {
		return err
	}
	for _, s := range states.prunes {
		if s.seq >= p.c.Size {
			continue
		}
		e, err := readEntry(p.txn, s.seq)
		if err != nil {
			return err
		}
		path, err := prove(p.c.Size, s.seq, hashReader(p.txn))
		if err == nil {
			//nolint:gosec // a log has fewer than 2^63 records
			err = tlog.CheckRecord(path, int64(p.c.Size), p.c.Root, int64(s.seq), e.hashes[0])
		}
		if err != nil {
			return fmt.Errorf("%w: record %d, which says what was pruned: %w", ErrDamaged, s.seq, err)
		}
	}
	p.states = states
	return nil
}

// readRecord reads and decodes one record.
func readRecord(txn *badger.Txn, seq uint64) (*chain.Record, error) {
	e, err := readEntry(txn, seq)
	if err != nil {
		return nil, err
	}
	it, err := txn.Get(recKey(e.slug, seq))
	if err != nil {
		return nil, fmt.Errorf("%w: its bytes are not there: %w", ErrDamaged, err)
	}
	var r *chain.Record
	err = it.Value(func(v []byte) (err error) {
		if len(v) < chain.SaltSize || isStub(it) {
			return fmt.Errorf("%w: %w", ErrDamaged, errShort)
		}
		if chain.Leaf(v[:chain.SaltSize], v[chain.SaltSize:]) != e.hashes[0] {
			return fmt.Errorf("%w: its bytes do not give its hash", ErrDamaged)
		}
		r, err = chain.Decode(v[chain.SaltSize:])
		return err
	})
	return r, err
}

// readEntry reads a record's entry.
func readEntry(txn *badger.Txn, seq uint64) (entry, error) {
	it, err := txn.Get(rowKey(seq))
	if err != nil {
		return entry{}, fmt.Errorf("%w: its hashes are not there: %w", ErrDamaged, err)
	}
	var e entry
	err = it.Value(func(v []byte) (err error) { e, err = parseEntry(v); return err })
	return e, err
}
