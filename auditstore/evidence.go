package auditstore

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
	"golang.org/x/mod/sumdb/tlog"
)

// Prove returns the proof that a record is in the log, with a checkpoint over
// all records so far.
func (s *Store) Prove(ctx context.Context, seq uint64) (*chain.Proof, error) {
	note, c, err := s.freshCheckpoint(ctx)
	if err != nil {
		return nil, err
	}
	if seq >= c.Size {
		return nil, fmt.Errorf("%w: the log has records 0 to %d", chain.ErrNoRecord, c.Size-1)
	}
	_, done, err := s.reading(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	p := &chain.Proof{Seq: seq, Size: c.Size, Checkpoint: note}
	err = s.db.View(func(txn *badger.Txn) error {
		e, err := readEntry(txn, seq)
		if err != nil {
			return err
		}
		p.Leaf = e.hashes[0]
		if p.Hashes, err = prove(c.Size, seq, hashReader(txn)); err != nil {
			return err
		}
		it, err := txn.Get(recKey(e.slug, seq))
		if err != nil {
			return err
		}
		if isStub(it) {
			return (&pruneCheck{txn: txn, c: c}).record(seq)
		}
		v, err := it.ValueCopy(nil)
		if err == nil && len(v) < chain.SaltSize {
			err = errShort
		}
		if err == nil {
			p.Salt, p.Record = v[:chain.SaltSize], v[chain.SaltSize:]
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("prove record %d: %w", seq, err)
	}
	return p, nil
}

func (s *Store) freshCheckpoint(ctx context.Context) (string, *chain.Checkpoint, error) {
	note, err := s.Checkpoint(ctx)
	if err != nil {
		return "", nil, err
	}
	c, err := chain.ParseCheckpoint(note)
	return note, c, err
}

func prove(size, seq uint64, r tlog.HashReader) ([]chain.Hash, error) {
	return tlog.ProveRecord(int64(size), int64(seq), r) //nolint:gosec // a log has fewer than 2^63 records
}

// Export writes all records of a slug with their proofs: see
// [chain.VerifyExport]. With times it is the stretch from the slug's first
// record in [from, to) to its last one there; between them nothing is left out,
// whatever the clock did. Memory does not grow with the export.
func (s *Store) Export(ctx context.Context, slug wire.Slug, from, to time.Time, w io.Writer) error {
	note, c, err := s.freshCheckpoint(ctx)
	if err != nil {
		return err
	}
	_, done, err := s.reading(ctx)
	if err != nil {
		return err
	}
	defer done()
	txn := s.db.NewTransaction(false)
	defer txn.Discard()
	x := &exporter{
		q:      &query{ctx: ctx, stop: s.stopRead, txn: txn, f: chain.Filter{Slug: slug.String(), From: from, To: to}},
		size:   c.Size,
		pruned: pruneCheck{txn: txn, c: c},
		hashes: cached(hashReader(txn)),
		out:    bufio.NewWriterSize(w, 32<<10),
	}
	m := &chain.Manifest{Format: chain.ExportFormat, Slug: slug.String(), From: timeOrNil(from), To: timeOrNil(to), Checkpoint: note}
	span, any, err := x.span()
	if err == nil && any {
		err = x.count(span, m)
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", slug, err)
	}
	line, err := m.Line(s.sign.keys)
	if err == nil {
		err = x.line(line)
	}
	if err == nil && any {
		err = x.records(span)
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", slug, err)
	}
	return x.out.Flush()
}

func timeOrNil(t time.Time) *wire.Time {
	if t.IsZero() {
		return nil
	}
	at := wire.At(t)
	return &at
}

// An exporter writes one slug's records.
type exporter struct {
	q      *query
	size   uint64 // of the checkpoint
	pruned pruneCheck
	hashes tlog.HashReader
	out    *bufio.Writer
}

func (x *exporter) line(b []byte) error {
	if _, err := x.out.Write(b); err != nil {
		return err
	}
	return x.out.WriteByte('\n')
}

// each calls fn with the slug's records in a stretch.
func (x *exporter) each(p stretch, fn func(seq uint64, it *badger.Item) error) error {
	return eachOf(x.q.txn, x.q.f.Slug, p, func(seq uint64, it *badger.Item) error {
		if err := x.q.ended(); err != nil {
			return err
		}
		if err := fn(seq, it); err != nil {
			return fmt.Errorf("record %d: %w", seq, err)
		}
		return nil
	})
}

// span finds the first and the last record whose time is asked for.
func (x *exporter) span() (span stretch, any bool, err error) {
	parts, err := x.q.days(slugDays(x.q.f.Slug), stretch{0, x.size})
	if err != nil {
		return span, false, err
	}
	for _, p := range parts {
		err := x.each(p, func(seq uint64, _ *badger.Item) error {
			e, err := readEntry(x.q.txn, seq)
			if err != nil {
				return err
			}
			at := time.UnixMilli(e.millis)
			if !x.q.f.From.IsZero() && at.Before(x.q.f.From) || !x.q.f.To.IsZero() && !at.Before(x.q.f.To) {
				return nil
			}
			if !any {
				span.lo, any = seq, true
			}
			span.hi = seq + 1
			return nil
		})
		if err != nil {
			return span, false, err
		}
	}
	return span, any, nil
}

// count fills in what the manifest says about the records. What is signed there is
// that none are missing: so their numbers must have no gap.
func (x *exporter) count(span stretch, m *chain.Manifest) error {
	next, begun := uint64(0), false
	err := x.each(span, func(seq uint64, it *badger.Item) error {
		if !begun {
			n, err := slugSeqOf(it)
			if err != nil {
				return err
			}
			next, begun, m.FirstSlugSeq = n, true, &n
		}
		at := next
		m.LastSlugSeq = &at
		if isStub(it) {
			if err := x.pruned.record(seq); err != nil {
				return err
			}
			m.Pruned = chain.AddTo(m.Pruned, at)
		} else {
			m.Count++
		}
		next++
		return nil
	})
	if err != nil {
		return err
	}
	if m.From == nil && m.To == nil && *m.FirstSlugSeq > 0 {
		return fmt.Errorf("%w: the records before number %d of the slug are missing", ErrDamaged, *m.FirstSlugSeq)
	}
	it, err := x.q.txn.Get(recKey(x.q.f.Slug, span.hi-1))
	if err != nil {
		return err
	}
	n, err := slugSeqOf(it)
	if err == nil && n != *m.LastSlugSeq {
		err = fmt.Errorf("%w: record %d is number %d of the slug, and by those before it should be %d", ErrDamaged, span.hi-1, n, *m.LastSlugSeq)
	}
	return err
}

// slugSeqOf reads a record's, or its stub's, number within its slug.
func slugSeqOf(it *badger.Item) (n uint64, err error) {
	err = it.Value(func(v []byte) error {
		if isStub(it) {
			st, err := parseStub(v)
			if err == nil && st.next == 0 {
				err = errShort
			}
			n = st.next - 1
			return err
		}
		if len(v) < chain.SaltSize {
			return errShort
		}
		r, err := chain.Decode(v[chain.SaltSize:])
		if err == nil && r.SlugSeq == nil {
			err = errShort
		}
		if err == nil {
			n = *r.SlugSeq
		}
		return err
	})
	return n, err
}

// records writes a line for each record.
func (x *exporter) records(span stretch) error {
	return x.each(span, func(seq uint64, it *badger.Item) error {
		if isStub(it) {
			return nil
		}
		return it.Value(func(v []byte) error {
			if len(v) < chain.SaltSize {
				return errShort
			}
			path, err := prove(x.size, seq, x.hashes)
			if err != nil {
				return err
			}
			p := chain.ProvedRecord{Seq: seq, Record: bytes.Clone(v[chain.SaltSize:]), Salt: v[:chain.SaltSize], Proof: path}
			b, err := p.Line()
			if err != nil {
				return err
			}
			return x.line(b)
		})
	})
}

// maxCached hashes take some 4 MiB.
const maxCached = 1 << 16

// cached keeps hashes that neighbouring proofs have in common.
func cached(r tlog.HashReader) tlog.HashReader {
	known := make(map[int64]tlog.Hash)
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		var want []int64
		for i, x := range indexes {
			h, ok := known[x]
			if !ok {
				want = append(want, x)
			}
			out[i] = h
		}
		if want == nil {
			return out, nil
		}
		got, err := r.ReadHashes(want)
		if err != nil {
			return nil, err
		}
		if len(known)+len(want) > maxCached {
			clear(known)
		}
		for i, x := range indexes {
			if len(want) > 0 && x == want[0] {
				out[i], known[x] = got[0], got[0]
				want, got = want[1:], got[1:]
			}
		}
		return out, nil
	})
}
