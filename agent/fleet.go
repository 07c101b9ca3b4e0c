package agent

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/leak"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// updateTimeout bounds a change of the store, most of it a wait for the lock
// that an outside writer may hold.
const updateTimeout = 15 * time.Second

// putPortal onboards a slug: verify, then write the store.
func (a *Agent) putPortal(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	var in tokenBody
	if p := readSecret(w, r, &in, putKeys...); p != nil {
		return p
	}
	dryRun, p := req.flag("dryRun")
	if p != nil {
		return p
	}
	token := in.Token
	if err := token.Check(); err != nil {
		return wire.Errorf(wire.CodeBadRequest, "slug %s: %v", req.slug, err)
	}
	if in.PortalID < 0 {
		return wire.Errorf(wire.CodeBadRequest, "slug %s: portalId %d is no portal's number", req.slug, in.PortalID)
	}
	if !credstore.ValidKind(in.Kind) {
		return wire.Errorf(wire.CodeBadRequest, "slug %s: kind %s: want service-key, private-app or static-app", req.slug, wire.Quote(in.Kind))
	}
	k := a.keys.Load()
	if k == nil {
		return a.noKeys()
	}
	if c := k.credential(req.slug.String()); c != nil {
		if !sameToken(c.Token, token) || in.PortalID != 0 && in.PortalID != c.PortalID {
			return errExists(req.slug)
		}
		writeJSON(w, http.StatusOK, c.view())
		return nil
	}
	fresh, p := a.newcomer(r.Context(), credstore.Entry{Slug: req.slug, Token: token, PortalID: in.PortalID, Kind: in.Kind})
	if p != nil {
		return p
	}
	if dryRun {
		defer fresh.lane.pool.Close()
		if p := k.taken(fresh); p != nil {
			return p
		}
		writeJSON(w, http.StatusOK, fresh.view())
		return nil
	}
	err := a.update(r.Context(), func(e *credstore.Edit) error {
		if _, ok := e.Get(req.slug); ok {
			return errExists(req.slug)
		}
		return e.Put(fresh.Entry)
	}, fresh)
	if err != nil {
		fresh.lane.pool.Close()
		return updateProblem(req.slug, err)
	}
	rec := a.event(chain.PortalOnboarded)
	rec.ClientSlug, rec.PortalID, rec.TokenFingerprint = req.slug.String(), fresh.PortalID, fresh.fingerprint
	if p := a.recordManaged(r, rec); p != nil {
		return p
	}
	writeJSON(w, http.StatusCreated, fresh.view())
	return nil
}

// postTokenCheck asks HubSpot which portal a token opens, and keeps nothing.
func (a *Agent) postTokenCheck(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	var in tokenBody
	if p := readSecret(w, r, &in, checkKeys...); p != nil {
		return p
	}
	token := in.Token
	if err := token.Check(); err != nil {
		return wire.Errorf(wire.CodeBadRequest, "%v", err)
	}
	c, p := a.newcomer(r.Context(), credstore.Entry{Token: token, PortalID: in.PortalID})
	if p != nil {
		return p
	}
	c.lane.pool.Close()
	writeJSON(w, http.StatusOK, wire.TokenPortal{PortalID: c.PortalID, AccountType: c.AccountType, TimeZone: c.TimeZone, DataHosting: c.DataHosting})
	return nil
}

// newcomer verifies the token of an entry that is not in the store and returns
// its confirmed credential. An entry without a portal ID takes the one that
// HubSpot names.
func (a *Agent) newcomer(ctx context.Context, e credstore.Entry) (*credential, *wire.Problem) {
	l, err := a.newLane(e)
	if err != nil {
		return nil, asProblem(err)
	}
	c := &credential{
		Entry: e, fingerprint: e.Token.Fingerprint(), identity: newIdentity(),
		needles: leak.New(e.Token), lane: l,
	}
	account, p := a.whose(ctx, c)
	switch {
	case p != nil:
		l.pool.Close()
		p.Detail = named(e.Slug) + p.Detail
		return nil, p
	case e.PortalID != 0 && account.PortalID != e.PortalID:
		l.pool.Close()
		return nil, wire.Errorf(wire.CodeIdentityMismatch,
			"%sthe token opens portal %d, not %d: it is another client's token, or the number is wrong", named(e.Slug), account.PortalID, e.PortalID)
	}
	now := time.Now()
	c.PortalID, c.Datacenter = account.PortalID, c.homeDatacenter()
	c.AddedAt, c.LastRotatedAt, c.VerifiedAt = now, now, now
	l.setZone(account.TimeZone)
	c.AccountType, c.TimeZone, c.DataHosting = account.AccountType, account.TimeZone, account.DataHostingLocation
	if c.Datacenter == "" {
		c.Datacenter = account.DataHostingLocation
	}
	c.identity.take(c, judge(c, account, nil), false)
	return c, nil
}

