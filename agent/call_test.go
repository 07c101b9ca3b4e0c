package agent_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

func TestCall(t *testing.T) {
	r := newRig(t, rigOptions{})
	got := r.call("client-1", "GET", "/crm/v3/objects/contacts?limit=2", nil, wire.HeaderReason, "ticket 42")
	require.NoError(t, got.err)
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.Empty(t, got.code())
	require.NotEmpty(t, got.header.Get(wire.HeaderCallID))
	require.NotEmpty(t, got.header.Get("X-Hubspot-Ratelimit-Max"))
	require.Empty(t, got.header["Set-Cookie"])
	var page struct{ Results []json.RawMessage }
	require.NoError(t, json.Unmarshal([]byte(got.body), &page))
	require.Len(t, page.Results, 2)

	recs := r.records(chain.Filter{CallID: got.header.Get(wire.HeaderCallID)})
	require.Len(t, recs, 2)
	intent, outcome := recs[0], recs[1]
	require.Equal(t, chain.CallIntent, intent.Kind)
	require.Equal(t, chain.CallOutcome, outcome.Kind)
	for _, rec := range recs {
		require.Equal(t, "client-1", rec.ClientSlug)
		require.Equal(t, int64(1001), rec.PortalID)
		require.Equal(t, "/crm/v3/objects/contacts?limit=2", rec.Path)
		require.Equal(t, "contacts", rec.ObjectType)
		require.Equal(t, "v3", rec.APIVersion)
		require.Equal(t, "ticket 42", rec.Reason)
		require.Equal(t, 1, rec.Attempt)
		require.NotNil(t, rec.Caller)
		require.NotZero(t, rec.Caller.PID)
		require.Equal(t, "hsagentd/test", rec.Actor)
	}
	require.Equal(t, 200, outcome.StatusCode)
	require.Equal(t, int64(len(got.body)), *outcome.ResponseBytes)
	require.NotNil(t, outcome.RateLimitRemaining)
	require.NotEmpty(t, outcome.CorrelationID)
}

func TestCallWithBody(t *testing.T) {
	r := newRig(t, rigOptions{})
	got := r.call("client-0", "POST", "/crm/v3/objects/contacts", strings.NewReader(`{"properties":{"email":"new@example.com"}}`), "Content-Type", "application/json")
	require.Equal(t, http.StatusCreated, got.status, got.body)
	var obj struct{ ID string }
	require.NoError(t, json.Unmarshal([]byte(got.body), &obj))
	recs := r.records(chain.Filter{CallID: got.header.Get(wire.HeaderCallID), Kind: chain.CallOutcome})
	require.Len(t, recs, 1)
	require.Equal(t, obj.ID, recs[0].ObjectID)
	require.Equal(t, int64(42), *recs[0].RequestBytes)
}

func TestRefusedCalls(t *testing.T) {
	r := newRig(t, rigOptions{})
	tests := []struct {
		name, slug, method, target string
		header                     []string
		status                     int
		code                       wire.Code
	}{
		{"unknown slug", "client-7", "GET", "/crm/v3/objects/contacts", nil, 404, wire.CodeUnknownPortal},
		{"malformed slug", "Client", "GET", "/crm/v3/objects/contacts", nil, 400, wire.CodeBadRequest},
		{"dot segment", "client-0", "GET", "/crm/../oauth/v1", nil, 400, wire.CodeBadRequest},
		{"oauth", "client-0", "GET", "/oauth/v1/access-tokens/x", nil, 403, wire.CodeDenied},
		{"no path", "client-0", "GET", "", nil, 400, wire.CodeBadRequest},
		{"foreign host", "client-0", "GET", "/crm/v3/objects/contacts", []string{"Origin", "https://evil.example"}, 403, wire.CodeDenied},
		{"bad wait", "client-0", "GET", "/crm/v3/objects/contacts", []string{wire.HeaderWait, "soon"}, 400, wire.CodeBadRequest},
		{"trace", "client-0", "TRACE", "/crm/v3/objects/contacts", nil, 405, wire.CodeMethodNotAllowed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := r.call(tt.slug, tt.method, tt.target, nil, tt.header...)
			require.Equal(t, tt.status, got.status, got.body)
			require.Equal(t, tt.code, got.code())
			require.Equal(t, wire.ProblemType, got.header.Get("Content-Type"))
			var p wire.Problem
			require.NoError(t, json.Unmarshal([]byte(got.body), &p))
			require.Equal(t, tt.code, p.Code)
			require.NotEmpty(t, p.Detail)
		})
	}
	require.Zero(t, r.arrivals())
}
