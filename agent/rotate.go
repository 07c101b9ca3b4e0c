package agent

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/leak"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// grace is how long HubSpot goes on taking the old token after "Rotate and
// expire later", as its page on private apps says.
const grace = 7 * 24 * time.Hour

// A rotation is one slug's change of token on its way. Its order on disk is:
// the journal notes it as staged; the store is replaced, in one step, by one
// with the new token and the old as previous; the audit log has its record;
// the journal notes it as switched. Whatever ends the agent in between, the
// store holds one of the two tokens as the one that serves, and
// [Agent.settleRotations] makes the journal say which.
type rotation struct {
	old   *credential // that calls leave with until the switch
	fresh *credential // with the new token, confirmed
	at    time.Time   // when it was confirmed
	note  string      // what could not be compared; "" for nothing
}

// postRotate gives a slug a new token of the same portal.
func (a *Agent) postRotate(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	var in tokenBody
	if p := readSecret(w, r, &in, rotateKeys...); p != nil {
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
	k := a.keys.Load()
	if k == nil {
		return a.noKeys()
	}
	rot, p := a.newRotation(r.Context(), k, req.slug, token)
	if p != nil {
		return p
	}
	if dryRun {
		writeJSON(w, http.StatusOK, rot.view(rot.fresh))
		return nil
	}
	ctx := context.WithoutCancel(r.Context()) // a change once begun is carried through
	err := a.update(ctx, func(e *credstore.Edit) error {
		if err := rot.put(e); err != nil {
			return err
		}
		return a.stage(ctx, rot)
	}, rot.fresh)
	if err != nil {
		return updateProblem(req.slug, err)
	}
	rec := a.eventOf(chain.PortalRotated, rot.fresh)
	rec.Reason = rot.reason()
	if p := a.recordManaged(r, rec); p != nil {
		return p
	}
	a.switched(ctx, rot)
	now := a.keys.Load().credential(req.slug.String())
	if now == nil { // locked or removed meanwhile
		now = rot.fresh
	}
	writeJSON(w, http.StatusOK, rot.view(now))
	return nil
}

// postRotateMany rotates many slugs: every row is verified and answered by
// itself, and the store is written once, at the end.
func (a *Agent) postRotateMany(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	return a.serveFleet(w, r, req, fleetJob{
		verify: a.verifyRotation,
		put:    func(e *credstore.Edit, row *fleetRow) error { return row.rotation.put(e) },
		stage:  func(rows []*fleetRow) error { return a.stage(context.WithoutCancel(r.Context()), rotations(rows)...) },
		done:   func(rows []*fleetRow) { a.switched(context.WithoutCancel(r.Context()), rotations(rows)...) },
		kind:   chain.PortalRotated,
	})
}

func rotations(rows []*fleetRow) []*rotation {
	out := make([]*rotation, len(rows))
	for i, row := range rows {
		out[i] = row.rotation
	}
	return out
}

// verifyRotation verifies a row for a rotation. A row whose token serves
// already is no error: a list may be sent again.
func (a *Agent) verifyRotation(ctx context.Context, k *keyring, row *fleetRow) {
	if c := k.credential(row.slug.String()); c != nil {
		if row.PortalID != 0 && row.PortalID != c.PortalID {
			row.reject(wire.Errorf(wire.CodeIdentityMismatch, "slug %s is portal %d in the store, not %d", row.slug, c.PortalID, row.PortalID))
			return
		}
		if sameToken(c.Token, row.Token) {
			row.result.Result, row.result.PortalID = wire.RowExists, c.PortalID
			return
		}
	}
	p := retried(ctx, func() (p *wire.Problem) {
		row.rotation, p = a.newRotation(ctx, k, row.slug, row.Token)
		return p
	})
	if p != nil {
		row.reject(p)
		return
	}
	row.fresh = row.rotation.fresh
	if row.Kind != "" {
		row.fresh.Kind = row.Kind
	}
	row.reason = row.rotation.reason()
	row.result.Result, row.result.PortalID, row.result.AccountType = wire.RowOK, row.fresh.PortalID, row.fresh.AccountType
	row.result.Detail = row.rotation.note
}

// newRotation verifies a new token for a slug: it is new, it stands under no
// other slug, it opens the same portal, and it has no fewer scopes. The slug's
// present token may be dead or quarantined: a rotation is how that is mended.
func (a *Agent) newRotation(ctx context.Context, k *keyring, slug wire.Slug, token wire.Token) (*rotation, *wire.Problem) {
	old := k.credential(slug.String())
	if old == nil {
		return nil, k.missing(slug)
	}
	if p := k.usable(old, token); p != nil {
		return nil, p
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	fresh := old.with(token)
	account, p := a.whose(ctx, fresh)
	switch {
	case p != nil:
		p.Detail = fmt.Sprintf("slug %s: the new token was not taken: %s", slug, p.Detail)
		return nil, p
	case account.PortalID != old.PortalID:
		return nil, wire.Errorf(wire.CodeIdentityMismatch,
			"slug %s: the new token opens portal %d, but %s is portal %d: it is another client's token. Nothing was changed",
			slug, account.PortalID, slug, old.PortalID)
	}
	rot := &rotation{old: old, fresh: fresh, at: time.Now()}
	fresh.confirmed(account, rot.at)
	if p := a.compareScopes(ctx, rot); p != nil {
		return nil, p
	}
	return rot, nil
}

// usable says why a token cannot be the next of old's slug, as far as that is
// known here.
func (k *keyring) usable(old *credential, token wire.Token) *wire.Problem {
	if sameToken(old.Token, token) {
		return wire.Errorf(wire.CodeConflict, "slug %s: that is the token in use already: rotate it in HubSpot first, then give the new one", old.Slug)
	}
	if old.Previous != nil && sameToken(old.Previous.Token, token) {
		return wire.Errorf(wire.CodeConflict,
			"slug %s: that is the token before the last rotation, which HubSpot is about to drop. If the rotation was cancelled there, run: hsctl verify %s, and the agent takes it again by itself", old.Slug, old.Slug)
	}
	for _, o := range k.creds {
		if o.Slug != old.Slug && (sameToken(o.Token, token) || o.Previous != nil && sameToken(o.Previous.Token, token)) {
			return wire.Errorf(wire.CodeConflict, "slug %s: the token stands under slug %s: it is another client's. Nothing was changed", old.Slug, o.Slug)
		}
	}
	return nil
}

// with returns a credential of the same slug for another token, of which
// nothing is known yet.
func (c *credential) with(token wire.Token) *credential {
	e := c.Entry
	e.Token, e.Previous, e.Scopes, e.Warnings = token, nil, nil, nil
	return &credential{
		Entry: e, fingerprint: token.Fingerprint(), version: c.version,
		identity: newIdentity(), needles: leak.New(token), lane: c.lane,
	}
}

// confirmed notes that HubSpot named the credential's portal for its token.
func (c *credential) confirmed(account *hubspot.Account, at time.Time) {
	c.VerifiedAt, c.LastRotatedAt = at, at
	for to, from := range map[*string]string{
		&c.AccountType: account.AccountType, &c.TimeZone: account.TimeZone, &c.DataHosting: account.DataHostingLocation,
	} {
		if from != "" {
			*to = from
		}
	}
	c.identity.take(c, judge(c, account, nil), false)
}

// compareScopes refuses a new token that has fewer scopes than the old. Where
// either's cannot be read, such as those of a dead token, it says so in the
// rotation's note: HubSpot does not promise that every kind of token has them.
func (a *Agent) compareScopes(ctx context.Context, rot *rotation) *wire.Problem {
	now, p := a.scopesOf(ctx, rot.fresh)
	if p != nil {
		if p.Code == wire.CodeIdentityMismatch {
			return p
		}
		rot.note = "the new token's scopes could not be read and were not compared with the old one's: " + p.Detail
		return nil
	}
	rot.fresh.Scopes = now
	before, p := a.scopesOf(ctx, rot.old)
	if p != nil {
		rot.note = "the old token's scopes could not be read and were not compared with the new one's: " + p.Detail
		return nil //nolint:nilerr // it stands in the note
	}
	lost := slices.DeleteFunc(before, func(s string) bool { return slices.Contains(now, s) })
	if len(lost) > 0 {
		return wire.Errorf(wire.CodeScopeMissing, "slug %s: the new token lacks scopes that the old one has: %s. Nothing was changed: add them in HubSpot, then rotate again",
			rot.old.Slug, wire.Printable(strings.Join(lost, ", ")))
	}
	return nil
}

// scopesOf asks HubSpot what the credential's token may do; sorted.
func (a *Agent) scopesOf(ctx context.Context, c *credential) ([]string, *wire.Problem) {
	got, p := a.tokenInfo(ctx, c)
	if p != nil {
		return nil, p
	}
	if p := got.problem("access-token-info"); p != nil {
		return nil, p
	}
	info, err := hubspot.DecodeTokenInfo(got.body)
	switch {
	case err != nil:
		return nil, wire.Errorf(wire.CodeUpstreamInvalid, "access-token-info: %v", err)
	case info.HubID != c.PortalID:
		return nil, wire.Errorf(wire.CodeIdentityMismatch, "slug %s: access-token-info says that the token opens portal %d, not %d", c.Slug, info.HubID, c.PortalID)
	}
	slices.Sort(info.Scopes)
	return info.Scopes, nil
}

// put makes the new token the slug's, and the old one the previous. It refuses
// if the entry is no longer the one that the new token was verified for.
func (r *rotation) put(e *credstore.Edit) error {
	entry, ok := e.Get(r.old.Slug)
	if !ok || !sameToken(entry.Token, r.old.Token) || entry.PortalID != r.old.PortalID {
		return errChanged(r.old.Slug)
	}
	f := r.fresh
	entry.Token, entry.Kind, entry.Scopes = f.Token, f.Kind, f.Scopes
	entry.AccountType, entry.TimeZone, entry.DataHosting = f.AccountType, f.TimeZone, f.DataHosting
	entry.LastRotatedAt, entry.VerifiedAt = r.at, r.at
	entry.Previous = nil
	if !r.old.identity.foreign(r.old.PortalID) { // one that opens another portal is nothing to fall back to
		entry.Previous = &credstore.Previous{Token: r.old.Token, Until: r.at.Add(grace)}
	}
	return e.Put(entry)
}

// foreign reports whether HubSpot named another portal for the token.
func (id *identity) foreign(portalID int64) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.account != nil && id.account.PortalID != portalID
}

func errChanged(slug wire.Slug) *wire.Problem {
	return wire.Errorf(wire.CodeConflict, "slug %s: the store's entry was changed meanwhile, and nothing was written: look at it and try again", slug)
}

// stage notes in the journal what the store is about to be told. It runs
// within the store's update, right before the write.
func (a *Agent) stage(ctx context.Context, rots ...*rotation) error {
	return a.journal.Update(ctx, func(j *credstore.Rotations) {
		for _, r := range rots {
			j.Staged[r.old.Slug.String()] = credstore.Rotation{
				PortalID: r.old.PortalID, OldFingerprint: r.old.fingerprint, NewFingerprint: r.fresh.fingerprint,
				OldRotatedAt: wire.At(r.old.LastRotatedAt), StartedAt: wire.At(r.at), GraceEndsAt: wire.At(r.at.Add(grace)),
				Note: r.note,
			}
		}
	})
}

// switched notes in the journal that the rotations have happened. Where that
// fails, they have happened all the same: the next start notes it.
func (a *Agent) switched(ctx context.Context, rots ...*rotation) {
	for _, r := range rots {
		a.log.InfoContext(ctx, "token rotated", "slug", r.old.Slug.String(), "portal", r.old.PortalID, "old", r.old.fingerprint, "new", r.fresh.fingerprint, "note", r.note)
	}
	err := a.journal.Update(ctx, func(j *credstore.Rotations) {
		for _, r := range rots {
			j.Switch(r.old.Slug.String(), r.fresh.fingerprint, time.Now())
		}
	})
	if err != nil {
		a.log.ErrorContext(ctx, "the checklist of a rotation is not kept: the new token serves all the same", "error", err)
	}
}

// reason is what the record of the rotation says.
func (r *rotation) reason() string {
	s := "token " + r.old.fingerprint + " replaced by " + r.fresh.fingerprint
	if r.note != "" {
		s += "; " + r.note
	}
	return s
}

// view shows the slug's portal with what could not be compared.
func (r *rotation) view(c *credential) wire.Portal {
	p := c.view()
	if r.note != "" {
		p.Warning = strings.TrimPrefix(p.Warning+"; "+r.note, "; ")
	}
	return p
}
