package agent_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// audited puts a tap between the agent and its log.
func audited(before func(rec chain.Record) error) func(*agent.Config) {
	return func(cfg *agent.Config) {
		cfg.Audit = &tap{Store: cfg.Audit.(*auditstore.Store), before: before}
	}
}

func TestThreat03NothingLeavesBeforeItsIntentIsDurable(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{})
	r := newRig(t, rigOptions{config: audited(func(rec chain.Record) error {
		if rec.Kind == chain.CallIntent && ofCalls(rec) {
			held <- struct{}{}
			<-hold
		}
		return nil
	})})
	r.ready(3)
	for range 2 { // on a new connection, and on one that is kept
		done := make(chan answer)
		go func() { done <- r.call("client-0", "PATCH", contacts+"/1", strings.NewReader(`{}`)) }()
		<-held
		before := len(r.came())
		require.Never(t, func() bool { return len(r.came()) > before }, 50*tick, tick)
		hold <- struct{}{}
		require.Empty(t, (<-done).code())
		require.Len(t, r.came(), before+1)
	}
	require.Len(t, r.came(), 2)
	r.checkLog()
}

// Every second request is dropped. HSAGENT_CALLS makes another number of calls
// of each kind.
func TestThreat04ResentRequestsHaveIntentsOfTheirOwn(t *testing.T) {
	const clients = 64
	calls := sized(t, "HSAGENT_CALLS", 1000)
	tests := []struct {
		method string
		header []string
	}{
		{"GET", nil},
		{"HEAD", nil},
		// Some clients send a POST with such a header again: it does not go on.
		{"POST", []string{"Idempotency-Key", "1", "X-Idempotency-Key", "1"}},
		{"POST", nil},
		{"GET", []string{wire.HeaderRetry, "off"}},
	}
	for i, tt := range tests {
		t.Run(strings.Join(append([]string{tt.method}, tt.header...), " "), func(t *testing.T) {
			once := tt.method == "POST" || tt.header != nil
			n := calls
			if i > 2 {
				n = calls / 5
			}
			r := newRig(t, rigOptions{portals: portalsOf(2), quiet: true})
			r.ready(2)
			r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Every: 2, DropBefore: true})
			var (
				next, served atomic.Int64
				wg           sync.WaitGroup
			)
			for range clients {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(n); i = next.Add(1) {
						var got answer
						if tt.method != "POST" {
							got = r.call(r.portals[i%2].Slug, tt.method, tagged(r.portals[i%2].Slug), nil, tt.header...)
						} else {
							got = r.call(r.portals[i%2].Slug, "POST", tagged(r.portals[i%2].Slug), strings.NewReader(`{"properties":{}}`), tt.header...)
						}
						switch got.code() {
						case "":
							served.Add(1)
						case wire.CodeUpstreamUnreachable:
						default:
							t.Errorf("%d %s", got.status, got.code())
						}
					}
				})
			}
			wg.Wait()
			outcomes := r.checkLog() // among others: arrivals are at most intents
			attempts := map[string]int{}
			for _, rec := range outcomes {
				attempts[rec.CallID]++
			}
			require.Len(t, attempts, n)
			require.Empty(t, r.crossed())
			require.NotZero(t, served.Load())
			if once {
				require.Len(t, outcomes, n, "sent once")
				require.Equal(t, int64(n/2), served.Load())
			} else {
				require.Greater(t, len(outcomes), n, "it was sent again")
			}
			require.LessOrEqual(t, len(r.came()), len(outcomes))
		})
	}
}

