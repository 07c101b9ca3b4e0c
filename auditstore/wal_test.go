package auditstore_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// cutOff is the directory of a log of so many records, each a batch, as a cut of
// the power leaves it when none of them has come to the database.
func cutOff(t testing.TB, n int, change ...func(*auditstore.Config)) string {
	t.Helper()
	dir, r := t.TempDir(), random()
	s := open(t, dir, append(change, func(c *auditstore.Config) { c.SetFillLag(time.Hour) })...)
	for i := range n {
		_, err := s.Append(t.Context(), outcome(intent(slugOf(i), r), r))
		require.NoError(t, err)
	}
	return copyDir(t, dir)
}

// What a crash may leave is no damage, and what it cannot leave is.
func TestThreat03TornWAL(t *testing.T) {
	const n = 20
	type part struct{ start, end int64 } // of a frame; its mark are the last eight bytes
	tests := []struct {
		name string
		do   func(b []byte, last part) []byte
		want int // records; 0: it is damaged
		note string
	}{
		{"whole", func(b []byte, _ part) []byte { return b }, n, "records 0 to 19 had come to the write-ahead log only"},
		{"without the last mark", func(b []byte, p part) []byte { clear(b[p.end-8 : p.end]); return b }, n, ""},
		{"another word for the last mark", func(b []byte, p part) []byte { b[p.end-1] ^= 1; return b }, n, ""},
		{"the last batch half written", func(b []byte, p part) []byte { clear(b[(p.start+p.end)/2:]); return b }, n - 1, "behind record 19 was never acknowledged"},
		{"the last batch half written, the file ends", func(b []byte, p part) []byte { return b[:(p.start+p.end)/2] }, n - 1, "never acknowledged"},
		{"the last batch not begun", func(b []byte, p part) []byte { return b[:p.start] }, n - 1, ""},
		{"what an older segment has left", func(b []byte, p part) []byte { copy(b[p.end:], "junk"); return b }, n, ""},
		{"the last batch with another byte", func(b []byte, p part) []byte { b[p.start+100] ^= 1; return b }, 0, "the batch behind record 19 cannot be read"},
		{"the last batch with another length", func(b []byte, p part) []byte { b[p.start+10] ^= 1; return b }, 0, "the batch behind record 19 cannot be read"},
		{"the last batch with another epoch", func(b []byte, p part) []byte { b[p.start] ^= 1; return b }, 0, "the batch behind record 19 cannot be read"},
		{"a batch before it with another byte", func(b []byte, p part) []byte { b[p.start-20] ^= 1; return b }, 0, "the batch behind record 18 cannot be read"},
		{"the head with another byte", func(b []byte, _ part) []byte { b[20] ^= 1; return b }, 0, "has no head"},
		{"no head", func(b []byte, _ part) []byte { clear(b[:64]); return b }, 0, "has no head"},
	}
	source := cutOff(t, n)
	at, err := auditstore.WALFrames(walOf(t, source))
	require.NoError(t, err)
	require.Len(t, at, n+1)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyDir(t, source)
			name := walOf(t, dir)
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(name, tt.do(b, part{at[n-1], at[n]}), 0o600))
			rep, err := auditstore.Check(t.Context(), dir, nil)
			if tt.want == 0 {
				require.ErrorIs(t, err, auditstore.ErrDamaged)
				require.ErrorContains(t, err, tt.note)
				_, err = auditstore.Open(t.Context(), auditstore.Config{Dir: dir, MinFree: 1})
				require.ErrorIs(t, err, auditstore.ErrDamaged)
				require.ErrorContains(t, err, "hsagentd check")
				return
			}
			require.NoError(t, err)
			require.Empty(t, rep.Damage)
			require.Equal(t, uint64(tt.want), rep.Records)
			for _, note := range []string{tt.note, ""} {
				s := open(t, dir)
				require.Contains(t, strings.Join(s.Notes(), "; "), note)
				require.Len(t, all(t, s, chain.Filter{}), tt.want)
				verified(t, s)
				require.NoError(t, s.Close())
			}
			info, err := os.Stat(walOf(t, dir))
			require.NoError(t, err)
			require.EqualValues(t, len(auditstore.WALHead(0, chain.Hash{})), info.Size(), "nothing but its head")
		})
	}
}

