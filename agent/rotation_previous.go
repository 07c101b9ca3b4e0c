package agent

import (
	"context"
	"net/http"
	"time"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// DefaultRetireEvery is how often HubSpot is asked whether it still takes the
// tokens before the last rotations.
const DefaultRetireEvery = 15 * time.Minute

// A previous token is sent to account-info and nowhere else, until it serves
// again.

// before returns the credential of the slug's token before the last rotation,
// of which nothing is known, or nil.
func (c *credential) before() *credential {
	if c.Previous == nil {
		return nil
	}
	return c.with(c.Previous.Token)
}

// graceOver reports whether HubSpot was to have dropped the previous token by
// now. A store that does not say when makes it never.
func (c *credential) graceOver() bool {
	return c.Previous != nil && !c.Previous.Until.IsZero() && time.Now().After(c.Previous.Until)
}

// replaced reports whether the slug has another token by now.
func (a *Agent) replaced(c *credential) bool {
	now := a.keys.Load().credential(c.Slug.String())
	return now != nil && !sameToken(now.Token, c.Token)
}

// fallBack makes the previous token of c serve again, because HubSpot refuses
// c's: "Cancel rotation" there revokes the new token and keeps the old. It does
// so only if HubSpot has just named the slug's portal for it. It returns the
// credential that serves, and whether it fell back.
func (a *Agent) fallBack(ctx context.Context, c *credential) (*credential, bool) {
	prev := c.before()
	if prev == nil || c.graceOver() || a.replaced(c) {
		return nil, false
	}
	account, p := a.details(ctx, prev)
	if p == nil && account.PortalID != c.PortalID {
		p = wire.Errorf(wire.CodeIdentityMismatch, "it opens portal %d, not %d", account.PortalID, c.PortalID)
	}
	if p != nil {
		a.log.WarnContext(ctx, "HubSpot refused the token, and the one before it does not help", "slug", c.Slug.String(), "portal", c.PortalID, "reason", p.Detail)
		return nil, false
	}
	ctx = context.WithoutCancel(ctx) // a change once begun is carried through
	now := time.Now()
	prev.confirmed(account, now)
	prev.LastRotatedAt = c.LastRotatedAt
	if j, err := a.journal.Read(ctx); err == nil && j.Latest[c.Slug.String()].NewFingerprint == c.fingerprint {
		prev.LastRotatedAt = j.Latest[c.Slug.String()].OldRotatedAt.Time
	}
	err := a.update(ctx, func(e *credstore.Edit) error {
		entry, ok := e.Get(c.Slug)
		if !ok || entry.Previous == nil || !sameToken(entry.Token, c.Token) || !sameToken(entry.Previous.Token, prev.Token) {
			return errChanged(c.Slug)
		}
		// Noted first: after a crash the journal tells why the old one serves.
		a.noteRotation(ctx, c.Slug.String(), c.fingerprint, func(j *credstore.Rotation) { j.FellBackAt = wire.At(now) })
		entry.Token, entry.Previous, entry.Scopes = prev.Token, nil, nil
		entry.VerifiedAt, entry.LastRotatedAt = now, prev.LastRotatedAt
		return e.Put(entry)
	}, prev)
	if err != nil && a.replaced(c) {
		return nil, false // another was quicker
	}
	if err != nil {
		a.log.ErrorContext(ctx, "HubSpot refused the token; the one before it would do, but the store could not be changed",
			"slug", c.Slug.String(), "portal", c.PortalID, "error", err)
		return nil, false
	}
	rec := a.eventOf(chain.PortalRotated, prev)
	if k := a.keys.Load(); k != nil {
		rec.StoreVersion = k.version
	}
	a.noteFallBack(ctx, rec, c.fingerprint, now)
	return prev, true
}

// fellBack is the verdict on a token that the one before has taken the place
// of.
func fellBack(c *credential, v verdict) verdict {
	return verdict{settled: true,
		problem: wire.Errorf(wire.CodePortalUnverified, "slug %s: HubSpot refused its token, and calls leave with the one before the last rotation again: send the call again", c.Slug),
		cause: wire.Errorf(v.cause.Code, "%s. Calls leave with the token before the last rotation again: see hsctl rotate status %s",
			v.cause.Detail, c.Slug)}
}

// noteFallBack tells the logs and the journal that a slug fell back from the
// token of the fingerprint to the one that rec is about.
func (a *Agent) noteFallBack(ctx context.Context, rec chain.Record, from string, at time.Time) {
	a.log.ErrorContext(ctx, "fell back to the token before the last rotation: HubSpot refused the new one. Was \"Cancel rotation\" pressed there?",
		"slug", rec.ClientSlug, "portal", rec.PortalID, "refused", from, "serving", rec.TokenFingerprint)
	rec.Reason = "fell back: HubSpot refused token " + from + ", and token " + rec.TokenFingerprint + ", the one before it, serves again"
	if _, err := a.audit.Append(ctx, rec); err != nil {
		a.log.ErrorContext(ctx, "not recorded", "kind", string(rec.Kind), "slug", rec.ClientSlug, "error", err)
	}
	a.noteRotation(ctx, rec.ClientSlug, from, func(j *credstore.Rotation) {
		j.State, j.FellBackAt = wire.RotationFellBack, wire.At(at)
	})
}

// noteRotation changes what the journal says of the slug's rotation to the
// token of the fingerprint, if it was the latest.
func (a *Agent) noteRotation(ctx context.Context, slug, fingerprint string, fn func(*credstore.Rotation)) {
	err := a.journal.Update(ctx, func(all *credstore.Rotations) {
		all.Switch(slug, fingerprint, time.Now()) // one whose end was not noted
		if j, ok := all.Latest[slug]; ok && j.NewFingerprint == fingerprint {
			fn(&j)
			all.Latest[slug] = j
		}
	})
	if err != nil {
		a.log.ErrorContext(ctx, "the checklist of a rotation is not kept", "slug", slug, "error", err)
	}
}

// details asks account-info, and nothing else, whose the credential's token is.
func (a *Agent) details(ctx context.Context, c *credential) (*hubspot.Account, *wire.Problem) {
	got, p := a.ask(ctx, c, http.MethodGet, hubspot.DetailsPath, nil)
	if p != nil {
		return nil, p
	}
	if p := got.problem("account-info"); p != nil {
		return nil, p
	}
	account, err := hubspot.DecodeAccount(got.body)
	if err != nil {
		return nil, wire.Errorf(wire.CodeUpstreamInvalid, "account-info: %v", err)
	}
	return &account, nil
}

// retire drops the previous token of c if HubSpot refuses it, or if its grace
// is over. confirmed says that HubSpot has just taken c's own token; else it is
// asked: an outage that refuses everything proves nothing.
func (a *Agent) retire(ctx context.Context, c *credential, confirmed bool) {
	prev := c.before()
	if prev == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	_, p := a.details(ctx, prev)
	refused := p != nil && p.Code == wire.CodeTokenRejected
	if p == nil && !confirmed && !c.graceOver() && c.identity.stopped() != nil {
		// Perhaps a cancelled rotation, at a time when HubSpot did not answer
		// for the old token.
		if _, dead := a.whose(ctx, c); dead != nil && dead.Code == wire.CodeTokenRejected {
			a.fallBack(ctx, c)
			return
		}
	}
	if refused && !confirmed {
		account, problem := a.whose(ctx, c)
		refused = judge(c, account, problem).problem == nil
	}
	if !refused && !c.graceOver() || ctx.Err() != nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	if refused {
		// Before the store: that HubSpot refused it stays true whatever comes.
		a.noteRotation(ctx, c.Slug.String(), c.fingerprint, func(j *credstore.Rotation) {
			j.State, j.RefusedAt = wire.RotationConfirmed, wire.At(time.Now())
		})
	}
	err := a.update(ctx, func(e *credstore.Edit) error {
		entry, ok := e.Get(c.Slug)
		if !ok || entry.Previous == nil || !sameToken(entry.Previous.Token, prev.Token) {
			return nil // gone already
		}
		entry.Previous = nil
		return e.Put(entry)
	})
	switch {
	case err != nil:
		a.log.WarnContext(ctx, "the token before the last rotation could not be dropped from the store", "slug", c.Slug.String(), "error", err)
	case refused:
		a.log.InfoContext(ctx, "HubSpot refuses the token before the last rotation: dropped it", "slug", c.Slug.String(), "portal", c.PortalID, "old", prev.fingerprint)
	case p == nil:
		a.log.WarnContext(ctx, "the grace of the last rotation is over and the old token is dropped here, but HubSpot still takes it: press \"Expire now\" there",
			"slug", c.Slug.String(), "portal", c.PortalID, "old", prev.fingerprint)
	default:
		a.log.WarnContext(ctx, "the grace of the last rotation is over and the old token is dropped, without HubSpot having said that it refuses it",
			"slug", c.Slug.String(), "portal", c.PortalID, "old", prev.fingerprint, "reason", p.Detail)
	}
}

// retireAll asks about previous tokens from time to time while there are any,
// until the agent stops.
func (a *Agent) retireAll() {
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-a.kept:
		}
		for a.keys.Load().keepsPrevious() && sleep(a.ctx, a.cfg.RetireEvery) {
			k := a.keys.Load()
			if k == nil {
				break
			}
			for _, slug := range k.slugs {
				if c := k.creds[slug]; c != nil && c.Previous != nil && a.ctx.Err() == nil {
					a.retire(a.ctx, c, false)
				}
			}
		}
	}
}

