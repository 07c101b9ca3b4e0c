package auditstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/stretchr/testify/require"
)

// keys makes a key, and what gives it to a log.
func keys(t testing.TB) (chain.Keys, func(*auditstore.Config)) {
	t.Helper()
	k, err := chain.GenerateKey(chain.NewOrigin())
	require.NoError(t, err)
	ks := chain.Keys{k}
	return ks, signedBy(ks)
}

func signedBy(ks chain.Keys) func(*auditstore.Config) {
	return func(c *auditstore.Config) {
		c.Keys = func(string) (chain.Keys, error) { return ks, nil }
	}
}

func sinkTo(s auditstore.Sink) func(*auditstore.Config) {
	return func(c *auditstore.Config) { c.Sink = s }
}

// grow appends n records.
func grow(t testing.TB, s *auditstore.Store, n int) {
	t.Helper()
	r := rand.New(rand.NewPCG(s.Status().Size, 7))
	for i := range n {
		in := intent(slugOf(i), r)
		require.NoError(t, s.AppendLazy(in))
		require.NoError(t, s.AppendLazy(outcome(in, r)))
	}
	require.NoError(t, s.Flush(t.Context()))
}

// checkpointsIn lists the checkpoints in a file; each must be signed.
func checkpointsIn(t testing.TB, file string, ks chain.Keys) []uint64 {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var sizes []uint64
	for note := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n\n"), "\n\nhsagentd/") {
		note = "hsagentd/" + strings.TrimPrefix(note, "hsagentd/")
		c, err := chain.OpenCheckpoint(strings.TrimRight(note, "\n")+"\n", ks.Verifiers())
		require.NoError(t, err)
		require.Equal(t, ks[0].Name(), c.Origin)
		sizes = append(sizes, c.Size)
	}
	return sizes
}

func TestThreat22Checkpoints(t *testing.T) {
	ks, signed := keys(t)
	dir := t.TempDir()
	sink := filepath.Join(t.TempDir(), "elsewhere")
	s := open(t, dir, signed, sinkTo(auditstore.FileSink(sink)))
	_, err := s.Checkpoint(t.Context())
	require.ErrorIs(t, err, auditstore.ErrUnavailable, "there is nothing to sign yet")
	require.Equal(t, ks[0].Verifier(), s.Key())

	grow(t, s, 1)
	note, err := s.Checkpoint(t.Context())
	require.NoError(t, err)
	c, err := chain.OpenCheckpoint(note, ks.Verifiers())
	require.NoError(t, err)
	require.Equal(t, chain.Checkpoint{Origin: ks[0].Name(), Size: 2, Root: verified(t, s).Root}, *c)
	again, err := s.Checkpoint(t.Context())
	require.NoError(t, err)
	require.Equal(t, note, again, "nothing new, nothing to sign")

	for range 5 { // a checkpoint is due every thousand records
		grow(t, s, 250)
	}
	require.NoError(t, s.Close())
	sizes := checkpointsIn(t, filepath.Join(dir, "checkpoints"), ks)
	require.GreaterOrEqual(t, len(sizes), 4, "%v", sizes)
	require.Equal(t, uint64(2), sizes[0])
	require.Equal(t, uint64(2502), sizes[len(sizes)-1], "closing signs what is left")
	for i := 1; i < len(sizes); i++ {
		require.LessOrEqual(t, sizes[i]-sizes[i-1], uint64(1000+512), "%v", sizes)
	}
	elsewhere := checkpointsIn(t, sink, ks)
	require.Equal(t, uint64(2502), elsewhere[len(elsewhere)-1])

	s = open(t, dir, signed, sinkTo(auditstore.FileSink(sink)))
	require.Empty(t, s.Notes())
	note, err = s.Checkpoint(t.Context())
	require.NoError(t, err)
	require.Contains(t, note, "\n2502\n")
	require.NoError(t, s.Close())
	require.Equal(t, sizes, checkpointsIn(t, filepath.Join(dir, "checkpoints"), ks), "nothing new, nothing written")
}

// A checkpoint comes a minute after the last record at the latest.
func TestCheckpointAfterAMinute(t *testing.T) {
	dir := t.TempDir()
	_, signed := keys(t)
	s := open(t, dir, signed)
	grow(t, s, 1)
	require.NoFileExists(t, filepath.Join(dir, "checkpoints"))
	s.SealNow()
	require.NoError(t, s.Flush(t.Context()))
	require.FileExists(t, filepath.Join(dir, "checkpoints"))
}

