package auditstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
	"github.com/stretchr/testify/require"
)

func slug(t testing.TB, s string) wire.Slug {
	t.Helper()
	out, err := wire.ParseSlug(s)
	require.NoError(t, err)
	return out
}

// versions counts the values in the database's files, old ones too, that have
// the text.
func versions(t testing.TB, dir, text string) (n int) {
	t.Helper()
	db, err := badger.Open(auditstore.BadgerOptions(filepath.Join(dir, "badger")).WithReadOnly(true))
	require.NoError(t, err)
	require.NoError(t, db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{AllVersions: true})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			require.NoError(t, it.Item().Value(func(v []byte) error {
				n += bytes.Count(v, []byte(text))
				return nil
			}))
		}
		return nil
	}))
	require.NoError(t, db.Close())
	return n
}

// Pruning goes on where it ended, and begins anew when a hold is lifted.
func TestPruneGoesOn(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	clock := func(c *auditstore.Config) { c.SetNow(func() time.Time { return now }) }
	hold := func(c *auditstore.Config) { c.Hold = []string{"c"} }
	s := open(t, dir, clock, hold)
	prune := func(want uint64) {
		t.Helper()
		n, err := s.Prune(t.Context(), "", now.Add(-time.Hour), nil)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	grow(t, s, 30) // 20 records each of a, b and c
	now = now.Add(30 * time.Minute)
	grow(t, s, 3)
	now = now.Add(time.Hour)
	prune(40)
	prune(0)
	now = now.Add(time.Hour)
	prune(4)
	require.NoError(t, s.Close())

	now = now.Add(48 * time.Hour)
	s = open(t, dir, clock)
	prune(22)
	grow(t, s, 3)
	now = now.Add(48 * time.Hour)
	prune(6)
	r := verified(t, s)
	require.Equal(t, uint64(72), r.PrunedRecords)
	require.Equal(t, r.Records-72, uint64(len(all(t, s, chain.Filter{}))))
}

func TestPrune(t *testing.T) {
	ks, signed := keys(t)
	dir := t.TempDir()
	hold := func(c *auditstore.Config) { c.Hold = []string{"c"} }
	s := open(t, dir, signed, hold)
	grow(t, s, 30) // 20 records each of a, b and c
	_, err := s.Append(t.Context(), intent("a", random()))
	require.NoError(t, err, "a call in flight")
	whole := verified(t, s)
	later := time.Now().Add(time.Hour)

	_, err = s.Prune(t.Context(), "c", later, nil)
	require.ErrorIs(t, err, chain.ErrHeld)
	n, err := s.Prune(t.Context(), "", time.Now().Add(-time.Hour), nil)
	require.NoError(t, err)
	require.Zero(t, n, "nothing is so old")
	require.Equal(t, uint64(61), s.Status().Size, "and nothing is recorded")

	caller := &chain.Caller{UID: 7, User: "admin"}
	n, err = s.Prune(t.Context(), "a", later, caller)
	require.NoError(t, err)
	require.Equal(t, uint64(20), n)
	require.Len(t, all(t, s, chain.Filter{Slug: "a"}), 2, "the call in flight and what says what was pruned")
	require.Len(t, all(t, s, chain.Filter{}), 42)
	used, err := s.Usage("a", time.Now().Add(-time.Hour), time.Time{})
	require.NoError(t, err)
	require.Equal(t, int64(11), used, "what was used today is still known")
	say := all(t, s, chain.Filter{Kind: chain.AuditPruned})
	require.Len(t, say, 1)
	require.Equal(t, caller, say[0].Caller)
	require.Equal(t, uint64(21), *say[0].SlugSeq)
	p, err := chain.ParsePruning(&say[0])
	require.NoError(t, err)
	require.Equal(t, chain.Range{First: 0, Last: 1}, p.Seqs[0])
	require.Len(t, p.Seqs, 10)

	// All that is left, but for the hold, the call in flight and the records
	// about the log.
	n, err = s.Prune(t.Context(), "", later, nil)
	require.NoError(t, err)
	require.Equal(t, uint64(20), n)
	require.Len(t, all(t, s, chain.Filter{Slug: "c"}), 20)
	require.Empty(t, all(t, s, chain.Filter{Slug: "b"}))
	n, err = s.Prune(t.Context(), "", later, nil)
	require.NoError(t, err)
	require.Zero(t, n, "twice is once")
	r := verified(t, s)
	require.Equal(t, uint64(40), r.PrunedRecords)
	require.Equal(t, chain.Range{First: 0, Last: 3}, r.Pruned[0])
	require.Equal(t, uint64(63), r.Records)

	// The tree is the one it was.
	proof, err := s.Prove(t.Context(), 2)
	require.NoError(t, err)
	rec, err := proof.Verify(ks.Verifiers())
	require.NoError(t, err)
	require.Nil(t, rec)
	require.Empty(t, proof.Record)
	require.NotEqual(t, whole.Root, r.Root)

	// A slug without any record left goes on counting, after a start too.
	require.NoError(t, s.Close())
	s = open(t, dir, signed, hold)
	require.Equal(t, []string{"1 calls were interrupted and may have left"}, s.Notes())
	grow(t, s, 2)
	b := all(t, s, chain.Filter{Slug: "b"})
	require.Len(t, b, 2)
	require.Equal(t, uint64(20), *b[0].SlugSeq)
	used, err = s.Usage("b", time.Now().Add(-time.Hour), time.Time{})
	require.NoError(t, err)
	require.Equal(t, int64(11), used)
	rep, _ := exported(t, s, "b", ks)
	require.Equal(t, uint64(20), rep.PrunedRecords)
	require.Equal(t, uint64(2), rep.Records)
	require.NoError(t, s.Close())
	check, err := auditstore.Check(t.Context(), dir, nil)
	require.NoError(t, err)
	require.Empty(t, check.Damage)
}

// What was pruned is gone from the database's files, old versions and all.
func TestPrunedBytesAreGone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	in := intent("a", random())
	in.Reason = "erase me"
	require.NoError(t, s.AppendLazy(in))
	out := outcome(in, random())
	require.NoError(t, s.AppendLazy(out))
	grow(t, s, 5)
	require.NoError(t, s.Close())
	require.Equal(t, 2, versions(t, dir, "erase me"))
	s = open(t, dir)
	_, err := s.Prune(t.Context(), "a", time.Now().Add(time.Hour), nil)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	s = open(t, dir) // compacts what was in the log files before
	require.NoError(t, s.Close())
	require.Zero(t, versions(t, dir, "erase me"))
}

