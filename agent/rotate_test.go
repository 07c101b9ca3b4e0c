package agent_test

import (
	"context"
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

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore"
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

func TestRotationFallsBack(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	old := r.hubspot.ActiveToken(1000)
	token := r.next(1000)
	r.rotated("client-0", token)
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)

	r.hubspot.CancelRotation(1000)
	require.Equal(t, 401, r.call("client-0", "GET", contacts, nil).status)
	eventually(t, func() bool { return r.rotationState("client-0") == wire.RotationFellBack }, "it falls back by itself")
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	e := r.entry("client-0")
	require.Equal(t, old, e.Token)
	require.Nil(t, e.Previous)
	rot := r.rotation("client-0")
	require.Contains(t, rot.Next, "Cancel rotation")
	recs := r.records(chain.Filter{Kind: chain.PortalRotated})
	require.Len(t, recs, 2)
	require.Contains(t, recs[1].Reason, "fell back")
	require.Equal(t, old.Fingerprint(), recs[1].TokenFingerprint)
	require.Empty(t, r.records(chain.Filter{Kind: chain.PortalQuarantined}))
	require.Contains(t, r.log.String(), `level=ERROR msg="fell back`)
	r.api("POST", "/v1/rotations/client-0/done", `{"consumer":"x"}`).refused(t, wire.CodeNotFound)

	// And on with a new rotation.
	r.rotated("client-0", r.next(1000))
	require.Equal(t, wire.RotationSwitched, r.rotation("client-0").State)
	r.checkLog()
}

// rotationState is the state of the slug's rotation; "" if there is none to show.
func (r *rig) rotationState(slug string) wire.RotationState {
	rot, err := r.client.Rotation(r.t.Context(), slugOf(r.t, slug))
	if err != nil {
		return ""
	}
	return rot.State
}

func TestRotationFallsBackOnVerify(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	r.rotated("client-0", r.next(1000))
	r.hubspot.CancelRotation(1000)
	p := r.api("POST", "/v1/portals/client-0/verify", "").refused(t, wire.CodeTokenRejected)
	require.Contains(t, p.Detail, "before the last rotation again")
	require.Equal(t, 200, r.api("POST", "/v1/portals/client-0/verify", "").status)
	require.Equal(t, wire.RotationFellBack, r.rotation("client-0").State)
}

func TestNoFallBackToAnotherPortal(t *testing.T) {
	ps := portalsOf(3)
	foreign := portalsOf(9)[8]
	r := newRig(t, rigOptions{portals: ps, entries: func(es []credstore.Entry) []credstore.Entry {
		es[0].Previous = &credstore.Previous{Token: foreign.Token, Until: time.Now().Add(time.Hour)}
		es[1].Previous = &credstore.Previous{Token: sandbox.NewToken("na1"), Until: time.Now().Add(time.Hour)}
		return es
	}})
	require.NoError(t, r.hubspot.AddPortal(foreign))
	r.ready(3)
	for i, slug := range []string{"client-0", "client-1"} {
		r.hubspot.RevokeToken(ps[i].Token)
		require.Equal(t, 401, r.call(slug, "GET", tagged(slug), nil).status)
		r.state(slug, wire.StateQuarantined)
		r.call(slug, "GET", tagged(slug), nil).refused(t, wire.CodePortalQuarantined)
		require.Equal(t, ps[i].Token, r.entry(slug).Token)
	}
	for _, req := range r.hubspot.Requests() {
		if req.TokenFingerprint == foreign.Token.Fingerprint() {
			require.Equal(t, hubspot.DetailsPath, req.Path, "a previous token goes to account-info alone")
		}
	}
}

