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

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

const contact1 = "/crm/v3/objects/contacts?limit=1"

func (r *rig) report(query string) *wire.Report {
	r.t.Helper()
	got := r.get("/v1/report/" + query)
	require.Equal(r.t, http.StatusOK, got.status, got.body)
	require.Equal(r.t, got.body, r.get("/v1/report/"+query).body, "the same log and question give the same bytes")
	rep := new(wire.Report)
	dec := json.NewDecoder(strings.NewReader(got.body))
	dec.DisallowUnknownFields()
	require.NoError(r.t, dec.Decode(rep))
	return rep
}

func TestReport(t *testing.T) {
	r := newRig(t, rigOptions{})
	require.Equal(t, 200, r.call("client-0", "GET", "/crm/v3/objects/contacts?limit=1", nil, wire.HeaderReason, "contract: sync").status)
	require.Equal(t, 404, r.call("client-0", "GET", "/crm/v3/objects/deals/999", nil).status)
	require.Equal(t, 403, r.call("client-0", "POST", "/oauth/v1/token", nil).status)
	r.hubspot.AddFault(sandbox.Fault{PathPrefix: "/marketing", Status: 503, Times: 1})
	require.Equal(t, 200, r.call("client-0", "GET", "/crm/v3/objects/contacts?limit=2", nil).status)
	require.Equal(t, 503, r.call("client-0", "GET", "/marketing/v3/forms", nil, wire.HeaderRetry, "off").status)
	require.Equal(t, 200, r.call("client-1", "GET", "/crm/v3/objects/contacts?limit=1", nil).status)

	// A time zone where it is about noon: this test lies in one day.
	now := time.Now().UTC()
	tz := fmt.Sprintf("Etc/GMT%+d", now.Hour()-12)
	today := now.Add(time.Duration(12-now.Hour()) * time.Hour).Format(time.DateOnly)
	rep := r.report("client-0?from=" + today + "&to=" + today + "&tz=" + url.QueryEscape(tz))
	require.Equal(t, "client-0", rep.Slug)
	require.EqualValues(t, 1000, rep.PortalID)
	require.Equal(t, r.get("/v1/audit/checkpoint").body, rep.Checkpoint)
	require.Equal(t, []string{today, today, tz}, []string{rep.From, rep.To, rep.TZ})
	require.EqualValues(t, 4, rep.Totals.Calls)
	require.EqualValues(t, 2, rep.Totals.Errors)
	require.EqualValues(t, 1, rep.Totals.Denied)
	require.EqualValues(t, 1, rep.AgentRequests.Calls, "the question whose token it is stands apart")
	require.EqualValues(t, 5, rep.Quota[0].Used, "and uses quota")
	require.NotNil(t, rep.Quota[0].Remaining)
	require.Len(t, rep.Tokens, 1)
	require.EqualValues(t, 4, rep.Tokens[0].Calls)
	var rows []string
	for _, row := range rep.Rows {
		require.Equal(t, today, row.Date)
		rows = append(rows, row.Method+" "+row.ObjectType)
	}
	require.Equal(t, []string{"GET contacts", "GET deals", "GET other"}, rows)
	require.Equal(t, []wire.ReportPurpose{{Reason: "contract: sync", Calls: 1}}, rep.Article30.Purposes)
	require.EqualValues(t, 3, rep.Article30.WithoutReason)
	require.Len(t, rep.Article30.Recipients, 1)
	require.Nil(t, rep.Breach)

	require.Len(t, r.report("client-0?breach=true").Breach.Objects, 2, "contacts that were listed, and the unknown path; a 404 reaches nothing")
	none := r.report("client-0?from=2020-01-01&to=2020-01-31&tz=Europe/Berlin")
	require.EqualValues(t, 1000, none.PortalID)
	require.Equal(t, "Europe/Berlin", none.TZ)
	require.NotNil(t, none.Rows, "empty lists are lists")
	require.Equal(t, rep.Totals, r.report("client-0").Totals, "all there is")
	require.Zero(t, r.report("client-2").Totals.Calls)
}

