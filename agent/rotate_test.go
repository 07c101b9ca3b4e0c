package agent_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// next makes a new token in the portal, as "Rotate and expire later" does.
func (r *rig) next(portal int64) wire.Token {
	r.t.Helper()
	token := sandbox.NewToken("na1")
	require.NoError(r.t, r.hubspot.Rotate(portal, token))
	return token
}

// rotate asks the agent to rotate.
func (r *rig) rotate(slug string, token wire.Token, query ...string) answer {
	r.t.Helper()
	return r.api("POST", "/v1/portals/"+slug+"/rotate"+strings.Join(query, ""), fmt.Sprintf(`{"token":%q}`, token.Reveal()))
}

// rotated is rotate that succeeds.
func (r *rig) rotated(slug string, token wire.Token) wire.Portal {
	r.t.Helper()
	got := r.rotate(slug, token)
	require.Equal(r.t, http.StatusOK, got.status, got.body)
	var p wire.Portal
	require.NoError(r.t, json.Unmarshal([]byte(got.body), &p))
	return p
}

func (r *rig) rotation(slug string) wire.Rotation {
	r.t.Helper()
	rot, err := r.client.Rotation(r.t.Context(), slugOf(r.t, slug))
	require.NoError(r.t, err)
	return *rot
}

// entry is what the store holds for the slug.
func (r *rig) entry(slug string) credstore.Entry {
	r.t.Helper()
	s, err := r.store.Load(r.t.Context())
	require.NoError(r.t, err)
	e, ok := s.Get(slugOf(r.t, slug))
	require.True(r.t, ok)
	return e
}

func ticked(rot wire.Rotation) map[string]bool {
	out := map[string]bool{}
	for _, s := range rot.Steps {
		out[s.Name] = s.Done
	}
	return out
}

func TestRotate(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	old, before := r.hubspot.ActiveToken(1000), r.agent.Status().Store.Version
	token := r.next(1000)

	p := r.rotated("client-0", token)
	require.Equal(t, wire.StateReady, p.State)
	require.Equal(t, token.Fingerprint(), p.TokenFingerprint)
	require.NotEmpty(t, p.Scopes)
	require.Empty(t, p.Warning)
	require.Equal(t, before+1, r.agent.Status().Store.Version)
	e := r.entry("client-0")
	require.Equal(t, token, e.Token)
	require.Equal(t, old, e.Previous.Token)
	require.WithinDuration(t, time.Now().Add(7*24*time.Hour), e.Previous.Until, time.Minute)
	require.WithinDuration(t, time.Now(), e.LastRotatedAt, time.Minute)

	recs := r.records(chain.Filter{Kind: chain.PortalRotated})
	require.Len(t, recs, 1)
	require.Equal(t, token.Fingerprint(), recs[0].TokenFingerprint)
	require.Contains(t, recs[0].Reason, old.Fingerprint())
	require.False(t, recs[0].Caller.Agent)

	rot := r.rotation("client-0")
	require.Equal(t, wire.RotationSwitched, rot.State)
	require.Equal(t, old.Fingerprint(), rot.OldFingerprint)
	require.Equal(t, token.Fingerprint(), rot.NewFingerprint)
	require.Equal(t, map[string]bool{
		wire.StepStoreWritten: true, wire.StepNewTokenVerified: true, wire.StepCRMReadAnswered: false,
		wire.StepSeenInRecords: false, wire.StepOldTokenRefused: false,
	}, ticked(rot))
	require.Contains(t, rot.Next, "hsctl call client-0 GET")

	require.Equal(t, 201, r.call("client-0", "POST", contacts, strings.NewReader(`{"properties":{}}`), "Content-Type", "application/json").status)
	require.False(t, ticked(r.rotation("client-0"))[wire.StepCRMReadAnswered], "a write is no read")
	require.True(t, ticked(r.rotation("client-0"))[wire.StepSeenInRecords])
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	rot = r.rotation("client-0")
	require.True(t, ticked(rot)[wire.StepCRMReadAnswered])
	require.Contains(t, rot.Next, "Expire now")
	require.Contains(t, rot.Next, "Never press")

	// HubSpot still takes the old one: nothing to retire.
	require.Equal(t, 200, r.api("POST", "/v1/portals/client-0/verify", "").status)
	require.NotNil(t, r.entry("client-0").Previous)
	r.hubspot.ExpireOld(1000)
	require.Equal(t, 200, r.api("POST", "/v1/portals/client-0/verify", "").status)
	require.Nil(t, r.entry("client-0").Previous)
	rot = r.rotation("client-0")
	require.Equal(t, wire.RotationConfirmed, rot.State)
	require.True(t, ticked(rot)[wire.StepOldTokenRefused])

	all, err := r.client.Rotations(t.Context())
	require.NoError(t, err)
	require.Equal(t, []wire.Rotation{rot}, all)
	r.api("GET", "/v1/rotations/client-1", "").refused(t, wire.CodeNotFound)
	r.checkLog()
	r.cleanAll()
	journal, err := os.ReadFile(r.store.Path() + ".rotations")
	require.NoError(t, err)
	r.clean("the journal", string(journal))
	require.NotContains(t, string(journal)+r.log.String(), old.Reveal())
}

