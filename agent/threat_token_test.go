package agent_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

func TestThreat07EchoedTokens(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	token := r.portals[0].Token.Reveal()
	ways := []string{"header", "trailer", "body", "split", "json-escape", "base64", "base64url", "percent", "percent-all", "hex", "upper"}
	for _, way := range ways {
		for _, shape := range []sandbox.Fault{{}, {Gzip: true}, {Chunked: true}, {Gzip: true, Chunked: true}, {EarlyHints: true}, {Status: 401}, {Status: 404}} {
			shape.EchoToken, shape.PathPrefix = way, "/crm"
			t.Run(fmt.Sprintf("%s gzip=%v chunked=%v hints=%v status=%d", way, shape.Gzip, shape.Chunked, shape.EarlyHints, shape.Status), func(t *testing.T) {
				r.hubspot.SetFaults(shape)
				got := r.call("client-0", "GET", contacts, nil)
				require.NoError(t, got.err)
				require.Empty(t, got.code(), got.body)
				r.clean("the answer", got.text())
				require.Empty(t, got.header["Trailer"])
				out := r.outcomeOf(got)
				switch way {
				case "trailer":
					require.Empty(t, out.Error, "a trailer does not go on at all")
				case "header":
					require.Equal(t, string(wire.CodeLeakMasked), out.Error)
					require.Equal(t, "Bearer "+strings.Repeat("*", len(token)), got.header.Get("X-Echo-Authorization"))
				default:
					require.Equal(t, string(wire.CodeLeakMasked), out.Error)
					require.Contains(t, got.body, "***")
					require.Equal(t, int64(len(got.body)), *out.ResponseBytes)
				}
			})
		}
	}
	r.hubspot.ClearFaults()
	r.checkLog()
	r.cleanAll()
}

func TestThreat07LengthsHold(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	token := r.portals[0].Token.Reveal()
	body := `{"you sent":"Bearer {token}","and":"{token}{token}","x":1}`
	inNames := []string{"X-" + token, "X-" + hex.EncodeToString([]byte(token)), "X-" + base64.RawURLEncoding.EncodeToString([]byte(token)), "X-" + strings.ReplaceAll(token, "-", "%2D")}
	for _, header := range append(inNames, "X-Echo", "Etag", "Location", "Content-Type", "Warning", "Link") {
		r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Body: body, Header: http.Header{header: {"a={token};b"}}})
		got := r.call("client-0", "GET", contacts, nil)
		require.NoError(t, got.err)
		r.clean("the answer", got.text())
		stars := strings.Repeat("*", len(token))
		require.Equal(t, strings.ReplaceAll(body, "{token}", stars), got.body)
		require.Equal(t, fmt.Sprint(len(got.body)), got.header.Get("Content-Length"))
		if slices.Contains(inNames, header) {
			require.Empty(t, got.header.Get(header), "nobody keeps the case of a name, so its text does not tell")
		} else {
			require.Equal(t, "a="+stars+";b", got.header.Get(header))
		}
		require.Equal(t, string(wire.CodeLeakMasked), r.outcomeOf(got).Error)
	}
	r.cleanAll()
}

