// Package standing checks what must hold after whatever happened to an agent
// and its log: the standing invariants of docs/threat-model.md. Tests of
// threats, crashes and faults end with it.
package standing

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// A Log is an open audit log.
type Log interface {
	Records(ctx context.Context, f chain.Filter, fn func(raw []byte, r *chain.Record) error) error
	Verify(ctx context.Context, progress func(done, total uint64)) (chain.Report, error)
}

// Seen is what a walk through a log has seen of calls.
type Seen struct {
	Records uint64
	Intents int
	open    int                // intents without an end
	ends    map[attempt]int    // of each intent
	sent    map[sent]int       // intents
	portals map[string][]int64 // that intents of callers' calls name, by the token's fingerprint
}

type attempt struct {
	call string
	n    int
}

// sent is what an intent and the request that arrived have in common.
type sent struct{ token, method, path string }

// Walk walks through a log. Numbers have no gap, in all and within each slug
// (part of I4); no end lacks its intent, and none comes twice (of I5); no record
// has a token in it (I3). each, if not nil, gets every record.
func Walk(t testing.TB, log Log, tokens *Tokens, each func(*chain.Record)) *Seen {
	t.Helper()
	s := &Seen{ends: map[attempt]int{}, sent: map[sent]int{}, portals: map[string][]int64{}}
	slugs := map[string]uint64{}
	require.NoError(t, log.Records(context.Background(), chain.Filter{}, func(raw []byte, r *chain.Record) error {
		if r.Seq != s.Records {
			require.Equal(t, s.Records, r.Seq, "a gap in seq")
		}
		s.Records++
		if r.ClientSlug != "" {
			if *r.SlugSeq != slugs[r.ClientSlug] {
				require.Equal(t, slugs[r.ClientSlug], *r.SlugSeq, "a gap in slugSeq of %s", r.ClientSlug)
			}
			slugs[r.ClientSlug]++
		}
		tokens.Absent(t, "a record", raw)
		s.take(t, r)
		if each != nil {
			each(r)
		}
		return nil
	}))
	return s
}

func (s *Seen) take(t testing.TB, r *chain.Record) {
	t.Helper()
	key := attempt{r.CallID, r.Attempt}
	switch r.Kind {
	case chain.CallIntent:
		if _, twice := s.ends[key]; twice {
			require.Fail(t, "two intents of one attempt", "%+v", r)
		}
		s.ends[key] = 0
		s.open++
		s.Intents++
		s.sent[sent{r.TokenFingerprint, r.Method, r.Path}]++
		if r.Caller == nil || !r.Caller.Agent {
			s.name(r.TokenFingerprint, r.PortalID)
		}
	case chain.CallOutcome, chain.CallInterrupted:
		if n, ok := s.ends[key]; !ok || n > 0 {
			require.Fail(t, "an end without an open intent", "%+v", r)
		}
		s.ends[key]++
		s.open--
	}
}

func (s *Seen) name(token string, portal int64) {
	for _, p := range s.portals[token] {
		if p == portal {
			return
		}
	}
	s.portals[token] = append(s.portals[token], portal)
}

// Open is how many intents have no end yet.
func (s *Seen) Open() int { return s.open }

// Ended checks that each intent has exactly one end (I5).
func (s *Seen) Ended(t testing.TB) {
	t.Helper()
	require.Zero(t, s.open, "intents without an end")
}

// Arrived checks what arrived at HubSpot against the log: no request without
// an intent for the same token, method and path (I1), and no call with a token
// of another portal than its intent names (I2). portalOf, if not nil, tells for
// which portal a request was meant, where the request itself says that; 0 where
// it does not.
func (s *Seen) Arrived(t testing.TB, requests []sandbox.Request, portalOf func(*sandbox.Request) int64) {
	t.Helper()
	arrived := map[sent]int{}
	owners := map[string]int64{}
	for i := range requests {
		r := &requests[i]
		arrived[sent{r.TokenFingerprint, r.Method, recorded(r)}]++
		if r.PortalID != 0 {
			owners[r.TokenFingerprint] = r.PortalID
		}
		if portalOf == nil {
			continue
		}
		if want := portalOf(r); want != 0 && want != r.PortalID {
			require.Equal(t, want, r.PortalID, "%s %s came with another portal's token", r.Method, r.Target)
		}
	}
	for what, n := range arrived {
		if n > s.sent[what] {
			require.LessOrEqual(t, n, s.sent[what], "arrived more often than recorded: %+v", what)
		}
	}
	for token, portals := range s.portals {
		if owner, known := owners[token]; known {
			require.Equal(t, []int64{owner}, portals, "calls with the token %s", token)
		}
	}
}

// recorded is a request's path as an intent has it.
func recorded(r *sandbox.Request) string {
	target, err := hubspot.ParseTarget(r.Target)
	if err != nil {
		return r.Target // of the agent's own: callers may not ask for it
	}
	return hubspot.RecordPath(target)
}

// Verified checks that the log's hashes agree (I4).
func Verified(t testing.TB, log Log) chain.Report {
	t.Helper()
	report, err := log.Verify(context.Background(), func(uint64, uint64) {})
	require.NoError(t, err)
	require.True(t, report.OK(), "%v", report.Damage)
	return report
}