func TestKeysChange(t *testing.T) {
	dir := t.TempDir()
	before, signed := keys(t)
	s := open(t, dir, signed)
	grow(t, s, 1)
	require.NoError(t, s.Close())

	// The new key comes with another log's name, and signs under this one's.
	next, _ := keys(t)
	both := append(next, before...)
	s = open(t, dir, signedBy(both))
	require.Len(t, s.Notes(), 1)
	recs := all(t, s, chain.Filter{Kind: chain.AuditKey})
	require.Len(t, recs, 1)
	named, err := chain.ParseVerifiers(recs[0].Reason)
	require.NoError(t, err)
	require.Equal(t, chain.Verifiers{s.Key(), before[0].Verifier()}, named)
	note, err := s.Checkpoint(t.Context())
	require.NoError(t, err)
	for _, v := range named {
		c, err := chain.OpenCheckpoint(note, chain.Verifiers{v})
		require.NoError(t, err, "both sign for a time")
		require.Equal(t, before[0].Name(), c.Origin)
	}
	require.NoError(t, s.Close())

	s = open(t, dir, signedBy(both))
	require.Empty(t, s.Notes(), "it is recorded once")
	require.NoError(t, s.Close())
	s = open(t, dir, signedBy(next))
	require.Len(t, s.Notes(), 1)
	note, err = s.Checkpoint(t.Context())
	require.NoError(t, err)
	_, err = chain.OpenCheckpoint(note, before.Verifiers())
	require.Error(t, err)
	require.NoError(t, s.Close())
	r, err := auditstore.Check(t.Context(), dir, nil)
	require.NoError(t, err)
	require.Empty(t, r.Damage)
}

// A brokenSink fails until it is mended.
type brokenSink struct {
	mu    sync.Mutex
	err   error
	notes []string
	put   chan struct{}
}

func (b *brokenSink) Last() (string, error) { return "", nil }
func (b *brokenSink) String() string        { return "a broken sink" }
func (b *brokenSink) Put(note string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() { b.put <- struct{}{} }()
	if b.err == nil {
		b.notes = append(b.notes, note)
	}
	return b.err
}

func TestSinkFails(t *testing.T) {
	_, signed := keys(t)
	b := &brokenSink{err: errors.New("no such wire"), put: make(chan struct{}, 100)}
	s := open(t, t.TempDir(), signed, sinkTo(b))
	grow(t, s, 1)
	_, err := s.Checkpoint(t.Context())
	require.NoError(t, err, "the log goes on")
	<-b.put
	require.Eventually(t, func() bool { return s.Status().SinkError == "no such wire" }, time.Minute, time.Millisecond)
	b.mu.Lock()
	b.err = nil
	b.mu.Unlock()
	grow(t, s, 1)
	note, err := s.Checkpoint(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.Status().SinkError == "" }, time.Minute, time.Millisecond)
	require.NoError(t, s.Close())
	require.Contains(t, b.notes, note)

	_, err = auditstore.Open(t.Context(), auditstore.Config{Dir: t.TempDir(), MinFree: 1, Sink: auditstore.FileSink("/nowhere/at/all"),
		Keys: func(string) (chain.Keys, error) { ks, _ := keys(t); return ks, nil }})
	require.ErrorContains(t, err, "/nowhere/at/all")
}

// What a crash leaves of the last checkpoint in a file is not one, and the
// next one can be read.
func TestTornCheckpoint(t *testing.T) {
	ks, _ := keys(t)
	file := auditstore.FileSink(filepath.Join(t.TempDir(), "checkpoints"))
	last, err := file.Last()
	require.NoError(t, err)
	require.Empty(t, last)
	note := func(size uint64) string {
		n, err := (&chain.Checkpoint{Origin: ks[0].Name(), Size: size}).Sign(ks)
		require.NoError(t, err)
		return n
	}
	require.NoError(t, file.Put(note(1)))
	whole, err := os.ReadFile(string(file))
	require.NoError(t, err)
	second := note(2)
	for cut := range len(second) {
		require.NoError(t, os.WriteFile(string(file), append(whole[:len(whole):len(whole)], second[:cut]...), 0o600))
		last, err := file.Last()
		require.NoError(t, err)
		require.Equal(t, note(1), last, "cut after %d bytes", cut)
		require.NoError(t, file.Put(note(3)))
		last, err = file.Last()
		require.NoError(t, err)
		require.Equal(t, note(3), last, "cut after %d bytes", cut)
	}
	require.NoError(t, os.WriteFile(string(file), []byte(fmt.Sprint(string(whole), second)), 0o600))
	last, err = file.Last()
	require.NoError(t, err)
	require.Equal(t, second, last)
}
