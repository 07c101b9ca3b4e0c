package agent_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// awaitState waits until a slug is in a state.
func (r *rig) awaitState(slug string, state wire.State) wire.Portal {
	r.t.Helper()
	s, err := wire.ParseSlug(slug)
	require.NoError(r.t, err)
	var p *wire.Portal
	require.Eventually(r.t, func() bool {
		p, err = r.client.Portal(r.t.Context(), s)
		return err == nil && p.State == state
	}, time.Minute, 5*time.Millisecond)
	return *p
}

// An answer that names another portal stops its slug at once, until somebody
// resumes it; the others go on.
func TestThreat01AnswerOfAnotherPortal(t *testing.T) {
	tests := []struct {
		name  string
		fault sandbox.Fault
	}{
		{"a 200 with portalId", sandbox.Fault{Status: 200, Body: `{"portalId":77,"id":"1"}`, Header: http.Header{"Content-Type": {"application/json"}}}},
		{"a 404 with portalId", sandbox.Fault{Status: 404, Body: `{"category":"OBJECT_NOT_FOUND","portalId":77}`, Header: http.Header{"Content-Type": {"application/json"}}}},
		{"a 429 with groupName", sandbox.Fault{Status: 429, Body: `{"errorType":"RATE_LIMIT","policyName":"DAILY","groupName":"publicapi:x:77"}`, Header: http.Header{"Content-Type": {"application/json"}}}},
	}
	portals := portalsOf(len(tests) + 1)
	r := newRig(t, rigOptions{portals: portals})
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			slug := portals[i].Slug
			tt.fault.Portal, tt.fault.PathPrefix, tt.fault.Times = portals[i].ID, contacts, 1
			r.hubspot.AddFault(tt.fault)
			require.Equal(t, tt.fault.Status, r.call(slug, "GET", contacts, nil).status, "the answer itself is passed on")
			require.Equal(t, wire.CodePortalQuarantined, r.call(slug, "GET", contacts, nil).code())
			p := r.awaitState(slug, wire.StateQuarantined)
			require.Contains(t, p.Reason, "portal 77")
			recs := r.records(chain.Filter{Slug: slug, Kind: chain.PortalQuarantined})
			require.Len(t, recs, 1)
			require.Equal(t, string(wire.CodeIdentityMismatch), recs[0].Error)

			s, err := wire.ParseSlug(slug)
			require.NoError(t, err)
			_, err = r.client.Verify(t.Context(), s)
			require.NoError(t, err)
			r.awaitState(slug, wire.StateQuarantined) // to verify is not to resume
			require.NoError(t, r.client.Do(t.Context(), http.MethodPost, "/v1/portals/"+slug+"/resume", nil, nil, nil))
			r.awaitState(slug, wire.StateReady)
		})
	}
	require.Equal(t, http.StatusOK, r.call(portals[len(tests)].Slug, "GET", contacts, nil).status)
}

// Unlocking asks HubSpot about each token anew, but what stopped a slug before
// the lock, or while the agent was locked, is for resume to lift.
func TestThreat02QuarantineOutlivesALock(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	r.hubspot.AddFault(sandbox.Fault{Portal: r.portals[0].ID, PathPrefix: contacts, Status: 404, Body: `{"portalId":77}`, Header: http.Header{"Content-Type": {"application/json"}}})
	require.Equal(t, 404, r.call("client-0", "GET", contacts, nil).status)
	r.state("client-0", wire.StateQuarantined)
	for range 2 {
		require.Equal(t, 200, r.api("POST", "/v1/lock", "").status)
		require.Equal(t, 200, r.api("POST", "/v1/unlock", "{}").status)
		r.ready(2)
		r.call("client-0", "GET", contacts, nil).refused(t, wire.CodePortalQuarantined)
		require.Contains(t, r.state("client-0", wire.StateQuarantined).Reason, "portal 77")
	}
	require.Equal(t, 200, r.api("POST", "/v1/portals/client-0/resume", "").status)
	r.ready(3)
}

// A 429 is repeated, but not one that names another portal.
func TestThreat01RepeatedAnswerOfAnotherPortal(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.awaitState("client-0", wire.StateReady)
	r.hubspot.SetFaults(sandbox.Fault{
		Portal: 1000, PathPrefix: contacts, Times: 1, Status: http.StatusTooManyRequests,
		Body:   `{"errorType":"RATE_LIMIT","policyName":"TEN_SECONDLY_ROLLING","groupName":"publicapi:private-apps-api-calls:10s:77"}`,
		Header: http.Header{"Content-Type": {"application/json"}},
	})
	require.Equal(t, wire.CodePortalQuarantined, r.call("client-0", "GET", contacts, nil).code())
	require.Equal(t, 1, r.arrivals(), "it was sent again with a token that may be another portal's")
	require.Contains(t, r.awaitState("client-0", wire.StateQuarantined).Reason, "portal 77")
	require.Equal(t, http.StatusOK, r.call("client-1", "GET", contacts, nil).status)
}

