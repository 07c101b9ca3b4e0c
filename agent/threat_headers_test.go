package agent_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
)

// TestThreat10GeneratedHeaders gives every header that has ever meant something
// to a server every odd value: what leaves has the one right token, goes where
// it belongs, and tells HubSpot nothing that is the agent's to say.
func TestThreat10GeneratedHeaders(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.ready(3)
	names := []string{
		"Authorization", "authorization", "AUTHORIZATION", "Proxy-Authorization", "Connection", "connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Upgrade", "Http2-Settings", "Expect",
		"Cookie", "Cookie2", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Anything", "X-Real-Ip", "Via", "Origin", "Referer", "X-Http-Method-Override", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url", "X-Host",
		"Idempotency-Key", "Range", "If-Match", "Accept", "Accept-Encoding", "Hsagent-Call-Id", "Hsagent-Error", "X-Custom",
	}
	values := []string{
		"", "x", "Authorization", "close, Authorization", "keep-alive, Host, Content-Length", "chunked", "h2c", "100-continue", "br, zstd", "Bearer x", "\xff\xfe", "\u202e", "%0d%0aX: y", "a\tb",
		"../../oauth", "https://evil.example/", strings.Repeat("v", 4000), strings.Repeat("v", 70_000),
	}
	keep := map[string]bool{"If-Match": true, "Accept": true, "X-Custom": true}
	n, left := 0, 0
	for _, name := range names {
		r.hubspot.Reset()
		got := make([][]int, len(values))
		var wg sync.WaitGroup
		for i, value := range values {
			wg.Go(func() {
				got[i] = r.raw("GET /v1/call/client-0" + tagged("client-0") + "&mark=" + strconv.Itoa(i) + " HTTP/1.1\r\nHost: hsagent\r\nHsagent-Retry: off\r\nX-Kept: yes\r\nConnection: close\r\n" + name + ": " + value + "\r\n\r\n")
			})
		}
		wg.Wait()
		came := map[string]sandbox.Request{} // by mark
		for _, req := range r.came() {
			_, mark, _ := strings.Cut(req.RawQuery, "&mark=")
			require.NotContains(t, came, mark)
			came[mark] = req
		}
		for i, value := range values {
			n++
			got := slices.DeleteFunc(got[i], func(status int) bool { return status == http.StatusContinue })
			require.Len(t, got, 1, "%s: %.60q", name, value)
			req, sent := came[strconv.Itoa(i)]
			if !sent {
				require.Contains(t, []int{400, 403, 415, 417, 431}, got[0], "%s: %.60q", name, value)
				continue
			}
			left++
			require.Equal(t, []string{"[token]"}, req.Header["Authorization"], "%s: %.60q", name, value)
			require.Equal(t, r.portals[0].Token.Fingerprint(), req.TokenFingerprint)
			require.Equal(t, r.upstream.Addr, req.Host)
			require.Equal(t, contacts, req.Path)
			require.Equal(t, []string{"yes"}, req.Header["X-Kept"], "%s: %.60q", name, value)
			if name := http.CanonicalHeaderKey(name); !keep[name] && name != "Authorization" && name != "Accept-Encoding" {
				require.NotContains(t, req.Header, name, "%.60q", value)
			}
		}
	}
	for _, many := range []int{101, 1000, 20_000} { // more headers than a request has
		n++
		r.hubspot.Reset()
		got := r.raw("GET /v1/call/client-0" + tagged("client-0") + " HTTP/1.1\r\nHost: hsagent\r\nConnection: close\r\n" + strings.Repeat("X-Many: v\r\n", many) + "\r\n")
		require.Len(t, got, 1, "%d headers", many)
		if got[0] != 200 {
			require.Contains(t, []int{400, 431}, got[0], "%d headers", many)
			require.Empty(t, r.came())
		}
	}
	require.GreaterOrEqual(t, n, 600)
	require.Greater(t, left, 100)
	r.cleanAll()
}