func TestRotateDryRun(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	before := r.agent.Status().Store.Version
	got := r.rotate("client-0", r.next(1000), "?dryRun=true")
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.Equal(t, before, r.agent.Status().Store.Version)
	require.Nil(t, r.entry("client-0").Previous)
	_, err := os.Stat(r.store.Path() + ".rotations")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Empty(t, r.records(chain.Filter{Kind: chain.PortalRotated}))
}

func TestRotateRefusals(t *testing.T) {
	ps := portalsOf(4)
	r := newRig(t, rigOptions{portals: ps})
	r.ready(4)
	stranger := portalsOf(9)[8]
	require.NoError(t, r.hubspot.AddPortal(stranger))
	first := r.hubspot.ActiveToken(1003)
	r.rotated("client-3", r.next(1003))
	before := r.agent.Status().Store.Version
	tests := []struct {
		name, slug string
		token      wire.Token
		code       wire.Code
		says       []string
	}{
		{"in use", "client-0", ps[0].Token, wire.CodeConflict, []string{"in use"}},
		{"another slug's", "client-0", ps[1].Token, wire.CodeConflict, []string{"client-1"}},
		{"another slug's previous", "client-0", first, wire.CodeConflict, []string{"client-3"}},
		{"its own previous", "client-3", first, wire.CodeConflict, []string{"hsctl verify client-3"}},
		{"another portal's", "client-0", stranger.Token, wire.CodeIdentityMismatch, []string{"1008", "1000"}},
		{"dead", "client-0", sandbox.NewToken("na1"), wire.CodeTokenRejected, []string{"401"}},
		{"unknown slug", "client-9", stranger.Token, wire.CodeUnknownPortal, nil},
		{"no token", "client-0", wire.NewToken(""), wire.CodeBadRequest, nil},
		{"with Bearer", "client-0", wire.NewToken("Bearer xyz-abc"), wire.CodeBadRequest, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := r.rotate(tt.slug, tt.token).refused(t, tt.code)
			for _, s := range tt.says {
				require.Contains(t, p.Detail, s)
			}
			r.clean("the problem", p.Detail)
		})
	}
	require.Equal(t, before, r.agent.Status().Store.Version)
	require.Empty(t, r.came(), "nothing but questions about identity")
	require.Equal(t, http.StatusLocked, func() int {
		require.Equal(t, 200, r.api("POST", "/v1/lock", "").status)
		return r.rotate("client-0", stranger.Token).status
	}())
}