func TestReportRefusals(t *testing.T) {
	r := newRig(t, rigOptions{})
	for query, want := range map[string]wire.Code{
		"nobody": wire.CodeUnknownPortal, "Nobody": wire.CodeBadRequest,
		"client-0?from=yesterday": wire.CodeBadRequest, "client-0?tz=Local": wire.CodeBadRequest, "client-0?tz=../../etc/passwd": wire.CodeBadRequest,
		"client-0?tz=": wire.CodeBadRequest, "client-0?from=2026-10-02&to=2026-10-01": wire.CodeBadRequest, "client-0?days=3": wire.CodeBadRequest,
		"client-0?breach=perhaps": wire.CodeBadRequest, "client-0?from=2026-10-01&from=2026-10-02": wire.CodeBadRequest,
	} {
		require.Equal(t, want, r.get("/v1/report/"+query).code(), query)
	}
	// A client that was removed keeps its records, and its report.
	require.Equal(t, 200, r.call("client-1", "GET", "/crm/v3/objects/contacts", nil).status)
	req, err := http.NewRequestWithContext(t.Context(), "DELETE", "http://hsagent/", nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusNoContent, r.do(req, "/v1/portals/client-1").status)
	rep := r.report("client-1")
	require.EqualValues(t, 1, rep.Totals.Calls)
	require.EqualValues(t, 1001, rep.PortalID)
	require.Equal(t, string(chain.PortalRemoved), rep.Events[len(rep.Events)-1].Kind)
}

func TestRecordsFilters(t *testing.T) {
	r := newRig(t, rigOptions{})
	require.Equal(t, 200, r.call("client-0", "GET", contact1, nil, wire.HeaderReason, "Contract: sync").status)
	require.Equal(t, 404, r.call("client-0", "GET", "/crm/v3/objects/deals/999", nil).status)
	count := func(query string) int {
		got := r.get("/v1/audit/records?slug=client-0&" + query)
		require.Equal(t, 200, got.status, got.body)
		for line := range strings.Lines(got.body) {
			require.True(t, json.Valid([]byte(line)))
		}
		return strings.Count(got.body, "\n")
	}
	caller := r.records(chain.Filter{Slug: "client-0", Kind: chain.CallIntent, ObjectType: "contacts"})[0].Caller
	require.Equal(t, 2, count("objectType=contacts"))
	require.Equal(t, 1, count("objectType=contacts&kind=call.intent"))
	require.Equal(t, 2, count("reason=contract"))
	require.Equal(t, 1, count("status=404"))
	require.Equal(t, 1, count("status=4xx"))
	require.Equal(t, 2, count("objectType=deals&caller="+url.QueryEscape(caller.Exe)))
	require.Zero(t, count("objectType=tickets"))
	require.Equal(t, 4, count("method=get&caller="+url.QueryEscape(caller.Exe)))
	id := r.records(chain.Filter{Slug: "client-0", ObjectType: "contacts"})[0].CallID
	require.Equal(t, 2, count("callId="+strings.ToUpper(id)))
	require.Equal(t, wire.CodeBadRequest, r.get("/v1/audit/records?objecttype=deals").code())
	for _, bad := range []struct{ parameter, want string }{
		{"slug=Bad", "a slug such as"}, {"from=junk", "a date such as"}, {"to=2026-13-01", "a date such as"}, {"status=4", "a status such as"},
		{"callId=x", "the UUID"}, {"kind=call.made", "a kind of record such as"}, {"after=-1", "the number of a record"},
		{"limit=-1", "a number, 0 for all"}, {"follow=maybe", "true or false"},
	} {
		got := r.get("/v1/audit/records?" + bad.parameter)
		require.Equal(t, wire.CodeBadRequest, got.code(), bad.parameter)
		require.Contains(t, got.body, ": want "+bad.want)
	}
}

// A follower gets what comes later, also where nothing has matched before, and
// not more than it asked for.
func TestRecordsFollow(t *testing.T) {
	r := newRig(t, rigOptions{})
	resp, err := r.client.Stream(t.Context(), "GET", "/v1/audit/records", url.Values{"slug": {"client-2"}, "objectType": {"contacts"}, "follow": {"true"}, "limit": {"5"}}, nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	var seqs []uint64
	read := func() bool {
		if !lines.Scan() {
			return false
		}
		var rec chain.Record
		require.NoError(t, json.Unmarshal(lines.Bytes(), &rec))
		require.Equal(t, "client-2", rec.ClientSlug)
		seqs = append(seqs, rec.Seq)
		return true
	}
	for range 3 {
		require.Equal(t, 200, r.call("client-0", "GET", contact1, nil).status)
		require.Equal(t, 200, r.call("client-2", "GET", contact1, nil).status)
		if len(seqs) < 4 {
			require.True(t, read())
			require.True(t, read())
		}
	}
	require.True(t, read(), "the fifth")
	require.False(t, read(), "no sixth")
	require.NoError(t, lines.Err())
	for i := 1; i < len(seqs); i++ {
		require.Less(t, seqs[i-1], seqs[i])
	}
}
