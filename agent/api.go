package agent

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
	"github.com/hsagent/hsagentd/wire/secret"
)

// A route is one method and path of the agent's own API.
type route struct {
	method string
	path   string // a segment {slug} or {seq} takes any
	manage bool   // needs the right to manage, not only to call
	handle func(*Agent, http.ResponseWriter, *http.Request, apiRequest) *wire.Problem
	query  []string // the parameters that it takes
}

// An apiRequest is what of a request its path and query said.
type apiRequest struct {
	slug  wire.Slug // of {slug}
	seq   uint64    // of {seq}
	query url.Values
}

var routes = []route{
	{http.MethodGet, "/v1/status", false, (*Agent).getStatus, nil},
	{http.MethodGet, "/v1/portals", false, (*Agent).getPortals, nil},
	{http.MethodGet, "/v1/portals/{slug}", false, (*Agent).getPortal, nil},
	{http.MethodPut, "/v1/portals/{slug}", true, (*Agent).putPortal, []string{"dryRun"}},
	{http.MethodDelete, "/v1/portals/{slug}", true, (*Agent).deletePortal, nil},
	{http.MethodPost, "/v1/portals/{slug}/rotate", true, (*Agent).postRotate, []string{"dryRun"}},
	{http.MethodPost, "/v1/portals/{slug}/verify", true, (*Agent).postVerify, nil},
	{http.MethodPost, "/v1/portals/{slug}/resume", true, (*Agent).postResume, nil},
	{http.MethodPost, "/v1/verify", true, (*Agent).postTokenCheck, nil},
	{http.MethodPost, "/v1/onboard", true, (*Agent).postOnboard, []string{"dryRun", "concurrency"}},
	{http.MethodPost, "/v1/rotate", true, (*Agent).postRotateMany, []string{"dryRun", "concurrency"}},
	{http.MethodGet, "/v1/rotations", false, (*Agent).getRotations, nil},
	{http.MethodGet, "/v1/rotations/{slug}", false, (*Agent).getRotation, nil},
	{http.MethodPost, "/v1/rotations/{slug}/done", true, (*Agent).postRotationDone, nil},
	{http.MethodGet, "/v1/quota", false, (*Agent).getQuota, []string{"refresh"}},
	{http.MethodGet, "/v1/audit/records", true, (*Agent).getRecords, filterParameters},
	{http.MethodGet, "/v1/audit/checkpoint", true, (*Agent).getCheckpoint, nil},
	{http.MethodGet, "/v1/audit/key", true, (*Agent).getAuditKey, nil},
	{http.MethodGet, "/v1/report/{slug}", true, (*Agent).getReport, []string{"from", "to", "tz", "breach"}},
	{http.MethodGet, "/v1/audit/proof/{seq}", true, (*Agent).getProof, nil},
	{http.MethodGet, "/v1/audit/export/{slug}", true, (*Agent).getExport, []string{"from", "to"}},
	{http.MethodPost, "/v1/audit/verify", true, (*Agent).postAuditVerify, nil},
	{http.MethodPost, "/v1/audit/prune", true, (*Agent).postPrune, nil},
	{http.MethodGet, "/v1/policy", true, (*Agent).getPolicy, nil},
	{http.MethodPost, "/v1/policy/test", false, (*Agent).postPolicyTest, nil},
	{http.MethodGet, "/v1/confirmations", true, (*Agent).getConfirmations, []string{"follow"}},
	{http.MethodPost, "/v1/confirmations", true, (*Agent).postConfirmation, nil},
	{http.MethodPost, "/v1/lock", true, (*Agent).postLock, nil},
	{http.MethodPost, "/v1/unlock", true, (*Agent).postUnlock, nil},
	{http.MethodPost, "/v1/reload", true, (*Agent).postReload, nil},
	{http.MethodGet, "/v1/openapi.json", false, (*Agent).getOpenAPI, nil},
	{http.MethodGet, "/metrics", false, (*Agent).getMetrics, nil},
}

// serveAPI leads a request that is no call to its handler. Paths are compared
// raw: the API's own never need an escape.
func (a *Agent) serveAPI(w http.ResponseWriter, r *http.Request) {
	path, rawQuery, _ := strings.Cut(r.RequestURI, "?")
	var allow []string
	for _, rt := range routes {
		seg, ok := rt.match(path)
		if !ok {
			continue
		}
		if rt.method != r.Method {
			allow = append(allow, rt.method)
			continue
		}
		if p := a.serveRoute(w, r, rt, seg, rawQuery); p != nil {
			writeProblem(w, r, p)
		}
		return
	}
	if allow != nil {
		w.Header().Set("Allow", strings.Join(allow, ", "))
		writeProblem(w, r, wire.Errorf(wire.CodeMethodNotAllowed, "%s takes %s, not %s", wire.Quote(path), strings.Join(allow, " or "), r.Method))
		return
	}
	writeProblem(w, r, wire.Errorf(wire.CodeNotFound, "the agent's API has no %s", wire.Quote(path)))
}

