package agent

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/agent/peer"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// How long a call may wait for quota and for further attempts.
const (
	defaultWait = 10 * time.Second
	maxWait     = 10 * time.Minute
)

// nameOf shows a caller's user in a message.
func nameOf(c *peer.Caller) string {
	if c.User != "" {
		return wire.Printable(c.User)
	}
	return "with uid " + strconv.Itoa(c.UID)
}

// auditCaller is the caller as records keep it.
func auditCaller(c *peer.Caller) *chain.Caller {
	return &chain.Caller{UID: c.UID, User: c.User, GID: c.GID, PID: c.PID, Exe: wire.MaskTokens(wire.Printable(c.Exe)), Unit: c.Unit}
}

// noKeys says why there is no keyring: locked, or no store could be loaded.
func (a *Agent) noKeys() *wire.Problem {
	if r := a.refusal.Load(); r != nil {
		return wire.Errorf(wire.CodeLocked, "the agent holds no tokens, because the store could not be loaded: %v. Mend it, then run: hsctl reload", r.err)
	}
	return errLocked()
}

// missing says why a slug has no credential.
func (k *keyring) missing(slug wire.Slug) *wire.Problem {
	if r, ok := k.rejected[slug.String()]; ok {
		return wire.Errorf(wire.CodePortalRejected, "the store's entry for %s is bad: %s. Mend the store: the agent reads it again by itself", slug, r.Reason)
	}
	similar := k.similar(slug.String())
	p := wire.Errorf(wire.CodeUnknownPortal, "no portal has the slug %s%s. List them with: hsctl portals", slug, didYouMean(similar))
	p.Similar = similar
	return p
}

func didYouMean(similar []string) string {
	if len(similar) == 0 {
		return ""
	}
	return " (did you mean " + strings.Join(similar, ", ") + "?)"
}

// missing says why the call's slug has no credential, to a caller whom rules
// limit nothing but that it may not.
func (c *call) missing(k *keyring) *wire.Problem {
	if _, bad := k.rejected[c.slug.String()]; !bad && c.agent.limited(c.conn.caller) {
		c.rule = ruleUnknown
		return c.forbidden(c.conn.caller)
	}
	return k.missing(c.slug)
}

// withdrawn says why a call that was admitted may not leave any more: since
// then, while it waited or between two attempts, the agent was locked, its caller
// hung up, its slug was quarantined, removed or given to another portal, or the
// rules changed.
func (c *call) withdrawn() *wire.Problem {
	k := c.agent.keys.Load()
	switch {
	case k == nil:
		return c.agent.noKeys()
	case c.caller.Agent:
		return nil // asking about tokens is how a quarantine ends, and how a portal is onboarded
	case c.conn.hungUp():
		return wire.Errorf(wire.CodeClientAbort, "the caller hung up before the call was sent")
	}
	switch now := k.credential(c.slug.String()); {
	case now == nil:
		return c.missing(k)
	case now.PortalID != c.cred.PortalID:
		return wire.Errorf(wire.CodeConflict, "slug %s has become another portal's while the call waited, and it was not sent: make it again if it is meant for that one", c.slug)
	}
	if p := c.cred.identity.stopped(); p != nil {
		return p
	}
	return c.permitted()
}

// readOptions reads the call's own headers, which never go on to HubSpot.
func (c *call) readOptions(h http.Header) *wire.Problem {
	reason := h.Get(wire.HeaderReason)
	if len(reason) > wire.MaxReasonBytes {
		return wire.Errorf(wire.CodeBadRequest, "%s has %d bytes, more than %d", wire.HeaderReason, len(reason), wire.MaxReasonBytes)
	}
	c.reason = wire.MaskTokens(wire.Printable(reason))
	switch v := h.Get(wire.HeaderRetry); v {
	case "", "on":
	case "off":
		c.once = true
	default:
		return wire.Errorf(wire.CodeBadRequest, "%s: %s: want on or off", wire.HeaderRetry, wire.Quote(v))
	}
	c.wait = defaultWait
	if v := h.Get(wire.HeaderWait); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 || d > maxWait {
			return wire.Errorf(wire.CodeBadRequest, "%s: %s: want a duration from 0s to %s, such as 30s", wire.HeaderWait, wire.Quote(v), maxWait)
		}
		c.wait = d
	}
	return nil
}

// take counts the call in, or says that there are too many. A slug may use at
// most a quarter of all places, so that one portal that hangs cannot take the
// others'.
func (c *call) take() *wire.Problem {
	a, l := c.agent, c.cred.lane
	limit := int64(a.cfg.MaxInFlight)
	share := max(limit/4, min(limit, 16))
	switch {
	case a.inFlight.Add(1) > limit:
		a.inFlight.Add(-1)
		return wire.Errorf(wire.CodeBusy, "%d calls are in flight, the agent's max_in_flight: try again", limit).After(time.Second)
	case l.inFlight.Add(1) > share:
		l.inFlight.Add(-1)
		a.inFlight.Add(-1)
		return wire.Errorf(wire.CodeBusy, "%d calls for %s are in flight, a portal's share of max_in_flight: try again", share, c.slug).After(time.Second)
	}
	a.lastUse.Store(time.Now().UnixNano())
	return nil
}

// release counts the call out.
func (c *call) release() {
	c.agent.lastUse.Store(time.Now().UnixNano())
	c.cred.lane.inFlight.Add(-1)
	c.agent.inFlight.Add(-1)
}