func TestRotateComparesScopes(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	infos := func(scopes ...string) {
		t.Helper()
		r.hubspot.ClearFaults()
		for _, s := range scopes {
			r.hubspot.AddFault(sandbox.Fault{PathPrefix: hubspot.TokenInfoPath, Times: 1, Status: 200,
				Header: http.Header{"Content-Type": {"application/json"}}, Body: s})
		}
	}
	token := r.next(1000)
	infos(`{"hubId":1000,"scopes":["crm.objects.contacts.read"]}`, `{"hubId":1000,"scopes":["crm.objects.contacts.read","crm.objects.deals.write"]}`)
	p := r.rotate("client-0", token).refused(t, wire.CodeScopeMissing)
	require.Contains(t, p.Detail, "crm.objects.deals.write")
	require.NotContains(t, p.Detail, "contacts.read")

	infos(`{"hubId":1001,"scopes":[]}`)
	r.rotate("client-0", token).refused(t, wire.CodeIdentityMismatch)

	require.NoError(t, r.hubspot.SetIdentity(1000, sandbox.Identity{TokenInfo: 404}))
	r.hubspot.ClearFaults()
	got := r.rotated("client-0", token)
	require.Contains(t, got.Warning, "were not compared")
	require.Empty(t, got.Scopes)
	require.Contains(t, r.records(chain.Filter{Kind: chain.PortalRotated})[0].Reason, "were not compared")
}

func TestRotateMendsADeadToken(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	r.hubspot.RevokeToken(r.hubspot.ActiveToken(1000))
	require.Equal(t, 401, r.call("client-0", "GET", contacts, nil).status)
	r.state("client-0", wire.StateQuarantined)
	p := r.rotated("client-0", r.next(1000))
	require.Equal(t, wire.StateReady, p.State)
	require.Contains(t, p.Warning, "old token's scopes")
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
}

func TestThreat02RotateToAnotherPortalIsRefused(t *testing.T) {
	const portals = 10
	r := newRig(t, rigOptions{portals: portalsOf(portals)})
	r.ready(portals)
	foreign := map[string]bool{}
	var rows []string
	for i := range 100 { // each a new token of a portal that is not the slug's
		id := int64(1000 + (i+1)%portals)
		token := sparePut(t, r, id)
		foreign[token.Fingerprint()] = true
		slug := fmt.Sprintf("client-%d", i%portals)
		if i%2 == 0 {
			r.rotate(slug, token).refused(t, wire.CodeIdentityMismatch)
			continue
		}
		rows = append(rows, row(slug, token, 0))
		if len(rows) == portals/2 {
			results, done := r.fleet("/v1/rotate", rows...)
			for _, res := range results {
				require.Equal(t, wire.CodeIdentityMismatch, res.Code, "%+v", res)
			}
			require.Equal(t, len(rows), done.Rejected)
			rows = nil
		}
	}
	require.Len(t, foreign, 100)
	require.EqualValues(t, 2, r.agent.Status().Store.Version, "nothing was written")
	for _, p := range r.portals {
		require.Equal(t, 200, r.call(p.Slug, "GET", tagged(p.Slug), nil).status)
	}
	for _, req := range r.came() {
		require.False(t, foreign[req.TokenFingerprint], "a refused token was sent with a call")
	}
	require.Empty(t, r.crossed())
	r.cleanAll()
}

