package sandbox_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
)

func TestFaultStatus(t *testing.T) {
	tests := []struct {
		name     string
		fault    sandbox.Fault
		status   int
		contains string
		header   string
	}{
		{"burst 429", sandbox.Fault{Status: 429}, 429, "TEN_SECONDLY_ROLLING", "X-Hubspot-Ratelimit-Max"},
		{"daily 429", sandbox.Fault{Status: 429, Policy: "DAILY"}, 429, `"policyName":"DAILY"`, ""},
		{"migration", sandbox.Fault{Status: 477}, 477, "Migration", "Retry-After"},
		{"locked", sandbox.Fault{Status: 423}, 423, "locked", ""},
		{"dead token", sandbox.Fault{Status: 401}, 401, "INVALID_AUTHENTICATION", ""},
		{"edge", sandbox.Fault{Status: 502}, 502, "<!DOCTYPE html>", "Cf-Ray"},
		{"edge timeout", sandbox.Fault{Status: 524}, 524, "A timeout occurred", ""},
		{"own body and header", sandbox.Fault{Status: 418, Body: "short", Header: http.Header{"X-Own": {"1"}}}, 418, "short", "X-Own"},
		{"redirect", sandbox.Fault{Redirect: "https://example.com/?t={token}"}, 302, "", "Location"},
		{"raw", sandbox.Fault{Raw: []byte("HTTP/1.1 299 Odd\r\nContent-Length: 2\r\nX-Raw: 1\r\n\r\nok")}, 299, "ok", "X-Raw"},
		{"fill", sandbox.Fault{Fill: 100_000}, 200, "0123456789abcdef", ""},
		{"chunked", sandbox.Fault{Chunked: true}, 200, `"results"`, ""},
		{"encoding", sandbox.Fault{Encoding: "br"}, 200, `"results"`, "Content-Encoding"},
		{"late", sandbox.Fault{Delay: time.Millisecond, Trickle: time.Microsecond, Body: "slow"}, 200, "slow", ""},
	}
	r := start(t, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.SetFaults(tt.fault)
			defer r.ClearFaults()
			res := r.do(acmeToken, "GET", "/crm/v3/objects/contacts?limit=1", "")
			require.Equal(t, tt.status, res.status)
			require.Contains(t, string(res.raw), tt.contains)
			if tt.header != "" {
				require.NotEmpty(t, res.header.Get(tt.header))
			}
		})
	}
}

func TestFaultCuts(t *testing.T) {
	tests := []struct {
		name  string
		fault sandbox.Fault
		got   int // bytes of the body
	}{
		{"before", sandbox.Fault{DropBefore: true}, 0},
		{"after headers", sandbox.Fault{DropAfterHeaders: true}, 0},
		{"in the body", sandbox.Fault{Truncate: 17}, 17},
		{"in a chunked body", sandbox.Fault{Truncate: 17, Chunked: true}, 17},
		{"in a long body", sandbox.Fault{Truncate: 70_000, Fill: 1 << 30}, 70_000},
	}
	r := start(t, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.SetFaults(tt.fault)
			defer r.ClearFaults()
			res, err := r.try(acmeToken, "POST", "/crm/v3/objects/contacts/search", `{}`)
			require.Error(t, err)
			require.Len(t, res.raw, tt.got)
		})
	}
}

func TestFaultSelection(t *testing.T) {
	r := start(t, nil)
	status := func(f sandbox.Fault, n int) (out []int) {
		r.SetFaults(f)
		for range n {
			out = append(out, r.do(acmeToken, "GET", contacts, "").status)
		}
		return out
	}
	require.Equal(t, []int{200, 503, 200, 503}, status(sandbox.Fault{Status: 503, Every: 2}, 4))
	require.Equal(t, []int{503, 503, 200}, status(sandbox.Fault{Status: 503, Times: 2}, 3))
	require.Equal(t, []int{200}, status(sandbox.Fault{Status: 503, Portal: gamma}, 1))
	require.Equal(t, []int{200}, status(sandbox.Fault{Status: 503, Method: "POST"}, 1))
	require.Equal(t, []int{200}, status(sandbox.Fault{Status: 503, PathPrefix: "/account-info/"}, 1))
	require.Equal(t, []int{503}, status(sandbox.Fault{Status: 503, PathPrefix: "/crm/", Portal: acme, Method: "GET"}, 1))
	r.SetFaults(sandbox.Fault{Status: 503, Times: 1})
	r.AddFault(sandbox.Fault{Status: 504})
	require.Equal(t, 503, r.do(acmeToken, "GET", contacts, "").status)
	require.Equal(t, 504, r.do(acmeToken, "GET", contacts, "").status)
	r.ClearFaults()
	require.Equal(t, 200, r.do(acmeToken, "GET", contacts, "").status)
}

