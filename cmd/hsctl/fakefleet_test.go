package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// fleetRows plays POST /v1/onboard and /v1/rotate. What it makes of a row
// depends on its slug and its portal ID: see the cases.
func (a *fakeAgent) fleetRows(w http.ResponseWriter, r *http.Request, body []byte) {
	a.posts = append(a.posts, r.URL.Path+"?"+r.URL.RawQuery+" "+string(body))
	w.Header().Set("Content-Type", wire.NDJSONType)
	out := json.NewEncoder(w)
	done := wire.FleetDone{Done: true, StoreVersion: 8}
	for i, line := range bytes.Split(bytes.TrimSpace(body), []byte("\n")) {
		var in wire.FleetRow
		_ = json.Unmarshal(line, &in) // a bad one has no slug
		res := wire.FleetResult{Row: i + 1, Slug: in.Slug, Result: wire.RowRejected}
		switch {
		case in.Slug == "":
			res.Code, res.Detail = wire.CodeBadRequest, "row has no slug"
		case in.Slug == "acme-corp":
			res.Result, res.PortalID = wire.RowExists, 12345678
		case in.PortalID == 666:
			res.Code, res.Detail = wire.CodeIdentityMismatch, "slug "+in.Slug+": the token opens portal 42, not 666"
		case in.Slug == "breaks-off":
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case in.Slug == "hangs":
			_ = http.NewResponseController(w).Flush()
			a.mu.Unlock()
			<-r.Context().Done()
			a.mu.Lock()
			return
		case in.Slug == "disk-full":
			done.Code, done.Detail = wire.CodeInternal, "the store was not written, and no row was taken: no space left on device"
			res.Result = wire.RowOK
		case in.Slug == "hostile":
			res.Code, res.Detail = wire.CodeInternal, "\x1b[2J "+madeUpToken
		case in.Slug == "late":
			res.Result, res.PortalID = wire.RowOK, 77
			_ = out.Encode(res)
			res.Result, res.Code, res.Detail = wire.RowRejected, wire.CodeConflict, "slug late: another writer was quicker"
		default:
			res.Result, res.PortalID, res.AccountType = wire.RowOK, 42, "STANDARD"
			done.OK++
		}
		_ = out.Encode(res) // a client that hung up is no concern
	}
	_ = out.Encode(done)
}

// checkToken plays POST /v1/verify: every token opens portal 42, but one that
// ends with "b" is refused.
func (a *fakeAgent) checkToken(w http.ResponseWriter, body []byte) {
	var in wire.TokenCheck
	_ = json.Unmarshal(body, &in) // a bad one is refused
	if in.Token == "" || strings.HasSuffix(in.Token, "b") {
		problem(w, wire.Errorf(wire.CodeTokenRejected, "HubSpot answered 401"))
		return
	}
	answer(w, wire.TokenPortal{PortalID: 42, AccountType: "STANDARD"})
}

// quotas plays GET /v1/quota.
func (a *fakeAgent) quotas(w http.ResponseWriter, r *http.Request) {
	at := wire.At(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC))
	resets := wire.At(time.Date(2026, 11, 24, 5, 0, 0, 0, time.UTC))
	n := func(v int64) *int64 { return &v }
	left := int64(400_000)
	if r.URL.Query().Get("refresh") == "true" {
		left = 399_000
	}
	answer(w, wire.Quotas{Portals: []wire.Quota{
		{Slug: "acme-corp", PortalID: 12345678, DailyLimit: n(650_000), DailyRemaining: &left, UsedToday: n(12), ObservedAt: &at,
			ResetsAt: &resets, State: wire.QuotaOK},
		{Slug: "beta-inc", PortalID: 87654321, DailyLimit: n(250_000), DailyRemaining: n(0), UsedToday: n(0), ObservedAt: &at,
			ResetsAt: &resets, State: wire.QuotaExhausted},
	}})
}

// rotations plays GET /v1/rotations… and POST /v1/rotations/{slug}/done: there
// is one, of acme-corp.
func (a *fakeAgent) rotations(w http.ResponseWriter, r *http.Request, body []byte) {
	at := wire.At(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC))
	rot := wire.Rotation{
		Slug: "acme-corp", PortalID: 12345678, State: wire.RotationSwitched, OldFingerprint: "0123456789ab", NewFingerprint: "ba9876543210",
		StartedAt: at, GraceEndsAt: wire.At(at.AddDate(0, 0, 7)),
		Steps: []wire.RotationStep{
			{Name: wire.StepStoreWritten, Done: true, At: &at}, {Name: wire.StepNewTokenVerified, Done: true, At: &at},
			{Name: wire.StepCRMReadAnswered}, {Name: wire.StepOldTokenRefused, Detail: "it still answers"},
			{Name: "step_of_a_newer_agent"},
		},
		Consumers: []wire.RotationConsumer{
			{Name: "CI secrets", HowTo: "gh secret set HUBSPOT_TOKEN", Check: "gh run list", Done: a.confirmed}, {Name: "zapier", Done: true, At: &at},
		},
		Next: "when CI secrets has it, press \"Expire now\" in HubSpot",
	}
	slug, verb, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/v1/rotations"), "/"), "/")
	switch {
	case slug == "":
		answer(w, wire.Rotations{Rotations: []wire.Rotation{rot}})
		return
	case slug != "acme-corp":
		unknown(w, slug)
		return
	case verb == "done":
		var in wire.RotationDone
		_ = json.Unmarshal(body, &in) // a bad one names no consumer
		if in.Consumer != "CI secrets" {
			problem(w, wire.Errorf(wire.CodeNotFound, "slug acme-corp has no consumer %s", wire.Quote(in.Consumer)))
			return
		}
		a.confirmed, rot.Consumers[0].Done = true, true
	}
	answer(w, rot)
}
