package auditstore_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/stretchr/testify/require"
)

func TestThreat05Shut(t *testing.T) {
	s := open(t, t.TempDir())
	_, err := s.Append(t.Context(), chain.Record{Kind: chain.AgentStarted})
	require.NoError(t, err)
	require.NoError(t, s.BreakWAL())
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 100 {
				_, err := s.Append(t.Context(), chain.Record{Kind: chain.AgentLocked})
				if !isUnavailable(err) {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	wg.Wait()
	require.ErrorIs(t, s.AppendLazy(chain.Record{Kind: chain.AgentLocked}), auditstore.ErrUnavailable)
	require.ErrorIs(t, s.Flush(t.Context()), auditstore.ErrUnavailable)
	require.ErrorIs(t, s.Wait(t.Context(), 0), auditstore.ErrUnavailable)
	require.Contains(t, s.Status().LastError, "wal.0")
	require.Equal(t, uint64(1), s.Status().Durable)
	require.Len(t, all(t, s, chain.Filter{}), 1, "what was durable can be read")
}

func isUnavailable(err error) bool {
	return errors.Is(err, auditstore.ErrUnavailable)
}

func TestThreat20Floor(t *testing.T) {
	for _, name := range []string{"README.md", "docs/operations.md", "docs/threat-model.md", "docs/adr/0007-fail-closed.md"} {
		b, err := os.ReadFile(filepath.Join("..", name))
		require.NoError(t, err)
		require.Contains(t, string(b), fmt.Sprintf(" %d MiB", auditstore.DefaultMinFree>>20), name)
	}
	dir := t.TempDir()
	_, err := auditstore.Open(t.Context(), auditstore.Config{Dir: dir, MinFree: math.MaxUint64 - 1<<20})
	require.ErrorIs(t, err, auditstore.ErrUnavailable)
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, err, "MiB free")

	s := open(t, dir)
	s.SetMinFree(math.MaxUint64 - 1<<20)
	_, err = s.Append(t.Context(), chain.Record{Kind: chain.AgentStarted})
	require.ErrorIs(t, err, auditstore.ErrUnavailable)
	require.NoError(t, s.AppendLazy(chain.Record{Kind: chain.AgentLocked}), "how a call ended is kept until there is room")
	require.ErrorIs(t, s.Flush(t.Context()), auditstore.ErrUnavailable)
	require.Contains(t, s.Status().LastError, dir)

	s.SetMinFree(1)
	rc, err := s.Append(t.Context(), chain.Record{Kind: chain.AgentUnlocked})
	require.NoError(t, err, "the log opens by itself when there is room")
	require.Equal(t, uint64(1), rc.Seq)
	require.Empty(t, s.Status().LastError)
	require.Equal(t, chain.AgentLocked, all(t, s, chain.Filter{})[0].Kind)
}

func TestThreat58Deleted(t *testing.T) {
	tests := []struct {
		name string
		do   func(dir string) error
	}{
		{"all", os.RemoveAll},
		{"the database", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "badger")) }},
		{"the write-ahead log", func(dir string) error { return os.Remove(filepath.Join(dir, "wal.0")) }},
		{"renamed", func(dir string) error { return os.Rename(dir, dir+".old") }},
		{"replaced", func(dir string) error {
			name := filepath.Join(dir, "wal.0")
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if err := os.Remove(name); err != nil {
				return err
			}
			return os.WriteFile(name, b, 0o600)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "log")
			s := open(t, dir)
			_, err := s.Append(t.Context(), chain.Record{Kind: chain.AgentStarted})
			require.NoError(t, err)
			require.NoError(t, tt.do(dir))
			_, err = s.Append(t.Context(), chain.Record{Kind: chain.AgentLocked})
			require.ErrorIs(t, err, auditstore.ErrUnavailable)
			require.Contains(t, s.Status().LastError, dir)
		})
	}
}

