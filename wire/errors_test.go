package wire_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

// TestCodes holds the table of the documentation: scripts rely on it.
func TestCodes(t *testing.T) {
	tests := []struct {
		code         wire.Code
		status, exit int
	}{
		{wire.CodeBadRequest, 400, 2},
		{wire.CodeDenied, 403, 8},
		{wire.CodeConfirmationRequired, 403, 8},
		{wire.CodeBadPassphrase, 403, 7},
		{wire.CodeUnknownPortal, 404, 9},
		{wire.CodeNotFound, 404, 1},
		{wire.CodeMethodNotAllowed, 405, 1},
		{wire.CodeConflict, 409, 1},
		{wire.CodeIdentityMismatch, 422, 13},
		{wire.CodeTokenRejected, 422, 13},
		{wire.CodeScopeMissing, 422, 13},
		{wire.CodeLocked, 423, 7},
		{wire.CodeThrottled, 429, 11},
		{wire.CodeQuotaExhausted, 429, 11},
		{wire.CodePortalQuarantined, 409, 10},
		{wire.CodePortalUnverified, 409, 10},
		{wire.CodePortalRejected, 409, 10},
		{wire.CodePortalParked, 503, 11},
		{wire.CodeUpstreamUnreachable, 502, 5},
		{wire.CodeUpstreamInvalid, 502, 5},
		{wire.CodeUpstreamTimeout, 504, 5},
		{wire.CodeAuditUnavailable, 503, 12},
		{wire.CodeTooLarge, 413, 2},
		{wire.CodeBusy, 503, 1},
		{wire.CodeInternal, 500, 1},
		{"of_a_newer_agent", 500, 1},
	}
	for _, tt := range tests {
		t.Run(string(tt.code), func(t *testing.T) {
			require.Equal(t, tt.status, tt.code.Status())
			require.Equal(t, tt.exit, tt.code.Exit())
		})
	}
}

func TestErrorf(t *testing.T) {
	p := wire.Errorf(wire.CodeThrottled, "portal %s is busy, says %s", "acme-corp", madeUpToken).After(1500 * time.Millisecond)
	require.Equal(t, http.StatusText(http.StatusTooManyRequests), p.Title)
	require.Equal(t, 2, p.RetryAfter, "rounded up")
	require.Equal(t, "throttled: portal acme-corp is busy, says pat-na1-***", p.Error())
	b, err := json.Marshal(p)
	require.NoError(t, err)
	require.Equal(t, `{"type":"urn:hsagent:error:throttled","title":"Too Many Requests","status":429,`+
		`"detail":"portal acme-corp is busy, says pat-na1-***","code":"throttled","retryAfter":2}`, string(b))
}
