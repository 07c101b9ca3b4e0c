package auditstore_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
	"github.com/stretchr/testify/require"
)

// exported exports a slug and verifies it, which must succeed.
func exported(t testing.TB, s *auditstore.Store, name string, ks chain.Keys) (*chain.ExportReport, []byte) {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, s.Export(t.Context(), slug(t, name), time.Time{}, time.Time{}, &b))
	rep, err := chain.VerifyExport(bytes.NewReader(b.Bytes()), ks.Verifiers(), nil)
	require.NoError(t, err)
	require.Empty(t, rep.Damage)
	return rep, b.Bytes()
}

func TestExport(t *testing.T) {
	ks, signed := keys(t)
	s := open(t, t.TempDir(), signed)
	grow(t, s, 100)
	want := all(t, s, chain.Filter{Slug: "b"})
	var b bytes.Buffer
	require.NoError(t, s.Export(t.Context(), slug(t, "b"), time.Time{}, time.Time{}, &b))
	var got []chain.Record
	rep, err := chain.VerifyExport(&b, ks.Verifiers(), func(_ []byte, r *chain.Record) error { got = append(got, *r); return nil })
	require.NoError(t, err)
	require.Empty(t, rep.Damage)
	require.Equal(t, want, got)
	require.Equal(t, uint64(len(want)), rep.Records)
	require.Equal(t, uint64(200), rep.Checkpoint.Size)
	require.Equal(t, verified(t, s).Root, rep.Checkpoint.Root)

	rep, text := exported(t, s, "nobody", ks)
	require.Zero(t, rep.Records)
	require.Nil(t, rep.Manifest.FirstSlugSeq)
	require.Equal(t, 1, bytes.Count(text, []byte("\n")))

	other, _ := keys(t)
	rep, err = chain.VerifyExport(bytes.NewReader(text), other.Verifiers(), nil)
	require.NoError(t, err)
	require.Equal(t, chain.BadNote, rep.Damage[0].Kind, "another key has signed it")

	mute := open(t, t.TempDir())
	require.ErrorIs(t, mute.Export(t.Context(), slug(t, "b"), time.Time{}, time.Time{}, &b), auditstore.ErrUnavailable)
}

// A stretch of time is exported whole, also where the clock jumps.
func TestExportStretch(t *testing.T) {
	ks, signed := keys(t)
	s := open(t, t.TempDir(), signed)
	day := func(d int) time.Time { return time.Date(2026, 3, d, 12, 0, 0, 0, time.UTC) }
	for _, d := range []int{1, 2, 3, 9, 4, 3, 5, 6} {
		require.NoError(t, s.AppendLazy(chain.Record{Kind: chain.CallDenied, ClientSlug: "a", TS: wire.At(day(d))}))
		require.NoError(t, s.AppendLazy(chain.Record{Kind: chain.CallDenied, ClientSlug: "b", TS: wire.At(day(d))}))
	}
	require.NoError(t, s.Flush(t.Context()))
	tests := []struct {
		name        string
		from, to    time.Time
		first, last uint64
		none        bool
	}{
		{"all", time.Time{}, time.Time{}, 0, 7, false},
		{"from", day(4), time.Time{}, 3, 7, false},
		{"to", time.Time{}, day(3), 0, 1, false},
		{"with what stands between", day(3), day(4), 2, 5, false},
		{"an end is exclusive", day(5), day(6), 6, 6, false},
		{"nothing", day(20), day(21), 0, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			require.NoError(t, s.Export(t.Context(), slug(t, "a"), tt.from, tt.to, &b))
			rep, err := chain.VerifyExport(&b, ks.Verifiers(), nil)
			require.NoError(t, err)
			require.Empty(t, rep.Damage)
			if tt.none {
				require.Nil(t, rep.Manifest.FirstSlugSeq)
				return
			}
			require.Equal(t, tt.first, *rep.Manifest.FirstSlugSeq)
			require.Equal(t, tt.last, *rep.Manifest.LastSlugSeq)
			require.Equal(t, tt.last-tt.first+1, rep.Records)
		})
	}
}