func TestThreat05NoCallWithoutAudit(t *testing.T) {
	tests := []struct {
		name   string
		calls  int
		every  int // so many of them are refused: each, or each third
		before func(*atomic.Bool) func(rec chain.Record) error
	}{
		{"every record fails", 10_000, 1, func(on *atomic.Bool) func(chain.Record) error {
			return func(chain.Record) error {
				if on.Load() {
					return errors.New("disk: input/output error")
				}
				return nil
			}
		}},
		{"every third intent fails", 1_200, 3, func(on *atomic.Bool) func(chain.Record) error {
			var n atomic.Int64
			return func(rec chain.Record) error {
				if on.Load() && rec.Kind == chain.CallIntent && n.Add(1)%3 == 0 {
					return errors.New("disk: input/output error")
				}
				return nil
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var on atomic.Bool
			r := newRig(t, rigOptions{quiet: true, config: audited(tt.before(&on))})
			r.ready(3)
			on.Store(true)
			var (
				wg             sync.WaitGroup
				served, denied atomic.Int64
			)
			for c := range 20 {
				wg.Go(func() {
					for range tt.calls / 20 {
						slug := r.portals[c%3].Slug
						got := r.call(slug, "POST", tagged(slug), strings.NewReader(`{"properties":{}}`))
						if got.code() == "" {
							served.Add(1)
							continue
						}
						got.refused(t, wire.CodeAuditUnavailable)
						denied.Add(1)
					}
				})
			}
			wg.Wait()
			require.Equal(t, int64(tt.calls), served.Load()+denied.Load())
			require.Equal(t, int64(tt.calls/tt.every), denied.Load())
			require.Len(t, r.came(), int(served.Load()), "what could not be recorded did not leave")
			on.Store(false)
			require.Equal(t, 200, r.call("client-0", "GET", tagged("client-0"), nil).status)
			r.checkLog()
		})
	}
}

func TestThreat05FullDisk(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	r.stop()
	// Below the floor of free space nothing is appended, and no agent starts.
	_, err := auditstore.Open(t.Context(), auditstore.Config{Dir: r.dir + "/audit", Actor: "test", MinFree: 1 << 62})
	require.ErrorContains(t, err, "make room")

	var full atomic.Bool
	r.start(rigOptions{config: audited(func(chain.Record) error {
		if full.Load() {
			return auditstore.ErrUnavailable
		}
		return nil
	})})
	r.ready(3)
	full.Store(true)
	for range 20 {
		p := r.call("client-0", "GET", tagged("client-0"), nil).refused(t, wire.CodeAuditUnavailable)
		require.Contains(t, p.Detail, "nothing was sent")
	}
	require.Empty(t, r.came())
	require.Equal(t, 200, r.api("GET", "/v1/status", "").status)
	full.Store(false)
	require.Equal(t, 200, r.call("client-0", "GET", tagged("client-0"), nil).status)
	r.checkLog()
}

// A change of the store that could not be recorded is told as such.
func TestThreat05ManagementWithoutAudit(t *testing.T) {
	var on atomic.Bool
	r := newRig(t, rigOptions{config: audited(func(rec chain.Record) error {
		if on.Load() {
			return auditstore.ErrUnavailable
		}
		return nil
	})})
	r.ready(3)
	on.Store(true)
	token := sandbox.NewToken("na1")
	require.NoError(t, r.hubspot.AddPortal(sandbox.Portal{ID: 5000, Token: token}))
	before := r.hubspot.Count().Total.Arrivals
	r.api("PUT", "/v1/portals/fresh", `{"token":"`+token.Reveal()+`"}`).refused(t, wire.CodeAuditUnavailable)
	require.Equal(t, before, r.hubspot.Count().Total.Arrivals, "not even the identity was asked for")
	r.api("POST", "/v1/lock", "").refused(t, wire.CodeAuditUnavailable)
	require.True(t, r.agent.Status().Locked, "it is locked all the same")
}

// An agent that died between intent and outcome says so when it starts again.
func TestThreat25IntentsWithoutOutcomeAreClosed(t *testing.T) {
	lost := make(chan struct{})
	r := newRig(t, rigOptions{config: audited(func(rec chain.Record) error {
		if rec.Kind == chain.CallOutcome && ofCalls(rec) {
			close(lost)
			return errors.New("the machine died here")
		}
		return nil
	})})
	r.ready(3)
	got := r.call("client-0", "GET", tagged("client-0"), nil)
	require.Equal(t, 200, got.status)
	<-lost
	r.stop()
	r.start(rigOptions{})
	recs := r.records(chain.Filter{CallID: got.header.Get(wire.HeaderCallID)})
	require.Len(t, recs, 2)
	require.Equal(t, chain.CallIntent, recs[0].Kind)
	require.Equal(t, chain.CallInterrupted, recs[1].Kind)
	r.ready(3)
	require.Len(t, r.came(), 1, "it is never sent again")
}
