package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// getRotations lists the latest rotation of every slug that had one.
func (a *Agent) getRotations(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	k := a.keys.Load()
	if k == nil {
		return a.noKeys()
	}
	latest, p := a.latest(r.Context(), k)
	if p != nil {
		return p
	}
	out := wire.Rotations{Rotations: []wire.Rotation{}}
	visible := a.visible(r)
	for _, slug := range slices.Sorted(maps.Keys(latest)) {
		if !visible(slug) {
			continue
		}
		out.Rotations = append(out.Rotations, a.showRotation(k.creds[slug], latest[slug]))
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

func (a *Agent) getRotation(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	k := a.keys.Load()
	if k == nil {
		return a.noKeys()
	}
	c := k.credential(req.slug.String())
	if !a.visible(r)(req.slug.String()) || c == nil && !a.manages(r) && a.limited(callerOf(r)) {
		return a.hidden(r, req.slug)
	}
	if c == nil {
		return k.missing(req.slug)
	}
	latest, p := a.latest(r.Context(), k, req.slug.String())
	if p != nil {
		return p
	}
	j, ok := latest[req.slug.String()]
	if !ok {
		return errNoRotation(req.slug)
	}
	writeJSON(w, http.StatusOK, a.showRotation(c, j))
	return nil
}

// postRotationDone notes that a consumer has the new token.
func (a *Agent) postRotationDone(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	var in wire.RotationDone
	if p := readJSON(w, r, &in); p != nil {
		return p
	}
	k := a.keys.Load()
	if k == nil {
		return a.noKeys()
	}
	slug := req.slug.String()
	c := k.credential(slug)
	if c == nil {
		return k.missing(req.slug)
	}
	names := a.consumersOf(slug)
	if !slices.Contains(names, in.Consumer) {
		known := "the config names none for it: list them there as [[consumer]]"
		if len(names) > 0 {
			known = "there are: " + strings.Join(names, ", ")
		}
		return wire.Errorf(wire.CodeNotFound, "slug %s has no consumer %s: %s", req.slug, wire.Quote(in.Consumer), known)
	}
	p := errNoRotation(req.slug)
	err := a.journal.Update(context.WithoutCancel(r.Context()), func(all *credstore.Rotations) {
		j, ok := all.Latest[slug]
		switch {
		case !ok || !concerns(j, c):
			return
		case j.State == wire.RotationFellBack:
			p = wire.Errorf(wire.CodeConflict, "slug %s: HubSpot refused the new token and the old one serves again: no consumer can use the new one. Rotate once more", req.slug)
			return
		}
		if p = nil; j.Confirmed[in.Consumer].IsZero() {
			j.Confirmed = maps.Clone(j.Confirmed)
			if j.Confirmed == nil {
				j.Confirmed = map[string]wire.Time{}
			}
			j.Confirmed[in.Consumer] = wire.At(time.Now())
			all.Latest[slug] = j
		}
	})
	if err != nil {
		return asProblem(err)
	}
	if p != nil {
		return p
	}
	return a.getRotation(w, r, req)
}

func errNoRotation(slug wire.Slug) *wire.Problem {
	return wire.Errorf(wire.CodeNotFound, "slug %s has no rotation: its token was not changed by one since it came in", slug)
}

// concerns reports whether a rotation is what gave the slug the token that it
// has now: the store may have been changed from outside since.
func concerns(j credstore.Rotation, c *credential) bool {
	if c == nil || j.PortalID != c.PortalID {
		return false
	}
	if j.State == wire.RotationFellBack {
		return j.OldFingerprint == c.fingerprint
	}
	return j.NewFingerprint == c.fingerprint
}

// latest returns the rotations of the slugs, all if none is named, after
// looking at the audit log for what was still to be seen there.
func (a *Agent) latest(ctx context.Context, k *keyring, slugs ...string) (map[string]credstore.Rotation, *wire.Problem) {
	all, err := a.journal.Read(ctx)
	if err != nil {
		return nil, asProblem(err)
	}
	out := map[string]credstore.Rotation{}
	looked := map[string]credstore.Rotation{}
	for slug, j := range all.Latest {
		if len(slugs) > 0 && !slices.Contains(slugs, slug) || !concerns(j, k.credential(slug)) {
			continue
		}
		if j.State != wire.RotationFellBack && (j.SeenAt.IsZero() || j.CRMReadAt.IsZero()) {
			seen, err := a.seen(ctx, slug, j)
			if err != nil {
				return nil, wire.Errorf(wire.CodeAuditUnavailable, "the audit log could not be read for calls of %s: %v", slug, err)
			}
			if seen.SeenAt != j.SeenAt || seen.CRMReadAt != j.CRMReadAt {
				looked[slug], j = seen, seen
			}
		}
		out[slug] = j
	}
	if len(looked) == 0 {
		return out, nil
	}
	// Kept, so that the ticks outlive the records.
	err = a.journal.Update(context.WithoutCancel(ctx), func(all *credstore.Rotations) {
		for slug, seen := range looked {
			if j, ok := all.Latest[slug]; ok && j.NewFingerprint == seen.NewFingerprint {
				j.SeenAt, j.CRMReadAt = seen.SeenAt, seen.CRMReadAt
				all.Latest[slug] = j
			}
		}
	})
	if err != nil {
		return nil, asProblem(err)
	}
	return out, nil
}

var errSeen = errors.New("seen")

// seen looks for calls with the new token in the audit log.
func (a *Agent) seen(ctx context.Context, slug string, j credstore.Rotation) (credstore.Rotation, error) {
	if err := a.audit.Flush(ctx); err != nil {
		// What is on disk can still be read; status tells that the log is shut.
		a.log.DebugContext(ctx, "records are read without the latest", "error", err)
	}
	f := chain.Filter{Slug: slug, From: j.StartedAt.Time, Kind: chain.CallOutcome}
	err := a.audit.Records(ctx, f, func(_ []byte, rec *chain.Record) error {
		if rec.TokenFingerprint != j.NewFingerprint || rec.StatusCode == 0 || rec.Caller == nil || rec.Caller.Agent {
			return nil
		}
		if j.SeenAt.IsZero() {
			j.SeenAt = rec.TS
		}
		if j.CRMReadAt.IsZero() && rec.Method == http.MethodGet && rec.StatusCode/100 == 2 && strings.HasPrefix(rec.Path, "/crm/") {
			j.CRMReadAt = rec.TS
		}
		if !j.SeenAt.IsZero() && !j.CRMReadAt.IsZero() {
			return errSeen
		}
		return nil
	})
	if errors.Is(err, errSeen) {
		err = nil
	}
	return j, err
}

// consumersOf are the names of the consumers of a slug, in the config's order.
func (a *Agent) consumersOf(slug string) []string {
	var names []string
	for i := range a.cfg.Consumers {
		if c := &a.cfg.Consumers[i]; c.holds(slug) {
			names = append(names, c.Name)
		}
	}
	return names
}

// showRotation is a rotation with its checklist.
func (a *Agent) showRotation(c *credential, j credstore.Rotation) wire.Rotation {
	slug := c.Slug.String()
	out := wire.Rotation{
		Slug: slug, PortalID: j.PortalID, State: j.State,
		OldFingerprint: j.OldFingerprint, NewFingerprint: j.NewFingerprint,
		StartedAt: j.StartedAt, GraceEndsAt: j.GraceEndsAt,
		Consumers: []wire.RotationConsumer{},
	}
	step := func(name string, at wire.Time, awaited string) {
		s := wire.RotationStep{Name: name, Done: !at.IsZero(), Detail: awaited}
		if s.Done {
			s.At, s.Detail = &at, ""
		}
		out.Steps = append(out.Steps, s)
	}
	step(wire.StepStoreWritten, j.SwitchedAt, "")
	step(wire.StepNewTokenVerified, j.StartedAt, "")
	out.Steps[1].Detail = j.Note
	step(wire.StepCRMReadAnswered, j.CRMReadAt, "make one: "+crmRead(slug))
	step(wire.StepSeenInRecords, j.SeenAt, "no call with the new token is in the audit log yet")
	step(wire.StepOldTokenRefused, j.RefusedAt, oldTokenAwaited(c, j))
	var open []string
	for _, con := range a.cfg.Consumers {
		if !con.holds(slug) {
			continue
		}
		rc := wire.RotationConsumer{Name: con.Name, HowTo: con.HowTo, Check: con.Check}
		if at := j.Confirmed[con.Name]; !at.IsZero() {
			rc.Done, rc.At = true, &at
		} else {
			open = append(open, con.Name)
		}
		out.Consumers = append(out.Consumers, rc)
	}
	out.Next = next(c, j, open)
	return out
}

func crmRead(slug string) string {
	return "hsctl call " + slug + " GET '/crm/v3/objects/contacts?limit=1'"
}

func oldTokenAwaited(c *credential, j credstore.Rotation) string {
	switch {
	case j.State == wire.RotationFellBack:
		return "the old token serves again"
	case c.Previous == nil:
		return "the agent has the old token no more and cannot ask HubSpot about it"
	default:
		return "the agent asks HubSpot from time to time; ask now with: hsctl verify " + c.Slug.String()
	}
}

// next says what to do now. The order is that of the runbook: every consumer
// first, then one read, and only then the old token is expired.
func next(c *credential, j credstore.Rotation, open []string) string {
	const expire = "in HubSpot, under Development > Keys (or the private app's Auth tab), press \"Expire now\". " +
		"Never press \"Cancel rotation\": that revokes the new token"
	slug, names := c.Slug.String(), strings.Join(open, ", ")
	switch {
	case j.State == wire.RotationFellBack:
		return "HubSpot refused the new token, and calls leave with the old one again. Find out why (was \"Cancel rotation\" pressed?), make a new token in HubSpot and run: hsctl rotate " + slug
	case j.State == wire.RotationConfirmed && len(open) > 0:
		return fmt.Sprintf("HubSpot refuses the old token already: give the new one at once to: %s. Then confirm each with: hsctl rotate done %s CONSUMER", names, slug)
	case j.State == wire.RotationConfirmed:
		return "Nothing: the rotation is complete."
	case len(open) > 0:
		return fmt.Sprintf("Before %s give the new token to: %s. Confirm each with: hsctl rotate done %s CONSUMER. Only when all have it, %s.", j.GraceEndsAt, names, slug, expire)
	case j.CRMReadAt.IsZero():
		return fmt.Sprintf("Read something with the new token: %s. Then, before %s, %s.", crmRead(slug), j.GraceEndsAt, expire)
	case c.Previous == nil:
		return fmt.Sprintf("Make sure that the old token is dead: %s.", expire)
	default:
		return fmt.Sprintf("Before %s, %s. Then run: hsctl verify %s", j.GraceEndsAt, expire, slug)
	}
}