func TestRetirementInTheBackground(t *testing.T) {
	over := sandbox.NewToken("na1")
	r := newRig(t, rigOptions{
		config: func(c *agent.Config) { c.RetireEvery = 20 * time.Millisecond },
		entries: func(es []credstore.Entry) []credstore.Entry {
			es[1].Previous = &credstore.Previous{Token: over, Until: time.Now().Add(-time.Hour)}
			return es
		},
	})
	require.NoError(t, r.hubspot.AddToken(1001, over))
	r.ready(3)
	eventually(t, func() bool { return r.entry("client-1").Previous == nil }, "its grace is over")
	eventually(t, func() bool { return strings.Contains(r.log.String(), "HubSpot still takes it") }, "said so")

	old := r.hubspot.ActiveToken(1000)
	r.rotated("client-0", r.next(1000))
	asked := func() (n int) {
		for _, req := range r.hubspot.Requests() {
			if req.TokenFingerprint == old.Fingerprint() && req.Path == hubspot.DetailsPath {
				n++
			}
		}
		return n
	}
	before := asked()
	eventually(t, func() bool { return asked() > before+1 }, "asked about from time to time")
	require.NotNil(t, r.entry("client-0").Previous)
	r.hubspot.ExpireOld(1000)
	eventually(t, func() bool { return r.rotationState("client-0") == wire.RotationConfirmed }, "confirmed by itself")
	eventually(t, func() bool { return r.entry("client-0").Previous == nil }, "dropped")
	for _, rec := range r.records(chain.Filter{Slug: "client-0", Kind: chain.CallIntent}) {
		if rec.TokenFingerprint == old.Fingerprint() {
			require.True(t, rec.Caller.Agent)
		}
	}
	r.checkLog()
}

// An outage in which HubSpot refuses everything must not cost the token to
// fall back to.
func TestNoRetirementInAnOutage(t *testing.T) {
	r := newRig(t, rigOptions{config: func(c *agent.Config) { c.RetireEvery = 10 * time.Millisecond }})
	r.ready(3)
	r.rotated("client-0", r.next(1000))
	r.hubspot.SetFaults(sandbox.Fault{PathPrefix: hubspot.DetailsPath, Status: http.StatusUnauthorized})
	n := r.hubspot.Count().Total.Arrivals
	eventually(t, func() bool { return r.hubspot.Count().Total.Arrivals > n+6 }, "asked")
	require.NotNil(t, r.entry("client-0").Previous)
	r.hubspot.ClearFaults()
	require.Equal(t, wire.RotationSwitched, r.rotation("client-0").State)
}

func TestRotationConsumers(t *testing.T) {
	r := newRig(t, rigOptions{config: func(c *agent.Config) {
		c.Consumers = []agent.Consumer{
			{Name: "CI secrets", HowTo: "settings of the repository"},
			{Name: "Zapier", Portals: []string{"client-0", "other-*"}},
			{Name: "elsewhere", Portals: []string{"client-[12]"}},
		}
	}})
	r.ready(3)
	done := func(slug, consumer string) answer {
		return r.api("POST", "/v1/rotations/"+slug+"/done", fmt.Sprintf(`{"consumer":%q}`, consumer))
	}
	done("client-0", "CI secrets").refused(t, wire.CodeNotFound) // no rotation yet
	r.rotated("client-0", r.next(1000))
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	rot := r.rotation("client-0")
	require.Equal(t, []wire.RotationConsumer{{Name: "CI secrets", HowTo: "settings of the repository"}, {Name: "Zapier"}}, rot.Consumers)
	require.Contains(t, rot.Next, "CI secrets, Zapier")
	require.Less(t, strings.Index(rot.Next, "Zapier"), strings.Index(rot.Next, "Expire now"), "consumers come first")
	p := done("client-0", "elsewhere").refused(t, wire.CodeNotFound)
	require.Contains(t, p.Detail, "CI secrets, Zapier")

	require.Equal(t, 200, done("client-0", "CI secrets").status)
	first := r.rotation("client-0").Consumers[0].At
	require.NotNil(t, first)
	require.Equal(t, 200, done("client-0", "CI secrets").status)
	rot = r.rotation("client-0")
	require.Equal(t, first, rot.Consumers[0].At)
	require.NotContains(t, rot.Next, "CI secrets")
	require.Contains(t, rot.Next, "Zapier")

	r.hubspot.ExpireOld(1000) // too early
	require.Equal(t, 200, r.api("POST", "/v1/portals/client-0/verify", "").status)
	require.Contains(t, r.rotation("client-0").Next, "at once to: Zapier")
	r.stop()
	r.start(rigOptions{config: func(c *agent.Config) {
		c.Consumers = []agent.Consumer{{Name: "CI secrets"}, {Name: "Zapier"}}
	}})
	r.ready(3)
	require.Equal(t, 200, done("client-0", "Zapier").status)
	rot = r.rotation("client-0")
	require.Equal(t, first, rot.Consumers[0].At)
	require.Contains(t, rot.Next, "complete")

	// The next rotation starts with an empty checklist.
	r.rotated("client-0", r.next(1000))
	require.False(t, r.rotation("client-0").Consumers[0].Done)
	// What another writer does is no rotation of ours.
	outside := sparePut(t, r, 1000)
	e := r.entry("client-0")
	e.Token, e.Previous = outside, nil
	r.put(e)
	r.reload()
	r.api("GET", "/v1/rotations/client-0", "").refused(t, wire.CodeNotFound)
	done("client-0", "Zapier").refused(t, wire.CodeNotFound)
}

