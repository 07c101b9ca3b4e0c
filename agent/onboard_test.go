package agent_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// fleet sends rows to a bulk path and returns the results by row and the last
// line.
func (r *rig) fleet(path string, rows ...string) (map[int]wire.FleetResult, wire.FleetDone) {
	r.t.Helper()
	path, query, _ := strings.Cut(path, "?")
	q, err := url.ParseQuery(query)
	require.NoError(r.t, err)
	resp, err := r.client.Stream(r.t.Context(), http.MethodPost, path, q, strings.NewReader(strings.Join(rows, "\n")+"\n"))
	require.NoError(r.t, err)
	defer resp.Body.Close()
	results := map[int]wire.FleetResult{}
	var done wire.FleetDone
	sc := bufio.NewScanner(resp.Body)
	for sc.Scan() {
		require.False(r.t, done.Done, "a line after the last")
		if strings.HasPrefix(sc.Text(), `{"done"`) {
			require.NoError(r.t, json.Unmarshal(sc.Bytes(), &done))
			continue
		}
		var res wire.FleetResult
		require.NoError(r.t, json.Unmarshal(sc.Bytes(), &res))
		results[res.Row] = res
	}
	require.NoError(r.t, sc.Err())
	return results, done
}

func row(slug string, token wire.Token, portal int64) string {
	return fmt.Sprintf(`{"slug":%q,"token":%q,"portalId":%d}`, slug, token.Reveal(), portal)
}

