package auditstore_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/stretchr/testify/require"
)

// history makes a log with a sink elsewhere, and copies of its directory from
// different times, the last of which is the log as it is.
func history(t *testing.T) (copies []string, sink string, ks chain.Keys) {
	ks, signed := keys(t)
	dir := t.TempDir()
	sink = filepath.Join(t.TempDir(), "elsewhere")
	for range 4 {
		s := open(t, dir, signed, sinkTo(auditstore.FileSink(sink)))
		grow(t, s, 10)
		require.NoError(t, s.Close())
		copies = append(copies, copyDir(t, dir))
	}
	return copies, sink, ks
}

// An older copy of the whole directory is as sound as a log can be. Only what
// is kept elsewhere tells.
func TestThreat23RolledBack(t *testing.T) {
	copies, sink, ks := history(t)
	forked := copyDir(t, copies[1])
	s := open(t, forked, signedBy(ks))
	r := random()
	for i := range 60 { // longer than the true one, and another
		_, err := s.Append(t.Context(), outcome(intent(slugOf(i+1), r), r))
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	tests := []struct {
		name string
		dir  string
		kept uint64
	}{
		{"by one start", copies[2], 60},
		{"by two", copies[1], 40},
		{"by three", copies[0], 20},
		{"forked", forked, 100},
		{"gone", filepath.Join(t.TempDir(), "audit"), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			elsewhere := filepath.Join(t.TempDir(), "elsewhere")
			b, err := os.ReadFile(sink)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(elsewhere, b, 0o600))
			dir := tt.dir
			if tt.kept > 0 {
				dir = copyDir(t, tt.dir)
				rep, err := auditstore.Check(t.Context(), dir, nil)
				require.NoError(t, err)
				require.Empty(t, rep.Damage, "in itself it is sound")
			}
			c := auditstore.Config{Dir: dir, MinFree: 1, Sink: auditstore.FileSink(elsewhere)}
			signedBy(ks)(&c)
			_, err = auditstore.Open(t.Context(), c)
			require.ErrorIs(t, err, auditstore.ErrLoss)
			require.ErrorContains(t, err, "hsagentd accept-loss")
			require.ErrorContains(t, err, "80")
			if tt.kept > 0 {
				rep, err := auditstore.CheckSigned(t.Context(), c)
				require.NoError(t, err)
				require.NotEmpty(t, rep.Damage)
			}

			gap, err := auditstore.AcceptLoss(t.Context(), c)
			require.NoError(t, err)
			require.Equal(t, tt.kept, gap.Kept)
			require.Equal(t, tt.kept, gap.Seq)
			require.Equal(t, uint64(80), gap.Lost)
			s, err := auditstore.Open(t.Context(), c)
			require.NoError(t, err)
			grow(t, s, 30)
			require.Equal(t, []chain.Gap{*gap}, verified(t, s).Gaps)
			_, err = s.Checkpoint(t.Context())
			require.NoError(t, err)
			require.NoError(t, s.Close())
			rep, err := auditstore.CheckSigned(t.Context(), c)
			require.NoError(t, err)
			require.Empty(t, rep.Damage)
			require.Equal(t, []chain.Gap{*gap}, rep.Gaps)
			_, err = auditstore.AcceptLoss(t.Context(), c)
			require.ErrorIs(t, err, auditstore.ErrNoLoss)
		})
	}
}

// accepted accepts the loss of a log that is refused.
func accepted(t *testing.T, c auditstore.Config, kept, lost uint64) *chain.Gap {
	t.Helper()
	_, err := auditstore.Open(t.Context(), c)
	require.ErrorIs(t, err, auditstore.ErrDamaged)
	gap, err := auditstore.AcceptLoss(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, kept, gap.Kept)
	require.Equal(t, lost, gap.Lost)
	return gap
}

// A log that lacks what its own write-ahead log saw, or the write-ahead log
// itself, can go on, if the rest is sound.
func TestAcceptShorterLog(t *testing.T) {
	drop := func(from int) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			tamper(t, dir, func(x *badger.Txn) error {
				for seq := from; seq < records; seq++ {
					if err := x.Delete(seqKey(seq)); err != nil {
						return err
					}
					if err := x.Delete(recKey(seq)); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	wal := func(do func(b []byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			name := walOf(t, dir)
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(name, do(b), 0o600))
		}
	}
	tests := []struct {
		name string
		do   func(t *testing.T, dir string)
		kept uint64
		fail bool
	}{
		{"the write-ahead log", func(t *testing.T, dir string) { require.NoError(t, os.Remove(walOf(t, dir))) }, records, false},
		{"the write-ahead log's head", wal(func(b []byte) []byte { b[20] ^= 1; return b }), records, false},
		{"all of the write-ahead log", wal(func([]byte) []byte { return nil }), records, false},
		{"the last two", drop(records - 2), records - 2, false},
		{"half", drop(30), 30, false},
		{"everything", drop(3), 3, false},
		{"the database", func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(filepath.Join(dir, "badger"))) }, 0, false},
		{"a record in the middle", func(t *testing.T, dir string) {
			tamper(t, dir, func(x *badger.Txn) error { return x.Delete(recKey(31)) })
			drop(50)(t, dir)
		}, 0, true},
	}
	ks, signed := keys(t)
	source := written(t, signed)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyDir(t, source)
			tt.do(t, dir)
			c := auditstore.Config{Dir: dir, MinFree: 1}
			signed(&c)
			if tt.fail {
				_, err := auditstore.AcceptLoss(t.Context(), c)
				require.ErrorIs(t, err, auditstore.ErrDamaged)
				require.ErrorContains(t, err, "record 31: missing")
				return
			}
			gap := accepted(t, c, tt.kept, records)
			s, err := auditstore.Open(t.Context(), c)
			require.NoError(t, err)
			grow(t, s, 100)
			verified(t, s)
			require.NoError(t, s.Close())
			rep, err := auditstore.CheckSigned(t.Context(), c)
			require.NoError(t, err)
			require.Empty(t, rep.Damage)
			require.Equal(t, []chain.Gap{*gap}, rep.Gaps)
			_, err = auditstore.AcceptLoss(t.Context(), c)
			require.ErrorIs(t, err, auditstore.ErrNoLoss)
		})
	}
	require.Len(t, ks, 1)
}

