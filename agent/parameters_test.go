package agent_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

// A rehearsal that is misspelt is refused: it would be a real run.
func TestParametersAreStrict(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	before := r.agent.Status().Store.Version
	const put = `{"token":"pat-na1-00000000-0000-4000-8000-00000000000a"}`
	tests := []struct{ name, method, target, body, want string }{
		{"no boolean", "PUT", "/v1/portals/fresh?dryRun=maybe", put, `"maybe\": want true or false`},
		{"empty", "PUT", "/v1/portals/fresh?dryRun", put, "want true or false"},
		{"misspelt", "PUT", "/v1/portals/fresh?dryrun=true", put, "takes dryRun"},
		{"twice", "PUT", "/v1/portals/fresh?dryRun=true&dryRun=false", put, "given 2 times"},
		{"a rotation", "POST", "/v1/portals/client-0/rotate?dryRun=yes", put, "want true or false"},
		{"a list", "POST", "/v1/onboard?dryRun=on", "", "want true or false"},
		{"a list's width", "POST", "/v1/rotate?concurrency=many", "", "want a number from 1 to 32"},
		{"a quota", "GET", "/v1/quota?refresh=x", "", "want true or false"},
		{"confirmations", "GET", "/v1/confirmations?follow=x", "", "want true or false"},
		{"one where there are none", "DELETE", "/v1/portals/client-0?dryRun=true", "", "takes none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := r.api(tt.method, tt.target, tt.body)
			require.Equal(t, wire.CodeBadRequest, got.code(), got.body)
			require.Contains(t, got.body, tt.want)
		})
	}
	require.Equal(t, before, r.agent.Status().Store.Version, "nothing was written")
	require.Equal(t, 200, r.api("GET", "/v1/quota?refresh=1", "").status)
}
