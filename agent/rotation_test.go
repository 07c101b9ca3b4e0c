package agent_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
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
			{Name: "CI secrets", HowTo: "settings of the repository", Check: "gh run list"},
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
	require.Equal(t, []wire.RotationConsumer{{Name: "CI secrets", HowTo: "settings of the repository", Check: "gh run list"}, {Name: "Zapier"}}, rot.Consumers)
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
		{"patterns", agent.Consumer{Name: "CI", Portals: []string{"acme-*", "beta"}, HowTo: "vault kv put", Check: "vault kv get"}, true},
		{"no name", agent.Consumer{HowTo: "x"}, false},
		{"bad pattern", agent.Consumer{Name: "CI", Portals: []string{"[a"}}, false},
		{"empty pattern", agent.Consumer{Name: "CI", Portals: []string{""}}, false},
		{"line break", agent.Consumer{Name: "CI", HowTo: "a\nb"}, false},
		{"line break in the check", agent.Consumer{Name: "CI", Check: "a\nb"}, false},
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