// TestThreat48BulkOnboarding sends 100 rows with 15 kinds of trouble.
func TestThreat48BulkOnboarding(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	const good = 80
	fresh := portalsOf(3 + good + 15)[3:]
	for _, p := range fresh {
		require.NoError(t, r.hubspot.AddPortal(p))
	}
	odd := fresh[good:] // each for one kind of trouble
	require.NoError(t, r.hubspot.SetIdentity(odd[0].ID, sandbox.Identity{AccountInfo: 403, TokenInfo: 403}))
	details := func(portal sandbox.Portal, f sandbox.Fault) {
		f.Portal, f.PathPrefix = portal.ID, hubspot.DetailsPath
		r.hubspot.AddFault(f)
	}
	details(odd[1], sandbox.Fault{DropBefore: true})
	details(odd[2], sandbox.Fault{Status: http.StatusServiceUnavailable})
	details(odd[3], sandbox.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3600"}}})
	details(odd[4], sandbox.Fault{Status: http.StatusOK, Body: "<html>"})
	details(odd[5], sandbox.Fault{Status: http.StatusBadGateway, Times: 2}) // and then it works

	var rows []string
	for _, p := range fresh[:good-1] {
		rows = append(rows, row(p.Slug, p.Token, p.ID))
	}
	rows = append(rows, row(odd[5].Slug, odd[5].Token, odd[5].ID))
	bad := []struct {
		row    string
		code   wire.Code
		detail string
	}{
		{row("wrong-portal", odd[6].Token, 7), wire.CodeIdentityMismatch, fmt.Sprintf("portal %d, not 7", odd[6].ID)},
		{row("dead-token", sandbox.NewToken("na1"), 8), wire.CodeTokenRejected, "401"},
		{row("no-scope", odd[0].Token, 0), wire.CodeScopeMissing, "403"},
		{row("dead-host", odd[1].Token, 0), wire.CodeUpstreamUnreachable, ""},
		{row("an-outage", odd[2].Token, 0), wire.CodeUpstreamInvalid, "503"},
		{row("no-quota", odd[3].Token, 0), wire.CodeThrottled, "429"},
		{row("no-json", odd[4].Token, 0), wire.CodeUpstreamInvalid, "account-info"},
		{row("Bad_Slug", odd[7].Token, 0), wire.CodeBadRequest, "not a slug"},
		{row("client-0", odd[8].Token, 0), wire.CodeConflict, "exists with another token"},
		{row("other-name", r.next(1001), 0), wire.CodeConflict, "under slug client-1"},
		{`{"slug":"no-token"}`, wire.CodeBadRequest, "the token is empty"},
		{`not json`, wire.CodeBadRequest, "no JSON object"},
		{`{"slug":"unknown-field","token":"x","portal":1}`, wire.CodeBadRequest, "no JSON object"},
		{row("twin-a", odd[9].Token, 0), wire.CodeConflict, "the same token stands in rows 94 and 95"},
		{row("twin-b", odd[9].Token, 0), wire.CodeConflict, "the same token stands in rows 95 and 94"},
		{row("same-slug", odd[10].Token, 0), wire.CodeConflict, "the slug stands in rows 96 and 97"},
		{row("same-slug", odd[11].Token, 0), wire.CodeConflict, "the slug stands in rows 97 and 96"},
		{row(odd[12].Token.Reveal(), odd[12].Token, 0), wire.CodeBadRequest, "not a slug"},
		{row("negative", odd[13].Token, -1), wire.CodeBadRequest, "no portal's number"},
	}
	for _, b := range bad {
		rows = append(rows, b.row)
	}
	rows = append(rows, row("client-2", r.hubspot.ActiveToken(1002), 1002))
	require.Len(t, rows, 100)
	before := r.agent.Status().Store.Version
	results, done := r.fleet("/v1/onboard", rows...)
	require.Len(t, results, len(rows))
	for i := range good {
		require.Equal(t, wire.RowOK, results[i+1].Result, "%+v", results[i+1])
	}
	for i, b := range bad {
		got := results[good+1+i]
		require.Equal(t, wire.RowRejected, got.Result, "%s: %+v", b.row, got)
		require.Equal(t, b.code, got.Code, "%+v", got)
		require.Contains(t, got.Detail, b.detail)
		require.NotContains(t, got.Detail+got.Slug, odd[12].Token.Reveal())
	}
	require.Equal(t, wire.RowExists, results[len(rows)].Result)
	require.Equal(t, wire.FleetDone{Done: true, OK: good, Exists: 1, Rejected: len(bad), StoreVersion: before + 1}, done)
	require.Len(t, r.records(chain.Filter{Kind: chain.PortalOnboarded}), good)
	require.Zero(t, r.arrivals(), "nothing but questions about identity")

	got := r.call(fresh[0].Slug, "GET", contacts, nil)
	require.Equal(t, http.StatusOK, got.status, got.body)

	again, done := r.fleet("/v1/onboard", rows[:good]...)
	for i := range good {
		require.Equal(t, wire.RowExists, again[i+1].Result)
	}
	require.Equal(t, wire.FleetDone{Done: true, Exists: good, StoreVersion: before + 1}, done)
}

// Of two tokens of one portal the first row's is taken, whichever of them
// HubSpot answers first.
func TestThreat48TwoTokensOfOnePortal(t *testing.T) {
	r := newRig(t, rigOptions{})
	const pairs = 20
	var rows []string
	for i, p := range portalsOf(3 + pairs)[3:] {
		require.NoError(t, r.hubspot.AddPortal(p))
		rows = append(rows, row(fmt.Sprintf("first-%d", i), p.Token, 0), row(fmt.Sprintf("second-%d", i), sparePut(t, r, p.ID), 0))
	}
	r.hubspot.SetFaults(
		sandbox.Fault{PathPrefix: hubspot.DetailsPath, Every: 3, Delay: 20 * time.Millisecond},
		sandbox.Fault{PathPrefix: hubspot.DetailsPath, Every: 4, Status: http.StatusBadGateway},
	)
	results, done := r.fleet("/v1/onboard", rows...)
	require.Equal(t, pairs, done.OK)
	for i := 1; i <= len(rows); i += 2 {
		require.Equal(t, wire.RowOK, results[i].Result, "%+v", results[i])
		require.Equal(t, wire.CodeConflict, results[i+1].Code, "%+v", results[i+1])
		require.Contains(t, results[i+1].Detail, fmt.Sprintf("as that of row %d does, which comes first", i))
	}
}

// BenchmarkOnboard100 onboards 100 clients at a HubSpot that answers in 100 ms.
func BenchmarkOnboard100(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		r := newRig(b, rigOptions{quiet: true})
		rows := make([]string, 100)
		for i, p := range portalsOf(103)[3:] {
			require.NoError(b, r.hubspot.AddPortal(p))
			rows[i] = row(p.Slug, p.Token, p.ID)
		}
		r.hubspot.SetFaults(sandbox.Fault{Delay: 100 * time.Millisecond})
		b.StartTimer()
		_, done := r.fleet("/v1/onboard", rows...)
		b.StopTimer()
		require.Equal(b, 100, done.OK)
		r.stop()
		b.StartTimer()
	}
}

func TestBulkOnboardingDryRun(t *testing.T) {
	r := newRig(t, rigOptions{})
	p := portalsOf(5)[4]
	require.NoError(t, r.hubspot.AddPortal(p))
	before := r.agent.Status().Store.Version
	results, done := r.fleet("/v1/onboard?dryRun=true", row(p.Slug, p.Token, 0))
	require.Equal(t, wire.RowOK, results[1].Result)
	require.Equal(t, wire.FleetDone{Done: true, OK: 1, StoreVersion: before}, done)
	require.Equal(t, wire.CodeUnknownPortal, r.call(p.Slug, "GET", "/crm/v3/objects/contacts", nil).code())
}

func TestBulkOnboardingTriesAgain(t *testing.T) {
	r := newRig(t, rigOptions{})
	p := portalsOf(5)[4]
	require.NoError(t, r.hubspot.AddPortal(p))
	r.hubspot.SetFaults(sandbox.Fault{Portal: p.ID, PathPrefix: hubspot.DetailsPath, Status: http.StatusBadGateway, Times: 2})
	results, _ := r.fleet("/v1/onboard", row(p.Slug, p.Token, 0))
	require.Equal(t, wire.RowOK, results[1].Result, "%+v", results[1])
}