func TestThreat59SecondProcess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for range 3 {
		_, err := auditstore.Open(t.Context(), auditstore.Config{Dir: dir, MinFree: 1})
		require.ErrorIs(t, err, auditstore.ErrInUse)
		require.ErrorContains(t, err, strconv.Itoa(os.Getpid()))
		_, err = auditstore.Check(t.Context(), dir, nil)
		require.ErrorIs(t, err, auditstore.ErrInUse)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "AUDIT_TEST_WRITER="+dir)
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "is held by process "+strconv.Itoa(os.Getpid()))
	_, err = s.Append(t.Context(), chain.Record{Kind: chain.AgentStarted})
	require.NoError(t, err, "the first is unharmed")
	fi, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), fi.Mode().Perm())
}

func TestThreat25Interrupted(t *testing.T) {
	dir, r := t.TempDir(), random()
	s := open(t, dir)
	var calls []chain.Record
	for i := range 1500 { // more than a seal covers
		in := intent(slugOf(i), r)
		calls = append(calls, in)
		require.NoError(t, s.AppendLazy(in))
		if i != 3 && i != 1499 {
			require.NoError(t, s.AppendLazy(outcome(in, r)))
		}
	}
	second := calls[5] // its first attempt has an outcome
	second.Attempt = 2
	_, err := s.Append(t.Context(), second)
	require.NoError(t, err)
	require.NoError(t, s.Close())

	for range 2 { // once is enough
		s = open(t, dir)
		got := all(t, s, chain.Filter{Kind: chain.CallInterrupted})
		require.Len(t, got, 3)
		for i, in := range []chain.Record{calls[3], calls[1499], second} {
			g := got[i]
			require.Equal(t, "hsagentd/test", g.Actor)
			require.NotZero(t, g.TS)
			in.Kind, in.Seq, in.SlugSeq, in.TS, in.Actor = chain.CallInterrupted, g.Seq, g.SlugSeq, g.TS, g.Actor
			require.Equal(t, in, g)
		}
		verified(t, s)
		require.NoError(t, s.Close())
	}
}

func TestAppendCancelled(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 {
		_, err := s.Append(ctx, chain.Record{Kind: chain.AgentStarted})
		if err != nil {
			require.ErrorIs(t, err, context.Canceled)
		}
	}
	_, err := s.Append(t.Context(), chain.Record{Kind: chain.AgentLocked})
	require.NoError(t, err)
	verified(t, s)
}

// On a full disk more records may be queued than a batch has, whatever the
// caller of each: whoever waits gets an answer all the same, and what only
// tells of refusals does not fill the memory.
func TestFullDiskWithAFullQueue(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	s.SetMinFree(math.MaxUint64 - 1<<20)
	_, err := s.Append(t.Context(), chain.Record{Kind: chain.CallIntent, ClientSlug: "acme", CallID: "x", Attempt: 1})
	require.ErrorIs(t, err, auditstore.ErrUnavailable)
	denied := chain.Record{Kind: chain.CallDenied, ClientSlug: "acme", Error: "portal_quarantined"}
	kept, dropped := 0, 0
	for range 20_000 {
		if err := s.AppendLazy(denied); err != nil {
			require.ErrorIs(t, err, auditstore.ErrUnavailable)
			dropped++
		} else {
			kept++
		}
	}
	require.Positive(t, dropped, "the queue has no end")
	require.Greater(t, kept, 1000)
	require.NoError(t, s.AppendLazy(chain.Record{Kind: chain.CallOutcome, ClientSlug: "acme", CallID: "last"}), "a call that has left")
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err = s.Append(ctx, chain.Record{Kind: chain.CallIntent, ClientSlug: "acme", CallID: "x", Attempt: 1})
		cancel()
		require.ErrorIs(t, err, auditstore.ErrUnavailable)
	}
	s.SetMinFree(1)
	require.NoError(t, s.Flush(t.Context()))
	got := all(t, s, chain.Filter{})
	require.Len(t, got, kept+1)
	require.Equal(t, "last", got[kept].CallID)
	require.NoError(t, s.AppendLazy(denied), "there is room again")
}
