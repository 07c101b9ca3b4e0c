package auditstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/google/uuid"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// errEnough ends a query at its limit.
var errEnough = errors.New("enough")

// A stretch is a range of sequences, hi exclusive.
type stretch struct{ lo, hi uint64 }

// A query is one run of Records.
type query struct {
	ctx   context.Context //nolint:containedctx // a query lives no longer than the call that it serves
	stop  <-chan struct{}
	txn   *badger.Txn
	f     chain.Filter
	fn    func(raw []byte, r *chain.Record) error
	head  bool // the record is decoded no further than its head
	found int
}

// Records calls fn for every durable record that f selects, in log order. The
// raw bytes are those stored, and are good only during the call. An error of
// fn ends the query and is returned as it is. Records that become durable
// meanwhile are left out.
func (s *Store) Records(ctx context.Context, f chain.Filter, fn func(raw []byte, r *chain.Record) error) error {
	return s.query(ctx, &query{f: f, fn: fn})
}

// Lines is [Store.Records] for who wants only the bytes: they are parsed no
// further than f needs, which takes less than half the time.
func (s *Store) Lines(ctx context.Context, f chain.Filter, fn func(seq uint64, raw []byte) error) error {
	return s.query(ctx, &query{f: f, head: f.NeedsHead(), fn: func(raw []byte, r *chain.Record) error { return fn(r.Seq, raw) }})
}