// An export tells nothing of other clients.
func TestExportTellsNothingOfOthers(t *testing.T) {
	ks, signed := keys(t)
	s := open(t, t.TempDir(), signed)
	for i, name := range []string{"acme-corp", "secret-client", "acme-corp", "secret-client"} {
		_, err := s.Append(t.Context(), chain.Record{Kind: chain.CallDenied, ClientSlug: name, Path: "/of/" + name, PortalID: int64(1 + i%2)})
		require.NoError(t, err)
	}
	_, err := s.Prune(t.Context(), "", time.Now().Add(time.Hour), nil)
	require.NoError(t, err)
	grow(t, s, 2)
	_, err = s.Append(t.Context(), chain.Record{Kind: chain.CallDenied, ClientSlug: "secret-client"})
	require.NoError(t, err)
	_, text := exported(t, s, "acme-corp", ks)
	for _, line := range bytes.Split(text, []byte("\n")) {
		require.NotContains(t, string(line), "secret")
	}
	require.NoError(t, s.Records(t.Context(), chain.Filter{}, func(raw []byte, r *chain.Record) error {
		if r.ClientSlug != "acme-corp" {
			require.NotContains(t, string(text), string(raw))
		}
		return nil
	}))
}

// What the database lacks of a slug is not left out of its export with the log's
// own signature.
func TestThreat22DroppedFromAnExport(t *testing.T) {
	_, signed := keys(t)
	source := written(t, signed)
	for _, seq := range []uint64{1, 31} { // the first one of b, and one in the middle
		dir := copyDir(t, source)
		tamper(t, dir, func(x *badger.Txn) error { return x.Delete(recOf("b", seq)) })
		s := open(t, dir, signed)
		require.ErrorIs(t, s.Export(t.Context(), slug(t, "b"), time.Time{}, time.Time{}, io.Discard), auditstore.ErrDamaged)
		require.NoError(t, s.Export(t.Context(), slug(t, "a"), time.Time{}, time.Time{}, io.Discard))
		require.NoError(t, s.Close())
	}
}

func TestProve(t *testing.T) {
	ks, signed := keys(t)
	s := open(t, t.TempDir(), signed)
	_, err := s.Prove(t.Context(), 0)
	require.ErrorIs(t, err, auditstore.ErrUnavailable)
	for n := range 40 {
		grow(t, s, 1)
		recs := all(t, s, chain.Filter{})
		for seq := range recs {
			p, err := s.Prove(t.Context(), uint64(seq))
			require.NoError(t, err)
			require.Equal(t, uint64(2*n+2), p.Size)
			got, err := p.Verify(ks.Verifiers())
			require.NoError(t, err)
			require.Equal(t, recs[seq], *got)
		}
	}
	_, err = s.Prove(t.Context(), 80)
	require.ErrorIs(t, err, chain.ErrNoRecord)
	good, err := s.Prove(t.Context(), 33)
	require.NoError(t, err)
	for name, spoil := range map[string]func(p *chain.Proof){
		"another seq":        func(p *chain.Proof) { p.Seq++ },
		"another size":       func(p *chain.Proof) { p.Size-- },
		"another leaf":       func(p *chain.Proof) { p.Leaf[0]++ },
		"another hash":       func(p *chain.Proof) { p.Hashes[3][31]++ },
		"a hash less":        func(p *chain.Proof) { p.Hashes = p.Hashes[1:] },
		"another byte":       func(p *chain.Proof) { p.Record[9]++ },
		"another salt":       func(p *chain.Proof) { p.Salt[0]++ },
		"no salt":            func(p *chain.Proof) { p.Salt = nil },
		"another checkpoint": func(p *chain.Proof) { p.Checkpoint = "x" + p.Checkpoint },
		"beyond the end":     func(p *chain.Proof) { p.Seq = 99 },
	} {
		t.Run(name, func(t *testing.T) {
			p := *good
			p.Hashes = append([]chain.Hash(nil), good.Hashes...)
			p.Record, p.Salt = bytes.Clone(good.Record), bytes.Clone(good.Salt)
			spoil(&p)
			_, err := p.Verify(ks.Verifiers())
			require.Error(t, err)
		})
	}
}