// keepsPrevious reports whether any entry has a previous token.
func (k *keyring) keepsPrevious() bool {
	if k == nil {
		return false
	}
	for _, c := range k.creds {
		if c.Previous != nil {
			return true
		}
	}
	return false
}

// settleRotations makes the journal say what the store shows, after a start:
// a rotation that the agent was stopped in has happened if the new token
// serves, and has not if the old one does.
func (a *Agent) settleRotations(ctx context.Context, k *keyring) {
	j, err := a.journal.Read(ctx)
	if err != nil {
		a.log.ErrorContext(ctx, "the checklists of rotations cannot be had", "error", err)
		return
	}
	for slug, s := range j.Staged {
		switch c := k.credential(slug); {
		case c == nil: // rejected or removed: nobody can tell yet
		case c.fingerprint == s.NewFingerprint:
			// Its record may or may not have been written: rather twice than never.
			rec := a.eventOf(chain.PortalRotated, c)
			rec.Reason = "token " + s.OldFingerprint + " replaced by " + s.NewFingerprint + ": found at the start, the agent was stopped before it had noted it"
			a.record(ctx, rec)
			a.noteRotation(ctx, slug, s.NewFingerprint, func(*credstore.Rotation) {})
		default:
			a.log.WarnContext(ctx, "a rotation was broken off before the store was written: the old token serves", "slug", slug, "refused", s.NewFingerprint)
			err := a.journal.Update(ctx, func(all *credstore.Rotations) { delete(all.Staged, slug) })
			if err != nil {
				a.log.ErrorContext(ctx, "the checklist of a rotation is not kept", "slug", slug, "error", err)
			}
		}
	}
	for slug, r := range j.Latest {
		c := k.credential(slug)
		if c != nil && r.State == wire.RotationSwitched && !r.FellBackAt.IsZero() && r.OldFingerprint == c.fingerprint {
			a.noteFallBack(ctx, a.eventOf(chain.PortalRotated, c), r.NewFingerprint, time.Now())
		}
	}
}

// stopped returns the problem that keeps calls from leaving and does not go
// away by itself, or nil.
func (id *identity) stopped() *wire.Problem {
	id.mu.Lock()
	defer id.mu.Unlock()
	if !id.settled {
		return nil
	}
	p := *id.problem
	return &p
}