// An echo in each encoding, cut at each of its bytes, in each shape of an
// answer: its two halves arrive by themselves.
func TestThreat07EverySplit(t *testing.T) {
	portals := portalsOf(8)
	r := newRig(t, rigOptions{portals: portals, quiet: true})
	r.ready(len(portals))
	each := func(format, s string) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			fmt.Fprintf(&b, format, c)
		}
		return b.String()
	}
	encodings := []func(token string) string{
		func(token string) string { return token },
		func(token string) string { return each("%%%02X", token) },
		func(token string) string { return each(`\u%04x`, token) },
		func(token string) string { return hex.EncodeToString([]byte(token)) },
		func(token string) string { return base64.StdEncoding.EncodeToString([]byte("Bearer " + token)) },
	}
	shapes := []sandbox.Fault{{}, {Chunked: true}, {Gzip: true}, {Gzip: true, Chunked: true}}
	const before, after = `{"a":"`, `"}`
	var (
		wg     sync.WaitGroup
		made   atomic.Int64
		tokens = r.tokens()
	)
	for i, p := range portals {
		wg.Go(func() {
			token := p.Token.Reveal()
			for n, encode := range encodings {
				echo := encode(token)
				for cut := i; cut <= len(echo); cut += len(portals) { // each portal has every eighth byte
					for _, shape := range shapes {
						shape.Portal, shape.PathPrefix = p.ID, fmt.Sprintf("/crm/%s/%d/%d", p.Slug, n, cut)
						shape.Body, shape.Cut = before+echo+after, int64(len(before)+cut)
						shape.Times = 1
						r.hubspot.AddFault(shape)
						got := r.call(p.Slug, "GET", shape.PathPrefix, nil)
						if got.status != 200 || got.err != nil || len(got.body) != len(shape.Body) || strings.Count(got.body, "*") < len(token) {
							t.Errorf("%.80s cut at %d, %+v: %d %s", echo, cut, shape, got.status, got.body)
						}
						tokens.Absent(t, "the answer", []byte(got.text()))
						made.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	require.GreaterOrEqual(t, made.Load(), int64(2000))
	out := r.checkLog()
	require.Len(t, out, int(made.Load()))
	for _, rec := range out {
		require.Equal(t, string(wire.CodeLeakMasked), rec.Error)
	}
	r.cleanAll()
}

// Answers that cannot be parsed are quoted in errors: not with the token.
func TestThreat07TokenInGarbage(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	for _, raw := range []string{
		"{token}\r\n\r\n",
		"HTTP/1.1 {token} OK\r\n\r\n",
		"HTTP/{token} 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\n{token}\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: {token}\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: {token}\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Encoding: {token}\r\nContent-Length: 2\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{token}\r\n",
		"HTTP/1.1 999 {token}\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 101 {token}\r\nUpgrade: {token}\r\nConnection: upgrade\r\n\r\n{token}",
	} {
		r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Raw: []byte(raw)})
		got := r.call("client-0", "GET", contacts, nil, wire.HeaderRetry, "off")
		if got.err == nil { // else it broke off after its header, as it must
			got.refused(t, wire.CodeUpstreamInvalid)
		}
		r.clean(raw, got.text())
	}
	for _, rec := range r.checkLog() {
		require.Equal(t, string(wire.CodeUpstreamInvalid), rec.Error)
	}
	r.cleanAll()
}

func TestThreat08UnreadableEncodings(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	for _, enc := range []string{"br", "zstd", "deflate", "compress", "x-gzip", "gzip, gzip", "gzip, br", "aes128gcm", "\x7fx", "identity, br"} {
		r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", EchoToken: "body", Encoding: enc})
		for _, accept := range [][]string{nil, {"Accept-Encoding", enc}} {
			if strings.ContainsAny(enc, "\x7f") {
				accept = nil
			}
			got := r.call("client-0", "PATCH", contacts+"/1", nil, accept...)
			got.refused(t, wire.CodeUpstreamInvalid)
			r.clean(enc, got.text())
			require.Equal(t, string(wire.CodeUpstreamInvalid), r.outcomeOf(got).Error)
		}
	}
	for _, req := range r.came() {
		require.Contains(t, []string{"gzip", ""}, req.Header.Get("Accept-Encoding"), "only what can be decoded is asked for")
	}
	// The same in several lines, of which each alone could be read.
	zipped := string(gzipOf(gzipOf([]byte("Bearer " + r.portals[0].Token.Reveal()))))
	for _, lines := range []string{"gzip\r\nContent-Encoding: gzip", "identity\r\nContent-Encoding: gzip", "\r\nContent-Encoding: gzip", "gzip\r\nContent-Encoding: br"} {
		raw := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s", lines, len(zipped), zipped)
		r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Raw: []byte(raw)})
		got := r.call("client-0", "PATCH", contacts+"/1", nil)
		got.refused(t, wire.CodeUpstreamInvalid)
		require.Equal(t, string(wire.CodeUpstreamInvalid), r.outcomeOf(got).Error)
	}
	// A broken gzip stream breaks the answer off.
	r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", EchoToken: "body", Encoding: "gzip"})
	got := r.call("client-0", "GET", contacts, nil)
	require.Error(t, got.err)
	r.clean("broken gzip", got.text())
	r.checkLog()
	r.cleanAll()
}

func gzipOf(b []byte) []byte {
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	_, _ = zw.Write(b) // a bytes.Buffer takes everything
	_ = zw.Close()
	return out.Bytes()
}

func TestThreat10ExactlyOneAuthorization(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	other := r.portals[1].Token.Reveal()
	sets := [][]string{
		{},
		{"Authorization: Bearer someone-elses"},
		{"Authorization: Bearer a", "Authorization: Bearer b"},
		{"authorization: Basic x"}, {"AUTHORIZATION: x"},
		{"Connection: Authorization"}, {"Connection: authorization, keep-alive"}, {"Connection: close, Authorization"},
		{"Connection: Authorization", "Authorization: Bearer a"},
		{"Connection: Host"}, {"Connection: Content-Length"}, {"Connection: Accept"}, {"Connection: X-Kept"},
		{"Connection: keep-alive", "Connection: Authorization"},
		{"Proxy-Authorization: Basic x"}, {"Proxy-Connection: keep-alive"}, {"Proxy-Anything: x"},
		{"Cookie: a=b", "Cookie: c=d"}, {"Cookie2: x"},
		{"X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: evil", "X-Forwarded-Proto: http", "Forwarded: for=1", "X-Real-Ip: 1", "Via: x"},
		{"X-Http-Method-Override: DELETE"}, {"X-Method-Override: DELETE"}, {"X-HTTP-Method: DELETE"},
		{"X-Original-Url: /oauth"}, {"X-Rewrite-Url: /oauth"}, {"X-Host: evil"},
		{"Hsagent-Call-Id: 1"}, {"Hsagent-Error: x"}, {"Hsagent-Reason: r"}, {"Hsagent-Anything: x"},
		{"Te: trailers"}, {"Keep-Alive: 5"}, {"Trailer: Authorization"},
		{"Idempotency-Key: 1"}, {"X-Idempotency-Key: 1"},
		{"Accept-Encoding: br"}, {"Sec-Fetch-Site: none"},
	}
	dropped := []string{
		"Proxy-Authorization", "Proxy-Connection", "Proxy-Anything", "Cookie", "Cookie2", "Forwarded", "Via", "X-Real-Ip",
		"X-Http-Method-Override", "X-Method-Override", "X-Http-Method", "X-Original-Url", "X-Rewrite-Url", "X-Host",
		"Hsagent-Call-Id", "Hsagent-Error", "Hsagent-Reason", "Hsagent-Anything", "Te", "Keep-Alive", "Trailer",
		"Idempotency-Key", "X-Idempotency-Key", "Sec-Fetch-Site", "Connection", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
	}
	for _, set := range sets {
		r.hubspot.Reset()
		head := "GET /v1/call/client-0" + tagged("client-0") + " HTTP/1.1\r\nHost: hsagent\r\nUser-Agent: tool/1\r\nX-Kept: yes\r\nConnection: close\r\n" + strings.Join(set, "\r\n")
		require.Equal(t, []int{200}, r.raw(strings.TrimSuffix(head, "\r\n")+"\r\n\r\n"), "%v", set)
		came := r.came()
		require.Len(t, came, 1)
		require.Empty(t, r.crossed(), "%v", set)
		require.Equal(t, []string{"[token]"}, came[0].Header["Authorization"], "%v", set)
		require.Equal(t, r.portals[0].Token.Fingerprint(), came[0].TokenFingerprint)
		require.Equal(t, []string{"tool/1"}, came[0].Header["User-Agent"])
		require.Equal(t, r.upstream.Addr, came[0].Host)
		if strings.Join(set, "") != "Connection: X-Kept" {
			require.Equal(t, []string{"yes"}, came[0].Header["X-Kept"])
		}
		for _, name := range dropped {
			require.Empty(t, came[0].Header[name], "%s of %v", name, set)
		}
	}
	// Another portal's token, pasted into a header that would go on.
	for _, h := range []string{"X-Token: " + other, "X-Key: Bearer%20" + other, "User-Agent: " + other} {
		r.hubspot.Reset()
		require.Equal(t, []int{400}, r.raw("GET /v1/call/client-0"+contacts+" HTTP/1.1\r\nHost: hsagent\r\n"+h+"\r\n\r\n"))
		require.Empty(t, r.came())
	}
	r.cleanAll()
}

func TestThreat11TokensInTheWrongPlace(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	token := r.portals[0].Token.Reveal()
	esc := strings.ReplaceAll(token, "-", "%2D")
	tests := []struct {
		target string
		code   wire.Code
	}{
		{"/oauth/v1/access-tokens/x", wire.CodeDenied}, {"/OAuth/v1/token", wire.CodeDenied}, {"/%6fauth/v1/token", wire.CodeDenied}, {"//oauth/v1/token", wire.CodeDenied},
		{"/oauth", wire.CodeDenied}, {"/oauth/v2/private-apps/get/access-token-info", wire.CodeDenied}, {"/x/access-tokens", wire.CodeDenied}, {"/x/%61ccess-token/1", wire.CodeDenied},
		{"/x/refresh-tokens/1", wire.CodeDenied},
		{"/oauth/v1/access-tokens/" + token, wire.CodeDenied}, {"/oauth/v1/access-tokens/" + esc, wire.CodeDenied}, {"/oauth/v1/token?refresh_token=" + token, wire.CodeDenied},
		{contacts + "?hapikey=1", wire.CodeDenied}, {contacts + "?HapiKey=1", wire.CodeDenied}, {contacts + "?%68apikey=1", wire.CodeDenied}, {contacts + "?a=1&hapikey=2", wire.CodeDenied},
		{contacts + "?a=1;hapikey=2", wire.CodeDenied}, {contacts + "?access_token=x", wire.CodeDenied}, {contacts + "?ACCESS_TOKEN=x", wire.CodeDenied}, {contacts + "?access%5Ftoken=x", wire.CodeDenied},
		{contacts + "?access%255Ftoken=x", wire.CodeDenied}, {contacts + "?+hapikey=1", wire.CodeDenied},
		{contacts + "/" + token, wire.CodeBadRequest}, {contacts + "/" + esc, wire.CodeBadRequest}, {contacts + "?q=" + token, wire.CodeBadRequest}, {contacts + "?q=" + esc, wire.CodeBadRequest},
		{contacts + "?" + token + "=1", wire.CodeBadRequest},
	}
	for _, tt := range tests {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			got := r.call("client-0", method, tt.target, nil)
			got.refused(t, tt.code)
			r.clean("the problem", got.text())
		}
	}
	got := r.call(token, "GET", contacts, nil)
	got.refused(t, wire.CodeBadRequest)
	r.clean("the problem", got.text())
	require.Empty(t, r.came())
	// A reason is free text: a token pasted there is masked, and the call made.
	got = r.call("client-0", "GET", contacts, nil, wire.HeaderReason, "trying "+token+" now")
	require.Equal(t, 200, got.status)
	require.Equal(t, "trying pat-na1-*** now", r.outcomeOf(got).Reason)
	require.NotEmpty(t, r.records(chain.Filter{Kind: chain.CallDenied}))
	r.cleanAll()
}