// query runs q.
func (s *Store) query(ctx context.Context, q *query) error {
	size, done, err := s.reading(ctx)
	if err != nil {
		return err
	}
	defer done()
	txn := s.db.NewTransaction(false)
	defer txn.Discard()
	q.ctx, q.stop, q.txn = ctx, s.stopRead, txn
	q.narrow()

	f, all := &q.f, stretch{0, size}
	if f.After != nil {
		if *f.After >= size {
			return nil
		}
		all.lo = *f.After + 1
	}
	prefix := []byte(wholeDay)
	if f.Slug != "" {
		prefix = slugDays(f.Slug)
	}
	if all, err = q.between(prefix, all); err != nil {
		return err
	}
	parts, err := q.days(prefix, all)
	if err != nil {
		return err
	}
	if f.Slug != "" {
		err = q.slug(parts)
	} else {
		err = q.whole(parts)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// narrow derives a time range from the call's ID, which holds a time of the
// same clock. A call does not last for a day.
func (q *query) narrow() {
	id, err := uuid.Parse(q.f.CallID)
	if err != nil || id.Version() != 7 {
		return
	}
	ms := int64(binary.BigEndian.Uint64(id[:8]) >> 16)
	const about = 24 * time.Hour
	at := time.UnixMilli(ms)
	if from := at.Add(-about); q.f.From.Before(from) {
		q.f.From = from
	}
	if to := at.Add(about); q.f.To.IsZero() || q.f.To.After(to) {
		q.f.To = to
	}
}

// between cuts off what stands before the first run of days that reaches Begin,
// and after the last one that begins before End.
func (q *query) between(prefix []byte, all stretch) (stretch, error) {
	since := query{txn: q.txn, f: chain.Filter{From: q.f.Begin}}
	parts, err := since.days(prefix, all)
	if err != nil || len(parts) == 0 {
		return stretch{}, err
	}
	all.lo = parts[0].lo
	until := query{txn: q.txn, f: chain.Filter{To: q.f.End}}
	if parts, err = until.days(prefix, all); err != nil || len(parts) == 0 {
		return stretch{}, err
	}
	all.hi = parts[len(parts)-1].hi
	return all, nil
}

// days cuts all down to the runs of days that the filter's times touch.
func (q *query) days(prefix []byte, all stretch) ([]stretch, error) {
	if q.f.From.IsZero() && q.f.To.IsZero() {
		return []stretch{all}, nil
	}
	from, to := day(math.MinInt64), day(math.MaxInt64)
	if !q.f.From.IsZero() {
		from = dayOf(q.f.From)
	}
	if !q.f.To.IsZero() {
		to = dayOf(q.f.To.Add(-1)) // exclusive
	}
	it := q.txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	var parts []stretch
	in, start := false, uint64(0)
	end := func(seq uint64) {
		if lo, hi := max(start, all.lo), min(seq, all.hi); in && lo < hi {
			parts = append(parts, stretch{lo, hi})
		}
	}
	for it.Rewind(); it.Valid(); it.Next() {
		seq, _ := keySeq(it.Item().Key())
		var d day
		if err := it.Item().Value(func(v []byte) (err error) { d, err = parseDay(v); return err }); err != nil {
			return nil, fmt.Errorf("read the days of the log: record %d: %w", seq, err)
		}
		if now := from <= d && d <= to; now != in {
			end(seq)
			in, start = now, seq
		}
	}
	end(math.MaxUint64)
	return parts, nil
}

// slug reads one slug's records, which stand together.
func (q *query) slug(parts []stretch) error {
	for _, p := range parts {
		err := eachOf(q.txn, q.f.Slug, p, func(seq uint64, it *badger.Item) error {
			if isStub(it) {
				return q.ended()
			}
			if err := it.Value(q.take); err != nil {
				return atRecord(seq, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// whole reads the records of all slugs: a piece of a window in the log's order,
// then each slug's records in it together, then in order again.
func (q *query) whole(parts []stretch) error {
	it := q.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(windowPrefix)})
	defer it.Close()
	n := uint64(64) // a small answer must not read much, a large one should
	for _, p := range parts {
		for lo := p.lo; lo < p.hi; n = min(2*n, 4096) {
			hi := min(lo+n, windowOf(lo)+window, p.hi)
			if err := q.piece(it, lo, hi); err != nil {
				return err
			}
			lo = hi
		}
	}
	return nil
}

func (q *query) piece(it *badger.Iterator, lo, hi uint64) error {
	bySlug := make(map[string][]uint64)
	rows := rowsIn(windowOf(lo))
	for it.Seek(rowKey(lo)); it.ValidForPrefix(rows); it.Next() {
		seq, _ := keySeq(it.Item().Key())
		if seq >= hi {
			break
		}
		err := it.Item().Value(func(v []byte) error {
			slug, in, err := q.place(v)
			if in {
				bySlug[slug] = append(bySlug[slug], seq)
			}
			return err
		})
		if err != nil {
			return atRecord(seq, err)
		}
	}
	values := make([][]byte, hi-lo)
	for slug, want := range bySlug {
		it.Seek(recKey(slug, want[0]))
		for _, seq := range want {
			key := recKey(slug, seq)
			for it.Valid() && bytes.Compare(it.Item().Key(), key) < 0 {
				it.Next()
			}
			if !it.Valid() || !bytes.Equal(it.Item().Key(), key) {
				return atRecord(seq, fmt.Errorf("%w: its bytes are not there", ErrDamaged))
			}
			if isStub(it.Item()) {
				continue
			}
			v, err := it.Item().ValueCopy(nil)
			if err != nil {
				return atRecord(seq, err)
			}
			values[seq-lo] = v
		}
	}
	for i, v := range values {
		if v != nil {
			if err := q.take(v); err != nil {
				return atRecord(lo+uint64(i), err)
			}
		}
	}
	return nil
}

// place reads the slug of an entry, and whether its time is wanted.
func (q *query) place(v []byte) (slug string, in bool, err error) {
	if len(v) < 9 || len(v) < 9+int(v[8]) {
		return "", false, errShort
	}
	at := time.UnixMilli(int64(binary.BigEndian.Uint64(v))) //nolint:gosec // as it was put
	in = (q.f.From.IsZero() || !at.Before(q.f.From)) && (q.f.To.IsZero() || at.Before(q.f.To))
	return string(v[9 : 9+int(v[8])]), in, nil
}

// ended returns why nobody wants the answer any more, or nil.
func (q *query) ended() error {
	select {
	case <-q.stop:
		return errClosed
	case <-q.ctx.Done():
		return q.ctx.Err()
	default:
		return nil
	}
}

// take decodes a record and hands it on if the filter selects it.
func (q *query) take(v []byte) error {
	if err := q.ended(); err != nil {
		return err
	}
	if len(v) < chain.SaltSize {
		return errShort
	}
	raw := v[chain.SaltSize:]
	r, err := q.decode(raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if !q.f.Match(r) {
		return nil
	}
	if err := q.fn(raw, r); err != nil {
		return &callerError{err}
	}
	if q.found++; q.found == q.f.Limit {
		return errEnough
	}
	return nil
}

// decode reads of a record what is asked for.
func (q *query) decode(raw []byte) (*chain.Record, error) {
	if !q.head {
		return chain.Decode(raw)
	}
	h, err := chain.DecodeHead(raw)
	return &chain.Record{Seq: h.Seq, TS: h.TS, Kind: h.Kind, ClientSlug: h.Slug, SlugSeq: h.SlugSeq}, err
}

// A callerError is fn's own, which is returned as it is.
type callerError struct{ error }

// atRecord says where a query failed, unless it only ended.
func atRecord(seq uint64, err error) error {
	var own *callerError
	switch {
	case errors.As(err, &own):
		return own.error
	case errors.Is(err, errEnough), errors.Is(err, errClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("read record %d: %w", seq, err)
}

// Usage counts the wire attempts for the slug from one time (inclusive) to
// another (exclusive; zero: until now), the agent's own among them.
func (s *Store) Usage(slug string, from, to time.Time) (int64, error) {
	size, done, err := s.reading(context.Background())
	if err != nil {
		return 0, err
	}
	defer done()
	txn := s.db.NewTransaction(false)
	defer txn.Discard()
	q := &query{txn: txn, f: chain.Filter{From: from, To: to}}
	parts, err := q.days(slugDays(slug), stretch{0, size})
	if err != nil {
		return 0, err
	}
	n := int64(0)
	start, end := wire.At(from).Time, wire.At(to).Time
	for _, p := range parts {
		err := eachOf(txn, slug, p, func(seq uint64, it *badger.Item) error {
			err := it.Value(func(v []byte) error {
				if isStub(it) {
					st, err := parseStub(v)
					if at := time.UnixMilli(st.millis); st.intent && !at.Before(start) && (to.IsZero() || at.Before(end)) {
						n++
					}
					return err
				}
				if len(v) < chain.SaltSize {
					return errShort
				}
				h, err := chain.DecodeHead(v[chain.SaltSize:])
				if err == nil && h.Kind == chain.CallIntent && !h.TS.Before(start) && (to.IsZero() || h.TS.Before(end)) {
					n++
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("count the calls of %s: record %d: %w", strings.TrimSpace(wire.Quote(slug)), seq, err)
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}