func TestBulkRotation(t *testing.T) {
	ps := portalsOf(12)
	r := newRig(t, rigOptions{portals: ps})
	r.ready(12)
	before := r.agent.Status().Store.Version
	var rows []string
	fresh := map[int]wire.Token{}
	for i := range 6 {
		fresh[i] = r.next(ps[i].ID)
		rows = append(rows, row(ps[i].Slug, fresh[i], ps[i].ID))
	}
	bad := []struct {
		row  string
		code wire.Code
	}{
		{row("client-6", sparePut(t, r, 1007), 0), wire.CodeIdentityMismatch},
		{row("client-7", sandbox.NewToken("na1"), 0), wire.CodeTokenRejected},
		{row("client-8", ps[9].Token, 0), wire.CodeConflict},
		{row("client-9", sparePut(t, r, 1009), 1008), wire.CodeIdentityMismatch},
		{row("nobody", sparePut(t, r, 1009), 0), wire.CodeUnknownPortal},
		{`not json`, wire.CodeBadRequest},
	}
	for _, b := range bad {
		rows = append(rows, b.row)
	}
	rows = append(rows, row("client-10", ps[10].Token, 0))

	_, dry := r.fleet("/v1/rotate?dryRun=true", rows...)
	require.Equal(t, wire.FleetDone{Done: true, OK: 6, Exists: 1, Rejected: len(bad), StoreVersion: before}, dry)
	results, done := r.fleet("/v1/rotate", rows...)
	require.Equal(t, wire.FleetDone{Done: true, OK: 6, Exists: 1, Rejected: len(bad), StoreVersion: before + 1}, done)
	for i := range 6 {
		require.Equal(t, wire.RowOK, results[i+1].Result, "%+v", results[i+1])
		require.Equal(t, fresh[i], r.entry(ps[i].Slug).Token)
		require.Equal(t, wire.RotationSwitched, r.rotation(ps[i].Slug).State)
	}
	for i, b := range bad {
		require.Equal(t, wire.RowRejected, results[7+i].Result, "%+v", results[7+i])
		require.Equal(t, b.code, results[7+i].Code, "%+v", results[7+i])
	}
	require.Equal(t, wire.RowExists, results[len(rows)].Result)
	require.Len(t, r.records(chain.Filter{Kind: chain.PortalRotated}), 6)
	for _, p := range ps {
		require.Equal(t, 200, r.call(p.Slug, "GET", tagged(p.Slug), nil).status)
	}
	require.Equal(t, 12, r.agent.Status().Portals[string(wire.StateReady)])
	_, again := r.fleet("/v1/rotate", rows[:6]...)
	require.Equal(t, wire.FleetDone{Done: true, Exists: 6, StoreVersion: before + 1}, again)
	r.cleanAll()
}

func TestThreat01RotationsUnderLoad(t *testing.T) {
	const portals, clients, rotations = 3, 16, 30
	r := newRig(t, rigOptions{portals: portalsOf(portals)})
	r.ready(portals)
	var (
		stop atomic.Bool
		made atomic.Int64
		wg   sync.WaitGroup
	)
	for c := range clients {
		wg.Go(func() {
			for i := c; !stop.Load(); i++ {
				slug := r.portals[i%portals].Slug
				got := r.call(slug, "GET", tagged(slug), nil)
				if got.status != 200 || got.err != nil {
					t.Errorf("%s: %d %s %v", slug, got.status, got.body, got.err)
					return
				}
				made.Add(1)
			}
		})
	}
	for i := range rotations {
		p := r.portals[i%portals]
		token := r.next(p.ID)
		mark := made.Load()
		r.rotated(p.Slug, token)
		r.call(p.Slug, "GET", tagged(p.Slug)+fmt.Sprintf("&mark=%d-%s", i, token.Fingerprint()), nil)
		eventually(t, func() bool { return made.Load() > mark || t.Failed() }, "calls go on")
	}
	stop.Store(true)
	wg.Wait()
	require.Empty(t, r.crossed())
	marked := 0
	for _, req := range r.came() {
		require.Equal(t, 200, req.Status)
		if _, mark, ok := strings.Cut(req.RawQuery, "&mark="); ok {
			_, fingerprint, _ := strings.Cut(mark, "-")
			require.Equal(t, fingerprint, req.TokenFingerprint, "a call made after a rotation had the old token")
			marked++
		}
	}
	require.Equal(t, rotations, marked)
	require.Len(t, r.records(chain.Filter{Kind: chain.PortalRotated}), rotations)
	for _, rec := range r.checkLog() {
		require.Equal(t, 200, rec.StatusCode)
	}
	r.cleanAll()
}

func TestRotationKeepsACallInFlight(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	old := r.hubspot.ActiveToken(1000)
	r.hubspot.SetFaults(sandbox.Fault{Portal: 1000, PathPrefix: "/crm/", Times: 1, Trickle: time.Millisecond})
	ended := make(chan answer, 1)
	go func() { ended <- r.call("client-0", "GET", contacts+"?limit=1", nil) }()
	eventually(t, func() bool { return len(r.came()) == 1 }, "the call has arrived")
	r.rotated("client-0", r.next(1000))
	require.Equal(t, 1, r.agent.Status().CallsInFlight, "it is still under way")
	got := <-ended
	require.NoError(t, got.err)
	require.Equal(t, 200, got.status)
	require.Equal(t, old.Fingerprint(), r.outcomeOf(got).TokenFingerprint)
}