// A crash between the record of a pruning and the last erasure: the next start
// finishes it.
func TestPruningIsFinished(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	grow(t, s, 10)
	p := chain.Pruning{Before: time.Now().Add(time.Hour), Seqs: []chain.Range{{First: 0, Last: 7}}}
	_, err := s.Append(t.Context(), chain.Record{Kind: chain.AuditPruned, Reason: p.Reason()})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	r, err := auditstore.Check(t.Context(), dir, nil)
	require.NoError(t, err)
	require.Empty(t, r.Damage, "still there is no damage")
	s = open(t, dir)
	require.Equal(t, uint64(8), verified(t, s).PrunedRecords)
	require.Equal(t, uint64(8), all(t, s, chain.Filter{Limit: 1})[0].Seq)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Prune(ctx, "", time.Now().Add(time.Hour), nil)
	require.ErrorIs(t, err, context.Canceled)
}

// Bytes that nobody has pruned cannot pass for pruned ones.
func TestThreat22FalsePruning(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	grow(t, s, 30)
	_, err := s.Prune(t.Context(), "a", time.Now().Add(time.Hour), nil)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	tests := []struct {
		name string
		do   func(txn *badger.Txn) error
		seq  uint64
	}{
		{"a stub where a record was", func(x *badger.Txn) error {
			v, err := get(x, recOf("a", 6))
			if err != nil {
				return err
			}
			return x.SetEntry(badger.NewEntry(recOf("b", 8), v).WithMeta(1))
		}, 8},
		{"a stub deleted", func(x *badger.Txn) error { return x.Delete(recOf("a", 6)) }, 6},
		{"a stub that is none", func(x *badger.Txn) error { return change(x, recOf("a", 6), flip(3)) }, 6},
		{"the statement deleted", func(x *badger.Txn) error { return x.Delete(recOf("a", 60)) }, 0},
		{"the statement unlisted", func(x *badger.Txn) error { return x.Delete(key("x/", 60)) }, 60},
		{"a statement listed that is none", func(x *badger.Txn) error { return x.Set(key("x/", 8), nil) }, 8},
		{"the statement changed", func(x *badger.Txn) error { return change(x, recOf("a", 60), flip(-20)) }, 60},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			to := copyDir(t, dir)
			tamper(t, to, tt.do)
			r, err := auditstore.Check(t.Context(), to, nil)
			require.NoError(t, err)
			require.NotEmpty(t, r.Damage)
			found := false
			for _, d := range r.Damage {
				found = found || d.Seq == tt.seq
			}
			require.True(t, found, "want %d in %v", tt.seq, r.Damage)
		})
	}
}

// What nobody has pruned is signed as pruned for nobody.
func TestThreat22FalsePruningIsNotSigned(t *testing.T) {
	ks, signed := keys(t)
	dir := t.TempDir()
	s := open(t, dir, signed)
	grow(t, s, 30)
	_, err := s.Prune(t.Context(), "a", time.Now().Add(time.Hour), nil)
	require.NoError(t, err)
	exported(t, s, "a", ks)
	p, err := s.Prove(t.Context(), 6)
	require.NoError(t, err)
	require.Empty(t, p.Record)
	require.NoError(t, s.Close())
	stub := func(x *badger.Txn) error {
		v, err := get(x, recOf("a", 6))
		if err != nil {
			return err
		}
		return x.SetEntry(badger.NewEntry(recOf("b", 8), v).WithMeta(1))
	}
	// A statement in the place of record 20, which its hash there fits.
	say := chain.Pruning{Before: time.Now(), Seqs: []chain.Range{{First: 8, Last: 8}}}
	b, err := (&chain.Record{Seq: 20, Kind: chain.AuditPruned, ClientSlug: "b", Reason: say.Reason()}).Encode()
	require.NoError(t, err)
	salt := make([]byte, chain.SaltSize)
	leaf := chain.Leaf(salt, b)
	statement := func(x *badger.Txn) error {
		return errors.Join(
			x.Set(recOf("b", 20), append(salt, b...)),
			x.Set(key("x/", 20), nil),
			change(x, seqKey(20), func(v []byte) []byte { copy(v[8+1+len("b"):], leaf[:]); return v }))
	}
	for _, do := range []func(x *badger.Txn) error{stub, statement} {
		tamper(t, dir, do)
		s = open(t, dir, signed)
		require.ErrorIs(t, s.Export(t.Context(), slug(t, "b"), time.Time{}, time.Time{}, io.Discard), auditstore.ErrDamaged)
		_, err = s.Prove(t.Context(), 8)
		require.ErrorIs(t, err, auditstore.ErrDamaged)
		require.NoError(t, s.Close())
	}
}
