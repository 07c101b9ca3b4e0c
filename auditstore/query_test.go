package auditstore_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
	"github.com/stretchr/testify/require"
)

// jumpy is a log whose clock jumps by minutes, days and ten years.
func jumpy(t *testing.T) (*auditstore.Store, []chain.Record) {
	r := random()
	now := time.Date(2026, 3, 1, 23, 0, 0, 0, time.UTC)
	s := open(t, t.TempDir(), func(c *auditstore.Config) {
		c.Lag = time.Hour
		c.SetNow(func() time.Time { return now })
	})
	jumps := []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour, 10 * 365 * 24 * time.Hour}
	for i := range 1500 {
		if r.IntN(4) == 0 {
			d := jumps[min(r.IntN(12), len(jumps)-1)%len(jumps)]
			if r.IntN(2) == 0 {
				d = -d
			}
			if y := now.Add(d).Year(); y > 1960 && y < 2100 {
				now = now.Add(d)
			}
		}
		rec := intent(slugOf(r.IntN(3)), r)
		rec.ObjectType = []string{"contacts", "deals", ""}[r.IntN(3)]
		rec.Reason = []string{"contract: sync", "consent: newsletter", ""}[r.IntN(3)]
		switch r.IntN(4) {
		case 0:
			rec = outcome(rec, r)
		case 1:
			rec.ClientSlug, rec.Kind, rec.Method, rec.Caller = "", chain.StoreLoaded, "", nil
		}
		require.NoError(t, s.AppendLazy(rec))
		if i%100 == 0 {
			require.NoError(t, s.Flush(t.Context()))
		}
	}
	require.NoError(t, s.Flush(t.Context()))
	return s, all(t, s, chain.Filter{})
}

// Every filter gives what looking at all records gives.
func TestThreat53Queries(t *testing.T) {
	s, recs := jumpy(t)
	require.Len(t, recs, 1500)
	verified(t, s)
	r := rand.New(rand.NewPCG(5, 6))
	found := 0
	for range 400 {
		var f chain.Filter
		one := recs[r.IntN(len(recs))]
		if r.IntN(2) == 0 {
			f.Slug = []string{"a", "b", "c", "nobody"}[r.IntN(4)]
		}
		if r.IntN(2) == 0 {
			f.From = one.TS.Add(time.Duration(r.IntN(3)-1) * time.Hour)
		}
		if r.IntN(2) == 0 {
			f.To = recs[r.IntN(len(recs))].TS.Add(time.Duration(r.IntN(2)) * time.Millisecond)
		}
		if r.IntN(4) == 0 {
			f.To = wire.At(one.TS.Truncate(24 * time.Hour)).Time
		}
		if r.IntN(3) == 0 {
			after := r.Uint64N(1600)
			f.After = &after
		}
		if r.IntN(4) == 0 {
			f.Kind = one.Kind
		}
		if r.IntN(4) == 0 {
			f.Status = "4xx"
		}
		if r.IntN(5) == 0 {
			f.ObjectType = []string{"contacts", "deals"}[r.IntN(2)]
		}
		if r.IntN(5) == 0 {
			f.Reason = []string{"Contract", "consent: news"}[r.IntN(2)]
		}
		if r.IntN(3) == 0 {
			f.Limit = 1 + r.IntN(50)
		}
		var want []chain.Record
		for i := range recs {
			if f.Match(&recs[i]) && (f.Limit == 0 || len(want) < f.Limit) {
				want = append(want, recs[i])
			}
		}
		require.Equal(t, want, all(t, s, f), "%+v", f)
		found += len(want)
	}
	require.Positive(t, found)

	for _, slug := range []string{"a", "b", "nobody"} {
		from, to := recs[r.IntN(len(recs))].TS.Time, recs[r.IntN(len(recs))].TS.Time
		for _, to := range []time.Time{{}, to} {
			want := int64(len(all(t, s, chain.Filter{Slug: slug, Kind: chain.CallIntent, From: from, To: to})))
			n, err := s.Usage(slug, from, to)
			require.NoError(t, err)
			require.Equal(t, want, n)
		}
	}
}

// What begins at a time is all that the log holds from the first record on
// whose day reaches it, whatever the clock did afterwards.
func TestQueryBegin(t *testing.T) {
	s, recs := jumpy(t)
	r := rand.New(rand.NewPCG(7, 8))
	cut := 0
	for range 100 {
		f := chain.Filter{Slug: []string{"a", "b", "c", ""}[r.IntN(4)], Begin: recs[r.IntN(len(recs))].TS.Time}
		day := f.Begin.UTC().Truncate(24 * time.Hour)
		var want []chain.Record
		for i := range recs {
			if f.Match(&recs[i]) && (want != nil || !recs[i].TS.Before(day)) {
				want = append(want, recs[i])
			}
		}
		require.Equal(t, want, all(t, s, f), "%+v", f)
		cut += len(recs) - len(want)
	}
	require.Positive(t, cut)
	require.Empty(t, all(t, s, chain.Filter{Slug: "a", Begin: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)}))
}