// Whoever asks again about a dead token gets the answer again, but it is no
// second quarantine.
func TestQuarantineIsNotedOnce(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.awaitState("client-0", wire.StateReady)
	r.hubspot.RevokeToken(r.hubspot.ActiveToken(1000))
	s, err := wire.ParseSlug("client-0")
	require.NoError(t, err)
	for range 3 {
		_, err = r.client.Verify(t.Context(), s)
		require.ErrorContains(t, err, "slug client-0: account-info answered 401")
		err = r.client.Do(t.Context(), http.MethodPost, "/v1/portals/client-0/resume", nil, nil, nil)
		require.ErrorContains(t, err, "slug client-0: account-info answered 401")
	}
	require.Len(t, r.records(chain.Filter{Slug: "client-0", Kind: chain.PortalQuarantined}), 1)
}

func TestRevokedTokenIsQuarantined(t *testing.T) {
	r := newRig(t, rigOptions{})
	require.Equal(t, http.StatusOK, r.call("client-0", "GET", contacts, nil).status)
	r.hubspot.RevokeToken(r.hubspot.ActiveToken(1000))
	require.Equal(t, http.StatusUnauthorized, r.call("client-0", "GET", contacts, nil).status, "HubSpot's word is passed on")
	p := r.awaitState("client-0", wire.StateQuarantined)
	require.Contains(t, p.Reason, "401")
	require.Equal(t, wire.CodePortalQuarantined, r.call("client-0", "GET", contacts, nil).code())
	require.Equal(t, http.StatusOK, r.call("client-1", "GET", contacts, nil).status)
}

// A 401 that account-info does not confirm is one path's own affair.
func TestLone401(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.hubspot.SetFaults(sandbox.Fault{Portal: 1000, PathPrefix: contacts, Status: 401, Times: 1})
	before := len(r.records(chain.Filter{Slug: "client-0", Kind: chain.PortalVerified}))
	require.Equal(t, http.StatusUnauthorized, r.call("client-0", "GET", contacts, nil).status)
	require.Eventually(t, func() bool {
		return len(r.records(chain.Filter{Slug: "client-0", Kind: chain.PortalVerified})) > before
	}, time.Minute, 5*time.Millisecond)
	require.Equal(t, http.StatusOK, r.call("client-0", "GET", contacts, nil).status)
}

// What a caller wrote into its own request is no proof of contamination.
func TestValidationTextIsNoProof(t *testing.T) {
	r := newRig(t, rigOptions{})
	body := `{"category":"VALIDATION_ERROR","message":"Property values were not valid: [{\"portalId\":77}]"}`
	r.hubspot.SetFaults(sandbox.Fault{Portal: 1000, PathPrefix: contacts, Status: 400, Body: body, Times: 1})
	require.Equal(t, http.StatusBadRequest, r.call("client-0", "GET", contacts, nil).status)
	for i := range 20 {
		require.Equal(t, http.StatusOK, r.call("client-0", "GET", fmt.Sprintf("%s?limit=%d", contacts, i+1), nil).status)
	}
}

// A call that waits for its turn when the slug is quarantined does not leave.
func TestThreat02QuarantineStopsCallsThatWait(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	portal := r.portals[0].ID
	r.hubspot.AddFault(sandbox.Fault{Portal: portal, Method: "POST", Status: 429, Policy: "SECONDLY", Times: 1, Header: http.Header{"Retry-After": {"4"}}})
	r.hubspot.AddFault(sandbox.Fault{Portal: portal, Method: "GET", PathPrefix: contacts, Status: 404, Body: `{"category":"OBJECT_NOT_FOUND","portalId":77}`, Header: http.Header{"Content-Type": {"application/json"}}})
	search := func(retry string) answer {
		return r.call("client-0", "POST", contacts+"/search", strings.NewReader("{}"), wire.HeaderRetry, retry, wire.HeaderWait, "1m")
	}
	require.Equal(t, 429, search("off").status)
	waiting := make(chan answer, 1)
	go func() { waiting <- search("on") }()
	eventually(t, func() bool { return r.agent.Status().CallsInFlight == 1 }, "it waits")
	require.Equal(t, 404, r.call("client-0", "GET", contacts+"/1", nil).status)
	(<-waiting).refused(t, wire.CodePortalQuarantined)
	came := map[string]int{}
	for _, req := range r.came() {
		came[req.Method]++
	}
	require.Equal(t, map[string]int{"POST": 1, "GET": 1}, came)
	r.checkLog()
}
