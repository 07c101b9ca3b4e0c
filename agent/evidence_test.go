package agent_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// get asks the agent's own API.
func (r *rig) get(path string) answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://hsagent/", nil)
	require.NoError(r.t, err)
	return r.do(req, path)
}

func TestCheckpointAndKey(t *testing.T) {
	r := newRig(t, rigOptions{})
	require.Equal(t, 200, r.call("client-0", "GET", "/crm/v3/objects/contacts", nil).status)
	key := r.get("/v1/audit/key")
	require.Equal(t, 200, key.status)
	require.Equal(t, r.keys[0].Verifier()+"\n", key.body)
	before := uint64(len(r.records(chain.Filter{}))) // the agent may still be asking about portals
	got := r.get("/v1/audit/checkpoint")
	require.Equal(t, 200, got.status)
	require.True(t, strings.HasPrefix(got.header.Get("Content-Type"), "text/plain"))
	known, err := chain.ParseVerifiers(key.body)
	require.NoError(t, err)
	c, err := chain.OpenCheckpoint(got.body, known)
	require.NoError(t, err)
	require.GreaterOrEqual(t, c.Size, before, "it is over all records so far")
}

func TestProofExportAndPruning(t *testing.T) {
	r := newRig(t, rigOptions{audit: func(c *auditstore.Config) { c.Hold = []string{"client-1"} }})
	require.Equal(t, 200, r.call("client-0", "GET", "/crm/v3/objects/contacts", nil).status)
	known := r.keys.Verifiers()

	got := r.get("/v1/audit/proof/1")
	require.Equal(t, 200, got.status)
	var p chain.Proof
	require.NoError(t, json.Unmarshal([]byte(got.body), &p))
	rec, err := p.Verify(known)
	require.NoError(t, err)
	require.Equal(t, uint64(1), rec.Seq)
	require.Equal(t, wire.CodeNotFound, r.get("/v1/audit/proof/4711").code())
	require.Equal(t, wire.CodeBadRequest, r.get("/v1/audit/proof/x").code())

	got = r.get("/v1/audit/export/client-0?from=2020-01-01")
	require.Equal(t, wire.NDJSONType, got.header.Get("Content-Type"))
	rep, err := chain.VerifyExport(strings.NewReader(got.body), known, nil)
	require.NoError(t, err)
	require.Empty(t, rep.Damage)
	require.Equal(t, uint64(len(r.records(chain.Filter{Slug: "client-0"}))), rep.Records)
	require.Equal(t, wire.CodeBadRequest, r.get("/v1/audit/export/client-0?from=soon").code())
	require.Equal(t, wire.CodeBadRequest, r.get("/v1/audit/export/client-0?limit=1").code())

	post := func(body string) answer {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://hsagent/", strings.NewReader(body))
		require.NoError(t, err)
		return r.do(req, "/v1/audit/prune")
	}
	require.Equal(t, wire.CodeConflict, post(`{"before":"2100-01-01","slug":"client-1"}`).code())
	require.Equal(t, wire.CodeBadRequest, post(`{"before":"soon"}`).code())
	require.Equal(t, wire.CodeBadRequest, post(`{"before":"2100-01-01","slug":"No Slug"}`).code())
	got = post(`{"before":"2100-01-01","slug":"client-0"}`)
	require.Equal(t, 200, got.status, got.body)
	left := r.records(chain.Filter{Slug: "client-0"})
	require.Len(t, left, 1)
	require.Equal(t, chain.AuditPruned, left[0].Kind)
	require.NotNil(t, left[0].Caller)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://hsagent/", nil)
	require.NoError(t, err)
	got = r.do(req, "/v1/audit/verify")
	var report wire.AuditReport
	require.NoError(t, json.Unmarshal([]byte(got.body[strings.LastIndex(strings.TrimSpace(got.body), "\n")+1:]), &report))
	require.True(t, report.OK(), got.body)
	require.Positive(t, report.PrunedRecords)
}

func TestRetention(t *testing.T) {
	o := rigOptions{audit: func(c *auditstore.Config) { c.Hold = []string{"client-1"} }}
	r := newRig(t, o)
	for _, slug := range []string{"client-0", "client-1"} {
		require.Equal(t, 200, r.call(slug, "GET", "/crm/v3/objects/contacts", nil).status)
	}
	held := len(r.records(chain.Filter{Slug: "client-1"}))
	size := r.audit.Status().Size
	r.stop()
	o.config = func(c *agent.Config) { c.Retention = time.Nanosecond }
	r.start(o)
	require.Eventually(t, func() bool { return len(r.records(chain.Filter{Kind: chain.AuditPruned})) > 0 }, time.Minute, time.Millisecond)
	old := func() bool { // asked about at the start: a new intent
		recs := r.records(chain.Filter{Slug: "client-0", Kind: chain.CallIntent, Limit: 1})
		return len(recs) > 0 && recs[0].Seq < size
	}
	require.Eventually(t, func() bool { return !old() }, time.Minute, time.Millisecond)
	require.GreaterOrEqual(t, len(r.records(chain.Filter{Slug: "client-1"})), held, "a legal hold")
}