func TestFaultCommit(t *testing.T) {
	r := start(t, nil)
	r.SetFaults(sandbox.Fault{Commit: true, Status: 504, Times: 1})
	require.Equal(t, 504, r.do(acmeToken, "POST", "/crm/v3/objects/deals", `{"properties":{"dealname":"x"}}`).status)
	require.Equal(t, 13, r.Objects(acme, "deals"))
	r.SetFaults(sandbox.Fault{Status: 504, Times: 1})
	require.Equal(t, 504, r.do(acmeToken, "POST", "/crm/v3/objects/deals", `{"properties":{"dealname":"x"}}`).status)
	require.Equal(t, 13, r.Objects(acme, "deals"))
}

func TestFaultHang(t *testing.T) {
	r := start(t, nil)
	r.SetFaults(sandbox.Fault{Hang: true, Portal: acme})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", r.url+"/crm/v3/objects/contacts/search", strings.NewReader("{}"))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+acmeToken.Reveal())
	done := make(chan error, 1)
	go func() {
		_, err := r.send(req)
		done <- err
	}()
	require.Eventually(t, func() bool { return r.Count().ByPortal[acme].Arrivals == 1 }, 10*time.Second, time.Millisecond)
	require.Equal(t, 200, r.do(gammaToken, "GET", contacts, "").status, "the others go on")
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

func TestFaultEarlyHints(t *testing.T) {
	r := start(t, nil)
	r.SetFaults(sandbox.Fault{EarlyHints: true})
	seen := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { seen = code; return nil },
	})
	req, err := http.NewRequestWithContext(ctx, "GET", r.url+contacts, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+acmeToken.Reveal())
	res, err := r.send(req)
	require.NoError(t, err)
	require.Equal(t, 200, res.status)
	require.Equal(t, http.StatusEarlyHints, seen)
}

func TestFaultEcho(t *testing.T) {
	token := acmeToken.Reveal()
	field := func(res result) string { s, _ := res.body["echo"].(string); return s }
	tests := []struct {
		way  string
		read func(result) string
	}{
		{"body", field},
		{"split", field},
		{"json-escape", func(res result) string {
			require.NotContains(t, string(res.raw), token)
			return field(res)
		}},
		{"base64", func(res result) string { b, _ := base64.StdEncoding.DecodeString(field(res)); return string(b) }},
		{"base64url", func(res result) string { b, _ := base64.RawURLEncoding.DecodeString(field(res)); return string(b) }},
		{"percent", func(res result) string { s, _ := url.QueryUnescape(field(res)); return s }},
		{"percent-all", func(res result) string { s, _ := url.QueryUnescape(field(res)); return s }},
		{"hex", func(res result) string { b, _ := hex.DecodeString(field(res)); return string(b) }},
		{"upper", func(res result) string { return strings.ToLower(field(res)) }},
		{"header", func(res result) string {
			return strings.TrimPrefix(res.header.Get("X-Echo-Authorization"), "Bearer ")
		}},
	}
	r := start(t, nil)
	for _, tt := range tests {
		t.Run(tt.way, func(t *testing.T) {
			r.SetFaults(sandbox.Fault{EchoToken: tt.way})
			require.Equal(t, token, tt.read(r.do(acmeToken, "GET", contacts, "")))
		})
	}
	t.Run("gzip", func(t *testing.T) {
		r.SetFaults(sandbox.Fault{EchoToken: "split", Gzip: true})
		res := r.do(acmeToken, "GET", contacts, "")
		require.Equal(t, "gzip", res.header.Get("Content-Encoding"))
		zr, err := gzip.NewReader(bytes.NewReader(res.raw))
		require.NoError(t, err)
		plain, err := io.ReadAll(zr)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(plain, &res.body))
		require.Equal(t, token, field(res))
	})
	t.Run("placeholder", func(t *testing.T) {
		r.SetFaults(sandbox.Fault{Status: 400, Body: "no: {token}", Header: http.Header{"x-why": {"{token}"}}})
		res := r.do(acmeToken, "GET", contacts, "")
		require.Equal(t, "no: "+token, string(res.raw))
		require.Equal(t, token, res.header.Get("X-Why"))
	})
	t.Run("trailer", func(t *testing.T) {
		r.SetFaults(sandbox.Fault{EchoToken: "trailer"})
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+contacts, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := r.client.Do(req)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, token, resp.Trailer.Get("X-Sandbox-Echo"))
	})
}