// What ends at a time is all that the log holds up to the last record whose day
// begins before it, whatever the clock did until then.
func TestQueryEnd(t *testing.T) {
	s, recs := jumpy(t)
	r := rand.New(rand.NewPCG(9, 8))
	cut := 0
	for range 100 {
		f := chain.Filter{Slug: []string{"a", "b", "c", ""}[r.IntN(4)], End: recs[r.IntN(len(recs))].TS.Time}
		day := f.End.Add(-1).UTC().Truncate(24 * time.Hour)
		var want []chain.Record
		n := 0
		for i := range recs {
			if f.Match(&recs[i]) {
				want = append(want, recs[i])
				if recs[i].TS.Before(day.AddDate(0, 0, 1)) {
					n = len(want)
				}
			}
		}
		cut += len(want) - n
		require.Equal(t, want[:n], append([]chain.Record{}, all(t, s, f)...), "%+v", f)
	}
	require.Positive(t, cut)
	require.Empty(t, all(t, s, chain.Filter{Slug: "a", End: time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)}))
}

func TestQueryByCall(t *testing.T) {
	s := open(t, t.TempDir())
	r := random()
	now := time.Now()
	for i := range 20 {
		in := intent(slugOf(i), r)
		in.TS = wire.At(now.AddDate(0, 0, -i))
		id := uuidAt(in.TS.Time)
		in.CallID = id
		require.NoError(t, s.AppendLazy(in))
		out := outcome(in, r)
		out.TS = in.TS
		require.NoError(t, s.AppendLazy(out))
		require.NoError(t, s.Flush(t.Context()))
		got := all(t, s, chain.Filter{CallID: id})
		require.Len(t, got, 2)
		require.Equal(t, id, got[1].CallID)
	}
	require.Empty(t, all(t, s, chain.Filter{CallID: "not-an-id"}))
}

func TestQueryEnds(t *testing.T) {
	s := open(t, t.TempDir())
	for range 3 {
		require.NoError(t, s.AppendLazy(chain.Record{Kind: chain.CallDenied, ClientSlug: "a"}))
	}
	require.NoError(t, s.Flush(t.Context()))
	mine := errors.New("mine")
	for _, f := range []chain.Filter{{}, {Slug: "a"}} {
		require.Equal(t, mine, s.Records(t.Context(), f, func([]byte, *chain.Record) error { return mine }))
		ctx, cancel := context.WithCancel(t.Context())
		err := s.Records(ctx, f, func(raw []byte, r *chain.Record) error {
			cancel()
			b, err := r.Encode()
			require.NoError(t, err)
			require.True(t, bytes.Equal(b, raw))
			return nil
		})
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Records(t.Context(), chain.Filter{}, nil), auditstore.ErrUnavailable)
	_, err := s.Usage("a", time.Time{}, time.Time{})
	require.ErrorIs(t, err, auditstore.ErrUnavailable)
	_, err = s.Verify(t.Context(), nil)
	require.ErrorIs(t, err, auditstore.ErrUnavailable)
}

// uuidAt is a UUIDv7 of the time.
func uuidAt(at time.Time) string {
	id := []byte(newCallID(random()))
	hex := []byte("0123456789abcdef")
	ms := at.UnixMilli()
	for i, n := 12, 0; i >= 0; i-- {
		if id[i] == '-' {
			continue
		}
		id[i] = hex[ms>>(4*n)&15]
		n++
	}
	return string(id)
}

// A slug's records lie in windows of the log, some without any of them.
func TestSlugAcrossWindows(t *testing.T) {
	dir, r := t.TempDir(), random()
	s := open(t, dir, func(c *auditstore.Config) { c.Lag = time.Minute })
	const others = 2*16384 + 100
	quiet := func(s *auditstore.Store) chain.Receipt {
		rc, err := s.Append(t.Context(), intent("quiet", r))
		require.NoError(t, err)
		return rc
	}
	receipts := []chain.Receipt{quiet(s), quiet(s)}
	for i := range others {
		require.NoError(t, s.AppendLazy(outcome(intent("other", r), r)))
		if i%500 == 0 {
			require.NoError(t, s.Flush(t.Context()))
		}
	}
	require.NoError(t, s.Close())

	s = open(t, dir)
	receipts = append(receipts, quiet(s))
	require.Equal(t, uint64(others+4), receipts[2].Seq, "behind what the start recorded of the first two")
	require.NoError(t, s.Flush(t.Context()))
	var seqs, numbers []uint64
	require.NoError(t, s.Records(t.Context(), chain.Filter{Slug: "quiet"}, func(_ []byte, rec *chain.Record) error {
		seqs, numbers = append(seqs, rec.Seq), append(numbers, *rec.SlugSeq)
		return nil
	}))
	require.Equal(t, []uint64{0, 1, others + 2, others + 3, others + 4}, seqs)
	require.Equal(t, []uint64{0, 1, 2, 3, 4}, numbers)
	n, err := s.Usage("quiet", time.Time{}, time.Time{})
	require.NoError(t, err)
	require.Equal(t, int64(3), n)
	require.Len(t, all(t, s, chain.Filter{Slug: "other"}), others)
	for _, f := range []chain.Filter{{Slug: "quiet"}, {Slug: "quiet", Kind: chain.CallIntent}, {Slug: "other", Method: "GET", Limit: 5}, {Limit: 40_000}} {
		want := all(t, s, f)
		require.NoError(t, s.Lines(t.Context(), f, func(seq uint64, raw []byte) error {
			line, err := want[0].Encode()
			require.NoError(t, err)
			require.Equal(t, want[0].Seq, seq)
			require.Equal(t, string(line), string(raw))
			want = want[1:]
			return nil
		}))
		require.Empty(t, want)
	}
	require.Len(t, all(t, s, chain.Filter{}), others+5)
	verified(t, s)
}