// Whatever the agent answers about itself, no token is in it.
func TestThreat26NoAnswerHasAToken(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	require.NoError(t, r.hubspot.SetIdentity(1001, sandbox.Identity{ClaimID: 7}))
	fresh := sandbox.NewToken("na1")
	r.portals = append(r.portals, sandbox.Portal{ID: 5000, Slug: "fresh", Token: fresh})
	require.NoError(t, r.hubspot.AddPortal(r.portals[3]))
	put := `{"token":"` + fresh.Reveal() + `"}`
	for _, req := range [][3]string{
		{"GET", "/v1/status"}, {"GET", "/v1/portals"}, {"GET", "/v1/portals/client-0"}, {"GET", "/v1/portals/none"},
		{"POST", "/v1/portals/client-0/verify"}, {"POST", "/v1/portals/client-1/verify"}, {"POST", "/v1/portals/client-1/resume"},
		{"PUT", "/v1/portals/client-0", put}, {"PUT", "/v1/portals/fresh", put + "x"}, {"PUT", "/v1/portals/fresh", `{"Token":1,` + put[1:]},
		{"PUT", "/v1/portals/" + fresh.Reveal(), put}, {"PUT", "/v1/portals/fresh?dryRun=true", put}, {"PUT", "/v1/portals/fresh?dryRun=" + fresh.Reveal(), put},
		{"PUT", "/v1/portals/other", put}, {"PUT", "/v1/portals/again", put},
		{"POST", "/v1/unlock", `{"passphrase":"` + fresh.Reveal() + `"}`}, {"POST", "/v1/unlock", fresh.Reveal()},
		{"POST", "/v1/" + fresh.Reveal(), ""}, {"GET", "/v1/audit/records?" + fresh.Reveal() + "=1"}, {"GET", "/v1/audit/records?slug=" + fresh.Reveal()},
		{"GET", "/v1/audit/records?limit=10000"}, {"POST", "/v1/audit/verify"}, {"DELETE", "/v1/portals/other"},
		{"POST", "/v1/reload", `{"force":true}`}, {"POST", "/v1/lock"}, {"GET", "/v1/portals"},
		{fresh.Reveal(), "/v1/status"},
	} {
		r.clean(req[0]+" "+req[1], r.api(req[0], req[1], req[2]).text())
	}
	r.cleanAll()
}

