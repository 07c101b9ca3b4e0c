package agent_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMetrics(t *testing.T) {
	r := newRig(t, rigOptions{})
	require.Equal(t, http.StatusOK, r.call("client-0", "GET", contacts, nil).status)
	require.Equal(t, http.StatusNotFound, r.call("nobody", "GET", contacts, nil).status)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://hsagent/", nil)
	require.NoError(t, err)
	got := r.do(req, "/metrics")
	require.Equal(t, http.StatusOK, got.status)
	require.True(t, strings.HasPrefix(got.header.Get("Content-Type"), "text/plain; version=0.0.4"))
	for _, line := range []string{
		"hsagent_locked 0",
		"hsagent_audit_shut 0",
		`hsagent_calls_refused_total{code="unknown_portal"} 1`,
		`hsagent_portal_state{slug="client-0",state="ready"} 1`,
		`hsagent_attempts_total{slug="client-0",status="2xx"} 2`, // account-info, then the call
	} {
		require.Contains(t, got.body, line+"\n")
	}
}