// What the write-ahead log has before a batch that cannot be read any more comes
// to the database, unless that has more. Nobody knows what stood behind: the gap
// tells how the log stands.
func TestAcceptDamagedWAL(t *testing.T) {
	const n = 20
	_, signed := keys(t)
	source := cutOff(t, n, signed)
	name := filepath.Base(walOf(t, source))
	at, err := auditstore.WALFrames(filepath.Join(source, name))
	require.NoError(t, err)
	for _, filled := range []bool{false, true} {
		for _, broken := range []int{0, 2, n / 2, n - 1} {
			dir, kept := copyDir(t, source), broken
			b, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			b[at[broken]+100] ^= 1
			if filled {
				require.NoError(t, open(t, dir, signed).Close())
				require.NoError(t, os.Remove(walOf(t, dir)))
				kept = n
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
			c := auditstore.Config{Dir: dir, MinFree: 1}
			signed(&c)
			gap := accepted(t, c, uint64(kept), uint64(kept))
			s := open(t, dir, signed)
			require.Len(t, all(t, s, chain.Filter{Kind: chain.CallOutcome}), kept)
			require.Equal(t, []chain.Gap{*gap}, verified(t, s).Gaps)
			require.NoError(t, s.Close())
		}
	}
}

// A log that is not signed can lose records too.
func TestAcceptLossWithoutKeys(t *testing.T) {
	dir := written(t)
	require.NoError(t, os.Remove(walOf(t, dir)))
	gap := accepted(t, auditstore.Config{Dir: dir, MinFree: 1}, records, records)
	s := open(t, dir)
	require.Equal(t, []chain.Gap{*gap}, verified(t, s).Gaps)
	require.NoError(t, s.Close())
}

// Wherever accepting a loss is broken off, the next start refuses the log, or
// the gap is recorded.
func TestThreat23AcceptLossBrokenOff(t *testing.T) {
	_, signed := keys(t)
	dir := written(t, signed)
	require.NoError(t, os.Remove(walOf(t, dir)))
	var copies []string
	c := auditstore.Config{Dir: dir, MinFree: 1}
	signed(&c)
	c.SetNow(func() time.Time {
		copies = append(copies, copyDir(t, dir)) // as a kill leaves it
		return time.Now()
	})
	_, err := auditstore.AcceptLoss(t.Context(), c)
	require.NoError(t, err)
	require.NotEmpty(t, copies)
	for _, dir := range copies {
		c := auditstore.Config{Dir: dir, MinFree: 1}
		signed(&c)
		s, err := auditstore.Open(t.Context(), c)
		if err != nil {
			accepted(t, c, records, records)
			s = open(t, dir, signed)
		}
		require.NotEmpty(t, verified(t, s).Gaps)
		require.NoError(t, s.Close())
	}
}

// Whoever can write to the directory can write that a loss was accepted. What
// the sink has kept last shows it all the same.
func TestThreat23ForgedGap(t *testing.T) {
	copies, sink, ks := history(t)
	elsewhere := func(dir string) auditstore.Config {
		c := auditstore.Config{Dir: dir, MinFree: 1, Sink: auditstore.FileSink(sink)}
		signedBy(ks)(&c)
		return c
	}
	forged := t.TempDir()
	s := open(t, forged)
	grow(t, s, 50)
	gap := chain.Gap{Kept: 100, Lost: 1 << 40}
	_, err := s.Append(t.Context(), chain.Record{Kind: chain.AuditGap, Reason: gap.Reason()})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	rep, err := auditstore.CheckSigned(t.Context(), elsewhere(copies[3]))
	require.NoError(t, err)
	require.Empty(t, rep.Damage)
	rep, err = auditstore.CheckSigned(t.Context(), elsewhere(forged))
	require.NoError(t, err)
	require.NotEmpty(t, rep.Damage)
}

// What was signed after a loss was accepted counts, be it less than what was
// lost.
func TestThreat23ForkedAfterALoss(t *testing.T) {
	copies, sink, ks := history(t)
	dir := copies[1]
	c := auditstore.Config{Dir: dir, MinFree: 1, Sink: auditstore.FileSink(sink)}
	signedBy(ks)(&c)
	accepted(t, c, 40, 80)
	forked := copyDir(t, dir)
	s, err := auditstore.Open(t.Context(), c)
	require.NoError(t, err)
	grow(t, s, 5)
	require.NoError(t, s.Close())
	s = open(t, forked) // without the key
	grow(t, s, 5)
	require.NoError(t, s.Close())

	damage := func(c auditstore.Config) (kinds []chain.DamageKind) {
		rep, err := auditstore.CheckSigned(t.Context(), c)
		require.NoError(t, err)
		for _, d := range rep.Damage {
			kinds = append(kinds, d.Kind)
		}
		return kinds
	}
	require.Empty(t, damage(c))
	c.Dir = forked
	require.Contains(t, damage(c), chain.BadRoot, "the sink")
	b, err := os.ReadFile(filepath.Join(dir, "checkpoints"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(forked, "checkpoints"), b, 0o600))
	c.Sink = nil
	require.Contains(t, damage(c), chain.BadRoot, "the file beside the database")
}
