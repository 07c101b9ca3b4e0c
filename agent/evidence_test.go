package agent_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/auditstore/chain"
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
	got := r.get("/v1/audit/checkpoint")
	require.Equal(t, 200, got.status)
	require.True(t, strings.HasPrefix(got.header.Get("Content-Type"), "text/plain"))
	known, err := chain.ParseVerifiers(key.body)
	require.NoError(t, err)
	c, err := chain.OpenCheckpoint(got.body, known)
	require.NoError(t, err)
	require.Equal(t, uint64(len(r.records(chain.Filter{}))), c.Size, "it is over all records so far")
}
