package agent_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// asked counts the agent's own questions for a portal on a path.
func (r *rig) asked(portal int64, path string) int {
	n := 0
	for _, req := range r.hubspot.Requests() {
		if req.PortalID == portal && req.Path == path {
			n++
		}
	}
	return n
}

// startUnder starts an agent over HubSpot with these faults from the first
// question on.
func startUnder(t *testing.T, o rigOptions, faults ...sandbox.Fault) *rig {
	t.Helper()
	r := newRig(t, o)
	r.stop()
	r.hubspot.Reset()
	r.hubspot.SetFaults(faults...)
	r.start(o)
	return r
}

func TestIdentityIsAskedOnceHoweverManyWait(t *testing.T) {
	r := startUnder(t, rigOptions{}, sandbox.Fault{PathPrefix: hubspot.DetailsPath, Delay: 100 * time.Millisecond})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			slug := r.portals[i%3].Slug
			got := r.call(slug, "GET", tagged(slug), nil)
			require.Equal(t, 200, got.status, got.body)
		})
	}
	wg.Wait()
	for _, p := range r.portals {
		require.Equal(t, 1, r.asked(p.ID, hubspot.DetailsPath))
		require.Zero(t, r.asked(p.ID, hubspot.TokenInfoPath))
	}
	require.Len(t, r.came(), 100)
	r.checkLog()
}

func TestIdentityAnswers(t *testing.T) {
	tests := []struct {
		name     string
		identity sandbox.Identity
		state    wire.State
		call     wire.Code // of a call; "" where it is made
		verify   wire.Code // of asking by hand
	}{
		{"the truth", sandbox.Identity{}, wire.StateReady, "", ""},
		{"another portal", sandbox.Identity{ClaimID: 9999}, wire.StateQuarantined, wire.CodePortalQuarantined, wire.CodeIdentityMismatch},
		{"403, then access-token-info", sandbox.Identity{AccountInfo: 403}, wire.StateReady, "", ""},
		{"403, then another portal", sandbox.Identity{AccountInfo: 403, ClaimID: 9999}, wire.StateQuarantined, wire.CodePortalQuarantined, wire.CodeIdentityMismatch},
		{"403 and 403", sandbox.Identity{AccountInfo: 403, TokenInfo: 403}, wire.StateUnverified, wire.CodePortalUnverified, wire.CodeScopeMissing},
		{"403 and 500", sandbox.Identity{AccountInfo: 403, TokenInfo: 500}, wire.StateUnverified, wire.CodePortalUnverified, wire.CodeUpstreamInvalid},
		{"401", sandbox.Identity{AccountInfo: 401}, wire.StateQuarantined, wire.CodePortalQuarantined, wire.CodeTokenRejected},
		{"500", sandbox.Identity{AccountInfo: 500}, wire.StateUnverified, wire.CodePortalUnverified, wire.CodeUpstreamInvalid},
	}
	portals := portalsOf(len(tests))
	r := newRig(t, rigOptions{portals: portals})
	r.ready(len(tests))
	r.stop()
	for i, tt := range tests {
		require.NoError(t, r.hubspot.SetIdentity(portals[i].ID, tt.identity))
	}
	r.start(rigOptions{})
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			slug := portals[i].Slug
			r.hubspot.Reset()
			got := r.call(slug, "GET", tagged(slug), nil)
			if tt.call == "" {
				require.Equal(t, 200, got.status, got.body)
				require.Len(t, r.came(), 1)
			} else {
				got.refused(t, tt.call)
				require.Empty(t, r.came())
			}
			require.Equal(t, tt.state, r.state(slug, tt.state).State)
			for _, path := range []string{"verify", "resume"} {
				got = r.api("POST", "/v1/portals/"+slug+"/"+path, "")
				if tt.verify == "" {
					require.Equal(t, 200, got.status, got.body)
				} else {
					got.refused(t, tt.verify)
				}
			}
		})
	}
	require.Len(t, r.records(chain.Filter{Kind: chain.PortalResumed}), 2, "only what is confirmed")
	for _, rec := range r.records(chain.Filter{Kind: chain.CallIntent}) {
		if rec.Path == hubspot.DetailsPath || rec.Path == hubspot.TokenInfoPath {
			require.True(t, rec.Caller.Agent)
		}
	}
	r.checkLog()
	r.cleanAll() // among others: the body of access-token-info has the token
}

func TestIdentityRecoversWithHubSpot(t *testing.T) {
	r := startUnder(t, rigOptions{}, sandbox.Fault{DropBefore: true})
	p := r.call("client-0", "GET", contacts, nil).refused(t, wire.CodePortalUnverified)
	require.Contains(t, p.Detail, "HubSpot")
	before := r.hubspot.Count().Total.Arrivals
	for range 50 {
		r.call("client-0", "GET", contacts, nil).refused(t, wire.CodePortalUnverified)
	}
	require.Less(t, r.hubspot.Count().Total.Arrivals, before+40, "a flood of calls is no flood of questions")
	require.Empty(t, r.came())
	r.hubspot.ClearFaults()
	eventually(t, func() bool { return r.call("client-0", "GET", contacts, nil).status == 200 }, "calls are made again")
	r.checkLog()
}

func TestThreat43HangingIdentityDelaysNobodyElse(t *testing.T) {
	r := startUnder(t, rigOptions{portals: portalsOf(12)}, sandbox.Fault{PathPrefix: hubspot.DetailsPath, Portal: 1000, Hang: true})
	held := make(chan int, 1)
	go func() {
		conn := r.dial()
		_, err := conn.Write([]byte("GET /v1/call/client-0" + contacts + " HTTP/1.1\r\nHost: hsagent\r\n\r\n"))
		if err != nil {
			held <- 0
			return
		}
		n, _ := conn.Read(make([]byte, 1)) // nothing comes until the agent stops
		held <- n
	}()
	eventually(t, func() bool { return r.agent.Status().CallsInFlight == 1 }, "a call waits")
	for _, p := range r.portals[1:] {
		require.Equal(t, 200, r.call(p.Slug, "GET", tagged(p.Slug), nil).status)
	}
	require.Equal(t, wire.StateUnverified, r.state("client-0", wire.StateUnverified).State)
	require.Equal(t, 1, r.agent.Status().CallsInFlight)
	require.Empty(t, held)
	require.Empty(t, r.crossed())
}

// A token that is new to the process is asked about; one that is not is not.
func TestIdentityOutlivesReloads(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	r.hubspot.Reset()
	for range 3 {
		require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
		require.Equal(t, 200, r.api("POST", "/v1/reload", "{}").status)
	}
	require.Zero(t, r.asked(1000, hubspot.DetailsPath))
	require.Equal(t, 200, r.api("POST", "/v1/lock", "").status)
	require.Equal(t, 200, r.api("POST", "/v1/unlock", "{}").status)
	r.ready(3)
	require.Equal(t, 1, r.asked(1000, hubspot.DetailsPath))
	require.Contains(t, strings.Join(kinds(r.records(chain.Filter{})), " "), "agent.locked")
}

func kinds(recs []chain.Record) []string {
	out := make([]string, len(recs))
	for i, rec := range recs {
		out[i] = string(rec.Kind)
	}
	return out
}