// What travels in bodies and in headers stays in neither log, whatever becomes
// of the call.
func TestThreat26BodiesAreNotKept(t *testing.T) {
	const seeded, reason = "Seeded-Body", "Seeded-Reason"
	r := newRig(t, rigOptions{})
	r.ready(3)
	asJSON := http.Header{"Content-Type": {"application/json"}, "X-Seeded": {seeded}}
	for _, shape := range []sandbox.Fault{
		{},
		{Status: 200, Body: `{"results":[{"name":"` + seeded + `"}]}`, Header: asJSON},
		{Status: 207, Body: `{"numErrors":1,"errors":[{"category":"` + seeded + `","message":"` + seeded + `"}]}`, Header: asJSON},
		{Status: 400, Body: `{"category":"VALIDATION_ERROR","message":"` + seeded + `","errors":[{"message":"` + seeded + `"}]}`, Header: asJSON},
		{Status: 404, Body: `<html>` + seeded + `</html>`}, {Status: 500, Body: seeded}, {Status: 409, Body: `{"message":"` + seeded, Header: asJSON},
		{Raw: []byte("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + seeded)}, {Raw: []byte("HTTP/1.1 200 " + seeded + "\r\n" + seeded + "\r\n\r\n")}, {Raw: []byte(seeded)},
		{DropBefore: true}, {Body: `{"a":"` + seeded + `"}`, Truncate: 16, Header: asJSON},
		{Status: 429, Policy: "DAILY", Body: `{"message":"` + seeded + `","errorType":"RATE_LIMIT"}`, Header: asJSON}, // the last: no call leaves after it
	} {
		shape.PathPrefix = "/crm"
		r.hubspot.SetFaults(shape)
		for _, method := range []string{"POST", "PATCH", "PUT"} {
			req, err := http.NewRequest(method, "http://hsagent/", strings.NewReader(`{"properties":{"lastname":"`+seeded+`"}}`))
			require.NoError(t, err)
			got := r.try(req, "/v1/call/client-0"+contacts+"/1", "Content-Type", "application/json", "X-Seeded", seeded, wire.HeaderReason, reason, wire.HeaderWait, "0s")
			require.NotZero(t, got.status)
		}
	}
	r.hubspot.ClearFaults()
	r.api("PUT", "/v1/portals/other", `{"token":"`+seeded+`","more":"`+seeded+`"}`).refused(t, wire.CodeBadRequest)
	out := r.checkLog()
	require.Greater(t, len(out), 30)
	reasons := 0
	require.NoError(t, r.audit.Records(t.Context(), chain.Filter{}, func(stored []byte, _ *chain.Record) error {
		require.NotContains(t, string(stored), seeded)
		reasons += strings.Count(string(stored), reason)
		return nil
	}))
	require.GreaterOrEqual(t, reasons, len(out), "the control: the search sees what is kept")
	require.NotContains(t, r.log.String(), seeded)
	r.cleanAll()
}

// A stream passes piece by piece: nothing waits for the end of the answer.
func TestAnswersStream(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Body: "first and then nothing for long", Chunked: true, Trickle: patience})
	conn := r.dial()
	_, err := io.WriteString(conn, "GET /v1/call/client-0"+contacts+" HTTP/1.1\r\nHost: hsagent\r\n\r\n")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	b := make([]byte, 1)
	_, err = io.ReadFull(resp.Body, b)
	require.NoError(t, err)
	require.Equal(t, "f", string(b))
	require.NoError(t, conn.Close())
	out := r.checkLog()
	require.Len(t, out, 1)
	require.Equal(t, string(wire.CodeClientAbort), out[0].Error)
}