// The write-ahead log goes on in its other file, and then in the first one again.
func TestWALTurns(t *testing.T) {
	dir, r := t.TempDir(), random()
	_, signed := keys(t)
	s := open(t, dir, signed)
	n, long := 0, strings.Repeat("/long", 1600)
	for written := 0; written < 5*auditstore.MaxSegment/2; written += chain.MaxRecord / 2 {
		in := intent(slugOf(n), r)
		in.Path = long
		require.NoError(t, s.AppendLazy(outcome(in, r)))
		n++
	}
	require.NoError(t, s.Flush(t.Context()))
	names, err := filepath.Glob(filepath.Join(dir, "wal.*"))
	require.NoError(t, err)
	require.Len(t, names, 2)
	verified(t, s)
	killed := map[string][]byte{}
	for _, name := range names {
		killed[name], err = os.ReadFile(name)
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	s = open(t, dir, signed)
	require.Empty(t, s.Notes())
	require.Len(t, all(t, s, chain.Filter{}), n)
	require.NoError(t, s.Close())

	// As a kill leaves it: what stands behind the ends of both files is old.
	for name, b := range killed {
		require.NoError(t, os.WriteFile(name, b, 0o600))
	}
	s = open(t, dir, signed)
	require.Empty(t, s.Notes(), "nothing was cut off")
	require.Len(t, all(t, s, chain.Filter{}), n)
	require.NoError(t, s.Close())

	// A loss that is accepted is one of the log that the younger file saw.
	older := slices.MinFunc(names, func(a, b string) int { // records before them
		return bytes.Compare(killed[a][16:24], killed[b][16:24])
	})
	killed[older][chain.MaxRecord] ^= 1
	for name, b := range killed {
		require.NoError(t, os.WriteFile(name, b, 0o600))
	}
	c := auditstore.Config{Dir: dir, MinFree: 1}
	signed(&c)
	accepted(t, c, uint64(n), uint64(n))
}

// Of two files none can go unnoticed that has what the database lacks.
func TestThreat03KilledWithTwoFiles(t *testing.T) {
	source := t.TempDir()
	acked := kill(t, source, 6000)
	names, err := filepath.Glob(filepath.Join(source, "wal.*"))
	require.NoError(t, err)
	require.Len(t, names, 2)
	for i, missing := range []string{"", names[0], names[1]} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			dir := copyDir(t, source)
			if missing != "" {
				require.NoError(t, os.Remove(filepath.Join(dir, filepath.Base(missing))))
			}
			s, err := auditstore.Open(t.Context(), auditstore.Config{Dir: dir, MinFree: 1})
			if missing != "" && err != nil {
				require.ErrorIs(t, err, auditstore.ErrDamaged)
				return
			}
			require.NoError(t, err)
			requireStanding(t, s)
			requireAcked(t, s, acked)
			require.NoError(t, s.Close())
		})
	}
}

// What was pruned is not in the write-ahead log either.
func TestPrunedFromTheWAL(t *testing.T) {
	dir, r := t.TempDir(), random()
	s := open(t, dir)
	const secret = "the reason that must go"
	in := func() bool {
		names, err := filepath.Glob(filepath.Join(dir, "wal.*"))
		require.NoError(t, err)
		for _, name := range names {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			if bytes.Contains(b, []byte(secret)) {
				return true
			}
		}
		return false
	}
	for range 3 {
		call := intent("a", r)
		call.Reason = secret
		_, err := s.Append(t.Context(), call)
		require.NoError(t, err)
		_, err = s.Append(t.Context(), outcome(call, r))
		require.NoError(t, err)
		require.True(t, in())
		_, err = s.Prune(t.Context(), "", time.Now().Add(time.Hour), nil)
		require.NoError(t, err)
		require.False(t, in())
	}
	verified(t, s)
}

// If the database does not take the last batches, the write-ahead log keeps them.
func TestDatabaseFailsAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, func(c *auditstore.Config) { c.SetFillLag(time.Hour) })
	_, err := s.Append(t.Context(), chain.Record{Kind: chain.AgentLocked})
	require.NoError(t, err)
	require.NoError(t, s.BreakDatabase())
	require.ErrorContains(t, s.Close(), "fill the database")
	s = open(t, dir)
	require.Len(t, all(t, s, chain.Filter{Kind: chain.AgentLocked}), 1)
	require.NoError(t, s.Close())
}

// A verification compares with the write-ahead log also when that goes on in its
// other file meanwhile.
func TestVerifyWhileWALTurns(t *testing.T) {
	s, r := open(t, t.TempDir()), random()
	var turned sync.Once
	ok, err := s.ReadWAL(func() {
		turned.Do(func() {
			call := intent("a", r)
			_, err := s.Append(t.Context(), call)
			require.NoError(t, err)
			_, err = s.Append(t.Context(), outcome(call, r))
			require.NoError(t, err)
			_, err = s.Prune(t.Context(), "", time.Now().Add(time.Hour), nil) // which begins the other file
			require.NoError(t, err)
		})
	})
	require.NoError(t, err)
	require.True(t, ok)
}

// A kill while the write-ahead log is renewed may leave its other file, which
// pruning has emptied.
func TestThreat03EmptyWALFile(t *testing.T) {
	dir, r := written(t), random()
	name := walOf(t, dir)
	other := name[:len(name)-1] + string('0'+'1'-name[len(name)-1])
	require.NoError(t, os.WriteFile(other, nil, 0o600))
	s := open(t, dir)
	n, long := 0, strings.Repeat("/long", 1600)
	for written := 0; written < 3*auditstore.MaxSegment/2; written += chain.MaxRecord / 2 {
		in := intent(slugOf(n), r)
		in.Path = long
		require.NoError(t, s.AppendLazy(outcome(in, r)))
		n++
	}
	require.NoError(t, s.Flush(t.Context()))
	require.Len(t, all(t, s, chain.Filter{}), records+n)
	require.NoError(t, s.Close())
}

// Whatever stands in a file of the write-ahead log, reading it ends.
func FuzzWAL(f *testing.F) {
	whole, err := os.ReadFile(walOf(f, cutOff(f, 3)))
	require.NoError(f, err)
	f.Add(bytes.TrimRight(whole, "\x00"))
	f.Add(auditstore.WALHead(7, chain.Hash{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(t.TempDir(), "wal")
		require.NoError(t, os.WriteFile(name, b, 0o600))
		at, err := auditstore.WALFrames(name)
		if err != nil {
			return
		}
		for i := range at[1:] {
			require.Less(t, at[i], at[i+1])
		}
	})
}