// match reports whether path is the route's, and returns what stands for
// {slug} or {seq}.
func (rt *route) match(path string) (seg string, ok bool) {
	before, after, param := strings.Cut(rt.path, "{")
	if !param {
		return "", path == rt.path
	}
	_, after, _ = strings.Cut(after, "}")
	rest, ok := strings.CutPrefix(path, before)
	if !ok {
		return "", false
	}
	seg, ok = strings.CutSuffix(rest, after)
	return seg, ok && seg != "" && !strings.Contains(seg, "/")
}

func (a *Agent) serveRoute(w http.ResponseWriter, r *http.Request, rt route, seg, rawQuery string) *wire.Problem {
	if p := a.mayAsk(r, rt); p != nil {
		rec := a.event(chain.CallDenied)
		rec.Caller, rec.Method, rec.Error = auditCaller(callerOf(r)), r.Method, string(p.Code)
		rec.Reason = "management: " + rt.path
		a.recordDenial(r.Context(), rec)
		return p
	}
	var req apiRequest
	switch {
	case seg == "":
	case strings.Contains(rt.path, "{seq}"):
		n, err := strconv.ParseUint(seg, 10, 63)
		if err != nil {
			return wire.Errorf(wire.CodeBadRequest, "%s is no record's number", wire.Quote(seg))
		}
		req.seq = n
	default:
		slug, err := wire.ParseSlug(seg)
		if err != nil {
			return wire.Errorf(wire.CodeBadRequest, "%v", err)
		}
		req.slug = slug
	}
	q, err := url.ParseQuery(rawQuery)
	if err != nil {
		return wire.Errorf(wire.CodeBadRequest, "the query is malformed")
	}
	if p := rt.checkQuery(q); p != nil {
		return p
	}
	req.query = q
	return rt.handle(a, w, r, req)
}

// checkQuery refuses parameters that the route does not take: a misspelt dryRun
// must not become a real run.
func (rt *route) checkQuery(q url.Values) *wire.Problem {
	for key, vals := range q {
		switch {
		case !slices.Contains(rt.query, key) && len(rt.query) == 0:
			return wire.Errorf(wire.CodeBadRequest, "parameter %s is not known: %s takes none", wire.Quote(key), rt.path)
		case !slices.Contains(rt.query, key):
			return wire.Errorf(wire.CodeBadRequest, "parameter %s is not known: %s takes %s", wire.Quote(key), rt.path, strings.Join(rt.query, ", "))
		case len(vals) != 1:
			return wire.Errorf(wire.CodeBadRequest, "parameter %s is given %d times", key, len(vals))
		}
	}
	return nil
}

// flag is a parameter that is true or false, false where it is left out.
func (req *apiRequest) flag(key string) (bool, *wire.Problem) {
	if !req.query.Has(key) {
		return false, nil
	}
	v := req.query.Get(key)
	set, err := strconv.ParseBool(v)
	if err != nil {
		return false, badParameter(key, v, "true or false")
	}
	return set, nil
}

// readOnlyRoutes are what the read-only socket answers beside calls.
var readOnlyRoutes = []string{"/v1/status", "/v1/portals", "/v1/portals/{slug}", "/v1/quota", "/v1/openapi.json"}

// mayAsk returns why the request may not use the route, or nil.
func (a *Agent) mayAsk(r *http.Request, rt route) *wire.Problem {
	switch {
	case connOf(r).readOnly && (rt.method != http.MethodGet || !slices.Contains(readOnlyRoutes, rt.path)):
		return wire.Errorf(wire.CodeDenied, "this is the read-only socket: it makes calls that read, and tells status, portals and quota")
	case rt.manage && !a.manages(r):
		return wire.Errorf(wire.CodeDenied, "user %s may not manage this agent: only its own user, root and admin_group may", nameOf(callerOf(r)))
	}
	return nil
}

// Status returns how the agent is.
func (a *Agent) Status() wire.Status {
	return a.status(func(string) bool { return true })
}

