package auditstore_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func open(t testing.TB, dir string, change ...func(*auditstore.Config)) *auditstore.Store {
	t.Helper()
	c := auditstore.Config{Dir: dir, Actor: "hsagentd/test", MinFree: 1}
	for _, f := range change {
		f(&c)
	}
	s, err := auditstore.Open(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() }) // closed by the test already, or of no interest
	return s
}

// intent is a record such as a call leaves, with as much randomness in it.
func intent(slug string, r *rand.Rand) chain.Record {
	return chain.Record{
		Kind: chain.CallIntent, ClientSlug: slug, PortalID: 1_000_000 + r.Int64N(90_000_000), CallID: newCallID(r), Attempt: 1, Method: "GET",
		Path: fmt.Sprintf("/crm/v3/objects/contacts/%d?limit=100&after=%d", r.Int64N(1e12), r.IntN(1e6)), ObjectType: "contacts",
		ObjectID: fmt.Sprint(r.Int64N(1e12)), APIVersion: "v3",
		Caller:           &chain.Caller{UID: 1000, User: "alice", GID: 1000, PID: r.IntN(1 << 22), Exe: "/usr/bin/python3.12", Unit: "sync.service"},
		TokenFingerprint: fingerprint(slug), StoreVersion: 17,
	}
}

func fingerprint(slug string) string { return wire.NewToken("tok-" + slug).Fingerprint() }

func newCallID(r *rand.Rand) string {
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	b[6], b[8] = 0x70|b[6]&0x0f, 0x80|b[8]&0x3f
	return uuid.UUID(b).String()
}

func outcome(in chain.Record, r *rand.Rand) chain.Record {
	in.Kind, in.TS = chain.CallOutcome, wire.Time{}
	in.StatusCode = []int{200, 200, 200, 200, 404, 429}[r.IntN(6)]
	d, req, resp, left := r.Int64N(900), int64(0), r.Int64N(100_000), r.Int64N(250_000)
	in.DurationMs, in.RequestBytes, in.ResponseBytes, in.RateLimitRemaining = &d, &req, &resp, &left
	in.CorrelationID = newCallID(r)
	return in
}

func random() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// all reads the whole log.
func all(t testing.TB, s *auditstore.Store, f chain.Filter) (recs []chain.Record) {
	t.Helper()
	require.NoError(t, s.Records(t.Context(), f, func(raw []byte, r *chain.Record) error {
		recs = append(recs, *r)
		return nil
	}))
	return recs
}

func verified(t testing.TB, s *auditstore.Store) chain.Report {
	t.Helper()
	r, err := s.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, r.Damage)
	return r
}

func TestAppend(t *testing.T) {
	dir, r := t.TempDir(), random()
	s := open(t, dir)
	in := intent("acme-corp", r)
	rc, err := s.Append(t.Context(), in)
	require.NoError(t, err)
	require.Zero(t, rc.Seq)
	require.NoError(t, s.AppendLazy(outcome(in, r)))
	require.NoError(t, s.AppendLazy(chain.Record{Kind: chain.AgentStarted}))
	require.NoError(t, s.Flush(t.Context()))
	require.Equal(t, wire.AuditStatus{Path: dir, Size: 3, Durable: 3}, s.Status())
	before := verified(t, s)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "closing twice is no error")

	_, err = s.Append(t.Context(), in)
	require.ErrorIs(t, err, auditstore.ErrUnavailable)
	require.ErrorIs(t, s.AppendLazy(in), auditstore.ErrUnavailable)

	s = open(t, dir)
	require.Empty(t, s.Notes())
	got := all(t, s, chain.Filter{})
	require.Len(t, got, 3)
	require.Equal(t, "hsagentd/test", got[0].Actor)
	require.Equal(t, uint64(1), *got[1].SlugSeq)
	require.Nil(t, got[2].SlugSeq)
	require.Equal(t, before, verified(t, s))
	n, err := s.Usage("acme-corp", time.Now().Add(-time.Hour), time.Time{})
	require.NoError(t, err)
	require.Equal(t, int64(1), n)
}

func TestConcurrentAppends(t *testing.T) {
	s := open(t, t.TempDir())
	const writers, each = 64, 50
	var wg sync.WaitGroup
	receipts := make([][]chain.Receipt, writers)
	for w := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for range each {
				in := intent(fmt.Sprintf("slug-%d", w%7), r)
				rc, err := s.Append(t.Context(), in)
				if err != nil || s.AppendLazy(outcome(in, r)) != nil {
					t.Errorf("append: %v", err)
					return
				}
				receipts[w] = append(receipts[w], rc)
			}
		})
	}
	wg.Wait()
	require.NoError(t, s.Flush(t.Context()))
	recs := all(t, s, chain.Filter{})
	require.Len(t, recs, 2*writers*each)
	next := map[string]uint64{}
	for i, r := range recs {
		require.Equal(t, uint64(i), r.Seq)
		require.Equal(t, next[r.ClientSlug], *r.SlugSeq)
		next[r.ClientSlug]++
	}
	seen := map[uint64]bool{}
	for _, rcs := range receipts {
		for _, rc := range rcs {
			require.False(t, seen[rc.Seq])
			seen[rc.Seq] = true
			require.Equal(t, chain.CallIntent, recs[rc.Seq].Kind)
		}
	}
	verified(t, s)
}