func TestCheckConsumers(t *testing.T) {
	tests := []struct {
		name string
		c    agent.Consumer
		ok   bool
	}{
		{"all portals", agent.Consumer{Name: "CI"}, true},
		{"patterns", agent.Consumer{Name: "CI", Portals: []string{"acme-*", "beta"}, HowTo: "vault kv put"}, true},
		{"no name", agent.Consumer{HowTo: "x"}, false},
		{"bad pattern", agent.Consumer{Name: "CI", Portals: []string{"[a"}}, false},
		{"empty pattern", agent.Consumer{Name: "CI", Portals: []string{""}}, false},
		{"line break", agent.Consumer{Name: "CI", HowTo: "a\nb"}, false},
		{"token", agent.Consumer{Name: "CI", HowTo: "put pat-na1-00000000-0000-4000-8000-00000000000a"}, false},
		{"long", agent.Consumer{Name: strings.Repeat("x", 2000)}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.ok, agent.CheckConsumers([]agent.Consumer{tt.c}) == nil) })
	}
	require.ErrorContains(t, agent.CheckConsumers([]agent.Consumer{{Name: "CI"}, {Name: "CI"}}), "twice")
}

// A crasher is an audit log at whose record of a rotation the handler dies.
type crasher struct {
	*auditstore.Store
	before, after atomic.Bool // the record is durable
}

func (c *crasher) Append(ctx context.Context, rec chain.Record) (chain.Receipt, error) {
	if rec.Kind == chain.PortalRotated && c.before.Swap(false) {
		panic("stopped before the record")
	}
	receipt, err := c.Store.Append(ctx, rec)
	if rec.Kind == chain.PortalRotated && c.after.Swap(false) {
		panic("stopped after the record")
	}
	return receipt, err
}