// status counts the portals that are visible.
func (a *Agent) status(visible func(slug string) bool) wire.Status {
	now := time.Now()
	st := wire.Status{
		Version:         a.cfg.Version,
		PID:             os.Getpid(),
		StartedAt:       wire.At(a.started),
		UptimeSeconds:   int64(now.Sub(a.started).Seconds()),
		Locked:          true,
		Store:           wire.StoreStatus{Path: a.cfg.StorePath},
		Audit:           a.audit.Status(),
		Policy:          a.policyStatus(),
		Portals:         map[string]int{},
		CallsInFlight:   int(a.inFlight.Load()),
		Upstream:        a.up.Base(),
		SocketActivated: a.cfg.SocketActivated,
		TokenMemory:     string(secret.Memory()),
	}
	for _, s := range []wire.State{wire.StateReady, wire.StateUnverified, wire.StateQuarantined, wire.StateRejected} {
		st.Portals[string(s)] = 0
	}
	if k := a.keys.Load(); k != nil {
		st.Locked = false
		st.Store.Version, st.Store.LoadedAt = k.version, timeOrNil(k.loadedAt)
		for state, n := range k.states(visible) {
			st.Portals[string(state)] = n
		}
	}
	if r := a.refusal.Load(); r != nil {
		st.Store.LastError, st.Store.ErrorAt = wire.Fault(wire.MaskTokens(r.err.Error())), timeOrNil(r.at)
	}
	return st
}

func (a *Agent) getStatus(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	st := a.status(a.visible(r))
	if a.rules() != nil && !a.manages(r) {
		// Their texts can name slugs and rules.
		st.Store.LastError, st.Policy.LastError = hide(st.Store.LastError), hide(st.Policy.LastError)
	}
	writeJSON(w, http.StatusOK, st)
	return nil
}

// hide keeps from a fault all but that there is one.
func hide(f wire.Fault) wire.Fault {
	if f == "" {
		return ""
	}
	return "whoever manages the agent sees why"
}

// states counts the visible portals by their state.
func (k *keyring) states(visible func(slug string) bool) map[wire.State]int {
	count := map[wire.State]int{}
	for _, slug := range k.slugs {
		if !visible(slug) {
			continue
		}
		state := wire.StateRejected
		if c := k.creds[slug]; c != nil {
			state = c.identity.state(c.PortalID)
		}
		count[state]++
	}
	return count
}

// views shows the visible portals, sorted by slug.
func (k *keyring) views(visible func(slug string) bool) []wire.Portal {
	out := make([]wire.Portal, 0, len(k.slugs))
	for _, slug := range k.slugs {
		if !visible(slug) {
			continue
		}
		if c := k.creds[slug]; c != nil {
			out = append(out, c.view())
			continue
		}
		r := k.rejected[slug]
		out = append(out, wire.Portal{Slug: slug, PortalID: r.PortalID, State: wire.StateRejected, Reason: r.Reason})
	}
	return out
}

func (a *Agent) getPortals(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	k := a.keys.Load()
	if k == nil {
		return a.noKeys()
	}
	writeJSON(w, http.StatusOK, wire.Portals{Portals: k.views(a.visible(r))})
	return nil
}

func (a *Agent) getPortal(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	k := a.keys.Load()
	if k == nil {
		return a.noKeys()
	}
	if !a.visible(r)(req.slug.String()) {
		return a.hidden(r, req.slug)
	}
	if c := k.credential(req.slug.String()); c != nil {
		writeJSON(w, http.StatusOK, c.view())
		return nil
	}
	if r, ok := k.rejected[req.slug.String()]; ok {
		writeJSON(w, http.StatusOK, wire.Portal{Slug: r.Slug, PortalID: r.PortalID, State: wire.StateRejected, Reason: r.Reason})
		return nil
	}
	if !a.manages(r) && a.limited(callerOf(r)) {
		return a.hidden(r, req.slug)
	}
	return k.missing(req.slug)
}

func (a *Agent) postLock(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	if err := a.Lock(context.WithoutCancel(r.Context()), auditCaller(callerOf(r))); err != nil {
		return wire.Errorf(wire.CodeAuditUnavailable, "the agent is locked, but that was not recorded: %v", err)
	}
	return a.getStatus(w, r, apiRequest{})
}

func (a *Agent) postUnlock(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	var in wire.Unlock
	if p := readSecret(w, r, &in, "passphrase"); p != nil {
		return p
	}
	if err := a.Unlock(r.Context(), auditCaller(callerOf(r)), []byte(in.Passphrase)); err != nil {
		return asProblem(err)
	}
	return a.getStatus(w, r, apiRequest{})
}

func (a *Agent) postReload(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	var in wire.Reload
	if p := readJSON(w, r, &in); p != nil {
		return p
	}
	if err := a.Reload(context.WithoutCancel(r.Context()), in.Force); err != nil {
		return asProblem(err)
	}
	return a.getStatus(w, r, apiRequest{})
}
