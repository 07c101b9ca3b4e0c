package agent

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// DefaultReverify is how often HubSpot is asked again which portal a token
// opens.
const DefaultReverify = 24 * time.Hour

// inspect looks at an answer for signs that the slug's token is dead or opens
// another portal after all.
func (c *call) inspect(res result) {
	if res.resp == nil || c.caller.Agent {
		return
	}
	said := res.kept.said()
	for _, portal := range said.Portals {
		if portal == c.cred.PortalID {
			continue
		}
		if said.Category == "VALIDATION_ERROR" {
			// Its text may repeat what the caller sent: a reason to ask, no proof.
			c.agent.suspect(c.cred)
			return
		}
		c.agent.quarantine(c.cred, wire.CodeIdentityMismatch, wire.Errorf(wire.CodePortalQuarantined,
			"slug %s is quarantined: HubSpot's answer to call %s came from portal %d, but the store says portal %d. Data of two clients may be mixed up: look at the calls since the last verification (hsctl audit query --slug %s), then run: hsctl resume %s",
			c.slug, c.id, portal, c.cred.PortalID, c.slug, c.slug))
		return
	}
	switch {
	case res.resp.StatusCode == http.StatusUnauthorized:
		c.agent.suspect(c.cred)
	case res.resp.StatusCode == http.StatusForbidden && (said.Category == "BANNED" || strings.Contains(said.Category, "SUSPENDED")):
		c.agent.quarantine(c.cred, wire.CodeTokenRejected, wire.Errorf(wire.CodePortalQuarantined,
			"slug %s is quarantined: HubSpot says that portal %d is suspended (%s). Talk to the client, then run: hsctl resume %s",
			c.slug, c.cred.PortalID, c.clean(said.Category), c.slug))
	}
}

// suspect asks HubSpot about a confirmed token again, in the background and
// once at a time: a call was answered as if the token were dead.
func (a *Agent) suspect(c *credential) {
	if !c.identity.suspected.CompareAndSwap(false, true) {
		return
	}
	started := a.spawn(func() {
		defer c.identity.suspected.Store(false)
		c.identity.take(c, a.check(a.ctx, c), false)
	})
	if !started {
		c.identity.suspected.Store(false)
	}
}

// quarantine stops a slug, and tells everyone, for a reason that no question
// to HubSpot can lift: only resume does.
func (a *Agent) quarantine(c *credential, code wire.Code, p *wire.Problem) {
	if !c.identity.hold(p) {
		return // told before
	}
	a.noteQuarantine(a.ctx, c, code, p)
}

// noteQuarantine tells the logs that a slug is stopped.
func (a *Agent) noteQuarantine(ctx context.Context, c *credential, code wire.Code, p *wire.Problem) {
	a.log.ErrorContext(ctx, "portal quarantined", "slug", c.Slug.String(), "portal", c.PortalID, "code", string(code), "reason", p.Detail)
	rec := a.eventOf(chain.PortalQuarantined, c)
	rec.Reason, rec.Error = p.Detail, string(code)
	a.record(ctx, rec)
}

// reverify asks again about tokens whose confirmation has become old, until
// the agent stops.
func (a *Agent) reverify() {
	tick := time.NewTicker(max(a.cfg.Reverify/100, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-tick.C:
		}
		k := a.keys.Load()
		if k == nil {
			continue
		}
		for _, slug := range k.slugs {
			if c := k.creds[slug]; c != nil && c.identity.olderThan(a.cfg.Reverify) && a.ctx.Err() == nil {
				c.identity.take(c, a.check(a.ctx, c), false)
			}
		}
	}
}

// spawn runs fn in the background unless the agent stops; Close waits for it.
func (a *Agent) spawn(fn func()) bool {
	a.spawning.Lock()
	defer a.spawning.Unlock()
	if a.ctx.Err() != nil {
		return false
	}
	a.wg.Go(fn)
	return true
}