func TestLazyTimer(t *testing.T) {
	s := open(t, t.TempDir())
	require.NoError(t, s.AppendLazy(chain.Record{Kind: chain.AgentStarted}))
	require.NoError(t, s.Wait(t.Context(), ^uint64(0)), "nobody else writes: the timer does")
	require.Equal(t, uint64(1), s.Status().Durable)
}

func TestWait(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error)
	go func() { waited <- s.Wait(ctx, 0) }()
	_, err := s.Append(t.Context(), chain.Record{Kind: chain.AgentStarted})
	require.NoError(t, err)
	_, err = s.Append(t.Context(), chain.Record{Kind: chain.AgentLocked})
	require.NoError(t, err)
	require.NoError(t, <-waited)
	go func() { waited <- s.Wait(ctx, 1) }()
	cancel()
	require.ErrorIs(t, <-waited, context.Canceled)
	go func() { waited <- s.Wait(t.Context(), 1) }()
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-waited, auditstore.ErrUnavailable)
}

func TestOptions(t *testing.T) {
	o := auditstore.BadgerOptions(t.TempDir())
	require.True(t, o.SyncWrites, "without it an acknowledged record can be lost")
	require.Greater(t, o.ValueThreshold, int64(chain.MaxRecord+chain.SaltSize), "Badger only logs the sync errors of its value log")
	require.False(t, o.BypassLockGuard)
}

func TestOversizedRecord(t *testing.T) {
	s := open(t, t.TempDir())
	long := "/crm/v3/objects/" + hex.EncodeToString(make([]byte, 20_000))
	odd := string(make([]byte, 9000)) // each byte is six in JSON
	for _, r := range []chain.Record{
		{Kind: chain.CallIntent, ClientSlug: "acme", Path: long},
		{Kind: chain.CallIntent, ClientSlug: "acme", Path: long + "1", Reason: odd},
		{Kind: chain.CallIntent, ClientSlug: "acme", ObjectID: odd, Caller: &chain.Caller{Exe: odd}},
		{Kind: chain.CallIntent, ClientSlug: "acme", Rule: odd, ConfirmedBy: odd},
		{Kind: chain.CallIntent, ClientSlug: "acme", Path: "/a\xff\xfe", Reason: "pat-na1-00000000-0000-4000-8000-00000000000a"},
	} {
		_, err := s.Append(t.Context(), r)
		require.NoError(t, err)
	}
	require.NoError(t, s.Records(t.Context(), chain.Filter{}, func(raw []byte, _ *chain.Record) error {
		require.LessOrEqual(t, len(raw), chain.MaxRecord)
		return nil
	}))
	recs := all(t, s, chain.Filter{})
	require.Len(t, recs, 5)
	require.Regexp(t, `^/crm/v3/objects/0+…#[0-9a-f]{16}$`, recs[0].Path)
	require.NotEqual(t, recs[0].Path, recs[1].Path, "the hash tells them apart")
	require.Equal(t, "/a�", recs[4].Path)
	require.Equal(t, "pat-na1-***", recs[4].Reason)
	verified(t, s)
	_, err := s.Append(t.Context(), chain.Record{ClientSlug: "No Slug"})
	require.ErrorIs(t, err, wire.ErrBadSlug)
}

// A verification reads what the database holds when it begins, however much
// comes to it then: here new slugs, which other readers have it filled with.
func TestVerifyWhileSlugsCome(t *testing.T) {
	s := open(t, t.TempDir())
	var stop atomic.Bool
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			r := random()
			for i := 0; !stop.Load(); i++ {
				_, err := s.Append(t.Context(), outcome(intent(fmt.Sprintf("s%d-%d", w, i), r), r))
				assert.NoError(t, err)
			}
		})
	}
	all.Go(func() {
		for !stop.Load() {
			assert.NoError(t, s.Records(t.Context(), chain.Filter{Limit: 1}, func([]byte, *chain.Record) error { return nil }))
		}
	})
	defer all.Wait()
	defer stop.Store(true)
	for range 100 {
		verified(t, s)
	}
}

// A program that names a new slug in each call does not fill the memory, and the
// records of each slug are numbered in their order all the same.
func TestManySlugs(t *testing.T) {
	s := open(t, t.TempDir())
	const many, again = auditstore.MaxPlaces + 1000, 1000
	for _, n := range []int{many, again} {
		for i := range n {
			require.NoError(t, s.AppendLazy(chain.Record{Kind: chain.CallDenied, ClientSlug: fmt.Sprintf("s-%d", i)}))
		}
		require.NoError(t, s.Flush(t.Context()))
		require.LessOrEqual(t, s.Places(), auditstore.MaxPlaces)
	}
	require.Equal(t, uint64(many+again), verified(t, s).Records)
	require.NoError(t, s.Close())
}
