package agent_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

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

func TestThreat48BulkOnboarding(t *testing.T) {
	r := newRig(t, rigOptions{})
	fresh := portalsOf(40)[3:]
	for _, p := range fresh {
		require.NoError(t, r.hubspot.AddPortal(p))
	}
	unknown := sandbox.NewToken("na1")
	var rows []string
	for _, p := range fresh[:30] {
		rows = append(rows, row(p.Slug, p.Token, p.ID))
	}
	bad := []struct {
		row  string
		code wire.Code
	}{
		{row("wrong-portal", fresh[30].Token, 7), wire.CodeIdentityMismatch},
		{row("dead-token", unknown, 8), wire.CodeTokenRejected},
		{row("Bad_Slug", fresh[31].Token, 0), wire.CodeBadRequest},
		{row("client-0", fresh[32].Token, 0), wire.CodeConflict},
		{`{"slug":"no-token"}`, wire.CodeBadRequest},
		{`not json`, wire.CodeBadRequest},
		{row("twin-a", fresh[33].Token, 0), wire.CodeConflict},
		{row("twin-b", fresh[33].Token, 0), wire.CodeConflict},
		{row("same-slug", fresh[34].Token, 0), wire.CodeConflict},
		{row("same-slug", fresh[35].Token, 0), wire.CodeConflict},
		{row(fresh[36].Token.Reveal(), fresh[36].Token, 0), wire.CodeBadRequest},
	}
	for _, b := range bad {
		rows = append(rows, b.row)
	}
	rows = append(rows, row("client-1", r.hubspot.ActiveToken(1001), 1001))
	before := r.agent.Status().Store.Version
	results, done := r.fleet("/v1/onboard", rows...)
	require.Len(t, results, len(rows))
	for i := range 30 {
		require.Equal(t, wire.RowOK, results[i+1].Result, "%+v", results[i+1])
		require.Equal(t, fresh[i].ID, results[i+1].PortalID)
	}
	for i, b := range bad {
		got := results[31+i]
		require.Equal(t, wire.RowRejected, got.Result, "%s: %+v", b.row, got)
		require.Equal(t, b.code, got.Code, "%+v", got)
		require.NotContains(t, got.Detail+got.Slug, fresh[36].Token.Reveal())
	}
	require.Equal(t, wire.RowExists, results[len(rows)].Result)
	require.Equal(t, wire.FleetDone{Done: true, OK: 30, Exists: 1, Rejected: len(bad), StoreVersion: before + 1}, done)
	require.Len(t, r.records(chain.Filter{Kind: chain.PortalOnboarded}), 30)
	require.Zero(t, r.arrivals(), "nothing but questions about identity")

	got := r.call(fresh[0].Slug, "GET", "/crm/v3/objects/contacts", nil)
	require.Equal(t, http.StatusOK, got.status, got.body)

	again, done := r.fleet("/v1/onboard", rows[:30]...)
	for i := range 30 {
		require.Equal(t, wire.RowExists, again[i+1].Result)
	}
	require.Equal(t, wire.FleetDone{Done: true, Exists: 30, StoreVersion: before + 1}, done)
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