// named starts a message with the slug that it is about, if there is one.
func named(slug wire.Slug) string {
	if slug.IsZero() {
		return ""
	}
	return "slug " + slug.String() + ": "
}

// taken says which other slug already has the credential's token or portal.
func (k *keyring) taken(c *credential) *wire.Problem {
	for _, o := range k.creds {
		if o.PortalID == c.PortalID || sameToken(o.Token, c.Token) {
			return wire.Errorf(wire.CodeConflict, "slug %s: portal %d stands in the store already, under slug %s", c.Slug, c.PortalID, o.Slug)
		}
	}
	return nil
}

func errExists(slug wire.Slug) *wire.Problem {
	return wire.Errorf(wire.CodeConflict,
		"slug %s exists with another token or portal: nothing was changed. Take it out first (hsctl remove %s) or choose another slug", slug, slug)
}

// updateProblem says why the store was not changed.
func updateProblem(slug wire.Slug, err error) *wire.Problem {
	var p *wire.Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, credstore.ErrConflict), errors.Is(err, credstore.ErrRollback), errors.Is(err, credstore.ErrMassRemoval):
		return wire.Errorf(wire.CodeConflict, "the store was not changed: %v", err)
	default:
		return wire.Errorf(wire.CodeInternal, "slug %s: the store was not changed: %v", slug, err)
	}
}

// recordManaged makes the record of a change that a caller made durable.
func (a *Agent) recordManaged(r *http.Request, rec chain.Record) *wire.Problem {
	rec.Caller = auditCaller(callerOf(r))
	if k := a.keys.Load(); k != nil {
		rec.StoreVersion = k.version
	}
	if _, err := a.audit.Append(context.WithoutCancel(r.Context()), rec); err != nil {
		return wire.Errorf(wire.CodeAuditUnavailable, "slug %s: the store was changed, but the record of it could not be written: %v", rec.ClientSlug, err)
	}
	return nil
}

// deletePortal offboards a slug. Its audit records stay.
func (a *Agent) deletePortal(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	k := a.keys.Load()
	if k == nil {
		return a.noKeys()
	}
	rec := a.event(chain.PortalRemoved)
	rec.ClientSlug = req.slug.String()
	if c := k.credential(req.slug.String()); c != nil {
		rec.PortalID, rec.TokenFingerprint = c.PortalID, c.fingerprint
	}
	err := a.update(r.Context(), func(e *credstore.Edit) error {
		if !e.Remove(req.slug) {
			return k.missing(req.slug)
		}
		return nil
	})
	if err != nil {
		return updateProblem(req.slug, err)
	}
	if p := a.recordManaged(r, rec); p != nil {
		return p
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// postVerify asks HubSpot again which portal the slug's token opens.
func (a *Agent) postVerify(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	c, p := a.recheck(r.Context(), req.slug, false)
	if p != nil {
		return p
	}
	a.retire(r.Context(), c, true)
	writeJSON(w, http.StatusOK, c.view())
	return nil
}

// postResume lifts a quarantine, if HubSpot now confirms the slug's portal.
func (a *Agent) postResume(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	c, p := a.recheck(r.Context(), req.slug, true)
	if p != nil {
		return p
	}
	rec := a.event(chain.PortalResumed)
	rec.ClientSlug, rec.PortalID, rec.TokenFingerprint = req.slug.String(), c.PortalID, c.fingerprint
	if p := a.recordManaged(r, rec); p != nil {
		return p
	}
	writeJSON(w, http.StatusOK, c.view())
	return nil
}

// recheck asks HubSpot about the slug's token, whatever is known of it.
func (a *Agent) recheck(ctx context.Context, slug wire.Slug, resume bool) (*credential, *wire.Problem) {
	k := a.keys.Load()
	if k == nil {
		return nil, a.noKeys()
	}
	c := k.credential(slug.String())
	if c == nil {
		return nil, k.missing(slug)
	}
	v := a.check(ctx, c)
	c.identity.take(c, v, resume)
	return c, v.cause
}

// update changes the store file and makes the result serve. What is known of
// fresh credentials, which fn puts into the store, is carried over.
func (a *Agent) update(ctx context.Context, fn func(*credstore.Edit) error, fresh ...*credential) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), updateTimeout)
	defer cancel()
	a.loads.Lock()
	defer a.loads.Unlock()
	if a.file == nil {
		return errLocked()
	}
	store, err := a.file.Update(ctx, func(e *credstore.Edit) error {
		// What stands on disk may be another writer's: it must be fit to
		// serve before anything is added to it.
		if err := a.guard.Admit(a.store, e.Store(), false); err != nil {
			return err
		}
		return fn(e)
	})
	if err != nil {
		return err
	}
	if err := a.guard.Admit(a.store, store, true); err != nil {
		return err
	}
	return a.swapLocked(ctx, store, fresh...)
}