// A rotation is stopped at each step in turn, fifty times over: the store
// always opens, exactly one of the two tokens serves, and the journal says
// which.
func TestRotationSurvivesStopsAtEveryStep(t *testing.T) {
	var log *crasher
	o := rigOptions{portals: portalsOf(2), config: func(c *agent.Config) {
		log = &crasher{Store: c.Audit.(*auditstore.Store)}
		c.Audit = log
	}}
	r := newRig(t, o)
	journal := credstore.OpenJournal(r.store.Path())
	steps := []struct {
		name    string
		stop    func(token wire.Token) // runs a rotation up to the step, and stops the agent
		happens bool
		records int
	}{
		{"before anything", func(wire.Token) { r.stop() }, false, 0},
		{"staged", func(token wire.Token) {
			r.stop()
			require.NoError(t, journal.Update(t.Context(), func(j *credstore.Rotations) {
				j.Staged["client-0"] = credstore.Rotation{PortalID: 1000, NewFingerprint: token.Fingerprint(),
					OldFingerprint: r.entry("client-0").Token.Fingerprint(), StartedAt: wire.At(time.Now())}
			}))
		}, false, 0},
		{"store written", func(token wire.Token) {
			log.before.Store(true)
			r.rotate("client-0", token).refused(t, wire.CodeInternal)
			r.stop()
		}, true, 1},
		{"recorded", func(token wire.Token) {
			log.after.Store(true)
			r.rotate("client-0", token).refused(t, wire.CodeInternal)
			r.stop()
		}, true, 2}, // rather twice than never
		{"switched", func(token wire.Token) {
			r.rotated("client-0", token)
			r.stop()
		}, true, 1},
	}
	records := 0
	for i := range 50 {
		step := steps[i%len(steps)]
		r.ready(2)
		old, token := r.hubspot.ActiveToken(1000), r.next(1000)
		step.stop(token)

		e := r.entry("client-0") // the store opens
		want, other := old, token
		if step.happens {
			want, other = token, old
			require.Equal(t, old, e.Previous.Token, step.name)
		} else {
			r.hubspot.CancelRotation(1000) // as somebody does who finds it was not taken
		}
		require.Equal(t, want, e.Token, step.name)
		r.start(o)
		r.ready(2)
		require.Equal(t, 200, r.call("client-0", "GET", tagged("client-0")+fmt.Sprintf("&mark=%d", i), nil).status)
		sent := r.came()[len(r.came())-1]
		require.Equal(t, want.Fingerprint(), sent.TokenFingerprint, "%s: the store's token serves", step.name)

		j, err := journal.Read(t.Context())
		require.NoError(t, err)
		require.Empty(t, j.Staged, step.name)
		if step.happens {
			rot := r.rotation("client-0")
			require.Equal(t, wire.RotationSwitched, rot.State, step.name)
			require.Equal(t, want.Fingerprint(), rot.NewFingerprint, step.name)
			require.Equal(t, other.Fingerprint(), rot.OldFingerprint, step.name)
		} else {
			require.NotEqual(t, other.Fingerprint(), j.Latest["client-0"].NewFingerprint, step.name)
		}
		records += step.records
		require.Len(t, r.records(chain.Filter{Kind: chain.PortalRotated}), records, step.name)
	}
	require.Empty(t, r.crossed())
	r.cleanAll()
}

// The agent was stopped between the store write of a fall-back and its end in
// the journal.
func TestFallBackIsSettledAtTheStart(t *testing.T) {
	o := rigOptions{portals: portalsOf(2)}
	r := newRig(t, o)
	r.ready(2)
	old := r.hubspot.ActiveToken(1000)
	r.rotated("client-0", r.next(1000))
	r.stop()
	r.hubspot.CancelRotation(1000)
	e := r.entry("client-0")
	e.Token, e.Previous = old, nil
	r.put(e)
	require.NoError(t, credstore.OpenJournal(r.store.Path()).Update(t.Context(), func(j *credstore.Rotations) {
		rot := j.Latest["client-0"]
		rot.FellBackAt = wire.At(time.Now())
		j.Latest["client-0"] = rot
	}))
	r.start(o)
	r.ready(2)
	require.Equal(t, wire.RotationFellBack, r.rotation("client-0").State)
	require.Contains(t, r.records(chain.Filter{Kind: chain.PortalRotated})[1].Reason, "fell back")
}

// Without its journal a rotation is refused, and everything else goes on.
func TestABrokenJournal(t *testing.T) {
	o := rigOptions{portals: portalsOf(2)}
	r := newRig(t, o)
	r.ready(2)
	r.stop()
	path := r.store.Path() + ".rotations"
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	r.start(o)
	r.ready(2)
	before, token := r.entry("client-0").Token, r.next(1000)
	p := r.rotate("client-0", token).refused(t, wire.CodeInternal)
	require.Contains(t, p.Detail, "move it away")
	require.Equal(t, before, r.entry("client-0").Token)
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	require.NoError(t, os.Remove(path))
	r.rotated("client-0", token)
}
