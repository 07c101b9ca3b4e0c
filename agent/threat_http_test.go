package agent_test

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// listenIn returns the address of a listener that nobody should ever connect
// to, and how many did.
func listenIn(t *testing.T) (string, *atomic.Int64) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var n atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String(), &n
}

func TestThreat06RedirectsAreNotFollowed(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	evil, visits := listenIn(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, to := range []string{
			"https://" + evil + "/x", "http://" + evil + "/x", "//" + evil + "/x", r.upstream.URL + contacts, contacts + "/1",
			"http://" + r.upstream.Addr + contacts, "https://user:pw@" + evil + "/", "https://api.hubapi.com.example/x", "javascript:alert(1)",
		} {
			for _, method := range []string{"GET", "POST"} {
				r.hubspot.Reset()
				r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Status: status, Redirect: to})
				got := r.call("client-0", method, contacts, strings.NewReader("{}"))
				require.NoError(t, got.err)
				require.Empty(t, got.code())
				require.Equal(t, status, got.status)
				require.Equal(t, []string{to}, got.header["Location"], "it is text")
				require.Len(t, r.came(), 1)
			}
		}
	}
	require.Zero(t, visits.Load())
	r.checkLog()
}

func TestThreat09TheHostIsPinned(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	evil, visits := listenIn(t)
	const head = "\r\nHost: hsagent\r\nConnection: close\r\n\r\n"
	var lines []string
	for _, target := range []string{
		"http://" + evil + "/v1/call/client-0" + contacts, "https://" + evil + contacts, "//" + evil + contacts, evil + contacts, "*", "hsagent:80", evil,
		"http://hsagent/v1/call/client-0" + contacts, "http://hsagent@" + evil + "/", "/v1/call/client-0/https://" + evil + "/crm", "/v1/call/client-0http://" + evil,
		"/v1/call/client-0/http:/" + evil, "/v1/call/client-0@" + evil + contacts, "/v1/call/" + evil + "/crm", "/v1/call//" + evil + "/crm",
		"/v1/call/client-0:80/crm", "/v1/call/[::1%25lo]/crm", "\\\\" + evil + "\\crm",
	} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			lines = append(lines, method+" "+target+" HTTP/1.1")
		}
	}
	for _, line := range lines {
		before := len(r.came())
		for _, status := range r.raw(line + head) {
			// One of these means a path below HubSpot's own root, and no more.
			if status < 400 {
				t.Errorf("%s: %d", line, status)
			}
		}
		for _, req := range r.came()[before:] {
			require.Equal(t, r.upstream.Addr, req.Host, line)
			require.True(t, strings.HasPrefix(req.Target, "/"), line)
			require.Equal(t, int64(1000), req.PortalID, line)
		}
	}
	// Hosts in all places of a call's own target.
	var (
		wg      sync.WaitGroup
		targets = make(chan string)
		_, port = splitAddr(t, evil)
		n       int
	)
	for range 16 {
		wg.Go(func() {
			for target := range targets {
				r.raw("GET /v1/call/client-0" + target + " HTTP/1.1" + head)
			}
		})
	}
	for _, lead := range []string{"", "/", "//", "///", "http:", "https://", "/http://", "/http:/", "//user@", "//user:pw@", "/@", "@", "/\\", "\\\\", ":443", "/:80"} {
		for _, host := range []string{evil, "user@" + evil, "hsagent@" + evil, "localhost:" + port, "[::1]:" + port, "[::1%25lo]:" + port, r.upstream.Addr + "@" + evil} {
			for _, tail := range []string{"", "/", contacts, "?x=1", "#x"} {
				n++
				targets <- lead + host + tail
			}
		}
	}
	close(targets)
	wg.Wait()
	require.GreaterOrEqual(t, n+len(lines), 400)
	for _, target := range []string{"//" + evil + contacts, "///" + evil + "//x", "/@" + evil + "/", "/x:y@" + evil + "/"} {
		before := len(r.came())
		got := r.call("client-0", "GET", target, nil)
		require.Empty(t, got.code(), "%s %s", target, got.body)
		came := r.came()[before:]
		require.Len(t, came, 1)
		require.Equal(t, r.upstream.Addr, came[0].Host)
	}
	// A client's own Host is not passed on either.
	for _, host := range []string{"localhost", "LOCALHOST", "HsAgent"} {
		require.Equal(t, []int{200}, r.raw("GET /v1/call/client-0"+contacts+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"))
	}
	require.Greater(t, len(r.came()), 100, "those that are paths")
	for _, req := range r.came() {
		require.Equal(t, r.upstream.Addr, req.Host)
		require.Regexp(t, `^/[^/]`, req.Target)
		require.Equal(t, int64(1000), req.PortalID)
	}
	require.Zero(t, visits.Load())
	r.checkLog()
}

func splitAddr(t *testing.T, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	return host, port
}

func TestThreat13TheEnvironmentIsNotAsked(t *testing.T) {
	evil, visits := listenIn(t)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, "http://"+evil)
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		t.Setenv(name, "")
	}
	t.Setenv("SSL_CERT_FILE", "/dev/null")
	t.Setenv("SSL_CERT_DIR", t.TempDir())
	r := newRig(t, rigOptions{})
	r.ready(3)
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	require.Zero(t, visits.Load())

	// Go's own rule exempts loopback addresses from the environment's proxies.
	// This one it does not take for such, though it leads to the same place.
	_, port := splitAddr(t, r.upstream.Addr)
	elsewhere := func(c *hubspot.UpstreamConfig) { c.BaseURL = "https://0.0.0.0:" + port }
	r.stop()
	r.start(rigOptions{upstream: elsewhere})
	r.call("client-0", "GET", contacts, nil).refused(t, wire.CodePortalUnverified)
	require.Zero(t, visits.Load())

	// The control: a proxy of the config's own is asked.
	r.stop()
	r.start(rigOptions{upstream: func(c *hubspot.UpstreamConfig) { elsewhere(c); c.Proxy = "http://" + evil }})
	r.call("client-0", "GET", contacts, nil).refused(t, wire.CodePortalUnverified)
	require.NotZero(t, visits.Load())
}

// A proxy of the config's own gets nothing to read.
func TestThreat13NoProxyInTheClear(t *testing.T) {
	for _, base := range []string{"http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"} {
		_, err := hubspot.NewUpstream(hubspot.UpstreamConfig{BaseURL: base})
		require.NoError(t, err)
		_, err = hubspot.NewUpstream(hubspot.UpstreamConfig{BaseURL: base, Proxy: "http://proxy.example:3128"})
		require.ErrorContains(t, err, "leave out upstream.proxy")
	}
}

// Another certificate authority's word for the pinned host is not taken.
func TestThreat13ForeignCertificates(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	r.stop()
	other, err := sandbox.New(sandbox.Config{Portals: r.portals}).Start()
	require.NoError(t, err)
	t.Cleanup(other.Close)
	ours := r.upstream.CAPEM
	r.upstream.CAPEM = other.CAPEM
	before := r.hubspot.Count().Total.Arrivals
	r.start(rigOptions{})
	r.call("client-0", "POST", contacts, nil).refused(t, wire.CodePortalUnverified)
	require.Equal(t, before, r.hubspot.Count().Total.Arrivals)
	r.upstream.CAPEM = ours
	require.Empty(t, r.came())
	r.cleanAll()
}

func TestThreat17PathsPassAsTheyAreOrNotAtAll(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.ready(3)
	dots := []string{"..", ".", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "%u002e%u002e", "%c0%ae%c0%ae", "...", "x"}
	seps := []string{"/", "%2f", "%2F", "%252f", "%5c", "\\", ";", "%3b", "//"}
	tails := []string{"", "%00", "%0d%0a", "%20", "%ff", "%zz", "%", "#x", "?a=b#c", "@x", ":80", "~", "!$&'()*+,=", "a%40b.example", "?", "??", "?a=../..", "?a=%2f..%2f", "\x7f", "\xe9"}
	targets := []string{"/" + strings.Repeat("a", 2000), "/" + strings.Repeat("a", 70_000)}
	for _, d := range dots {
		for _, sep := range seps {
			for _, tail := range tails {
				targets = append(targets, "/crm"+sep+d+sep+"v3"+tail, "/"+d+sep+"client-1/crm"+tail, sep+d+tail)
			}
		}
	}
	require.GreaterOrEqual(t, len(targets), 5000)
	var (
		wg    sync.WaitGroup
		queue = make(chan string)
		asked = map[string]bool{} // as they may arrive
	)
	for range 16 {
		wg.Go(func() {
			for target := range queue {
				got := r.raw("GET /v1/call/client-0" + target + " HTTP/1.1\r\nHost: hsagent\r\nHsagent-Retry: off\r\nConnection: close\r\n\r\n")
				if len(got) != 1 || got[0] >= 300 && got[0] < 400 {
					t.Errorf("%.100q: %v", target, got)
				}
			}
		})
	}
	for _, target := range targets {
		queue <- target
		asked[strings.TrimSuffix(foldSlashes(target), "?")] = true
	}
	close(queue)
	wg.Wait()
	came := r.came()
	require.NotEmpty(t, came)
	for _, req := range came {
		require.True(t, asked[strings.TrimSuffix(req.Target, "?")], "%q is nothing that was asked for", req.Target)
		require.Equal(t, int64(1000), req.PortalID)
		path, _, _ := strings.Cut(req.Target, "?")
		for range 4 { // however often a server decodes it
			for seg := range strings.SplitSeq(path, "/") {
				require.NotContains(t, []string{".", ".."}, seg, "%q", req.Target)
			}
			require.NotContains(t, path, `\`)
			decoded, err := url.PathUnescape(path)
			require.NoError(t, err)
			require.Equal(t, strings.Count(path, "/"), strings.Count(decoded, "/"), "%q", req.Target)
			path = decoded
		}
	}
	require.Len(t, r.checkLog(), len(came))
}

// foldSlashes is what may change in a target: runs of slashes in its path.
func foldSlashes(s string) string {
	path, query, ok := strings.Cut(s, "?")
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	if ok {
		return path + "?" + query
	}
	return path
}

func TestThreat19OtherMethodsAndProtocols(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	target := "/v1/call/client-0" + contacts
	for _, req := range []string{
		"TRACE " + target, "CONNECT " + target, "CONNECT hsagent:443", "CONNECT " + r.upstream.Addr, "OPTIONS " + target, "OPTIONS *",
		"PROPFIND " + target, "get " + target, "Post " + target, "PRI " + target, "LINK " + target, "M-SEARCH " + target, "X" + strings.Repeat("Y", 500) + " " + target,
		" GET " + target, "GET\t" + target, "G,T " + target, "\x00GET " + target,
	} {
		got := r.raw(req + " HTTP/1.1\r\nHost: hsagent\r\nConnection: close\r\n\r\n")
		require.Len(t, got, 1, "%q", req)
		require.Contains(t, []int{400, 403, 405}, got[0], "%q", req)
	}
	for _, h := range []string{
		"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
		"Upgrade: websocket\r\nConnection: upgrade", "Upgrade: TLS/1.0", "HTTP2-Settings: AAMAAABkAAQAAP__", "Upgrade:", "upgrade: h2c",
		"Expect: something",
	} {
		got := r.raw("GET " + target + " HTTP/1.1\r\nHost: hsagent\r\n" + h + "\r\nConnection: close\r\n\r\n")
		require.Len(t, got, 1, "%q", h)
		require.Contains(t, []int{400, 417}, got[0], "%q", h)
	}
	for _, preface := range []string{
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"GET " + target + " HTTP/2.0\r\nHost: hsagent\r\n\r\n", "GET " + target + " HTTP/0.9\r\n\r\n", "GET " + target + "\r\n\r\n", "\x16\x03\x01\x00\x05hello",
	} {
		for _, status := range r.raw(preface) {
			require.GreaterOrEqual(t, status, 400, "%q", preface)
		}
	}
	require.Empty(t, r.came())

	// Nor does HubSpot get to switch protocols.
	r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Raw: []byte("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n")})
	got := r.call("client-0", "POST", contacts, nil)
	got.refused(t, wire.CodeUpstreamInvalid)
	require.Equal(t, 101, r.outcomeOf(got).StatusCode)
	r.checkLog()
}

func TestThreat28WebPages(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	ok := "Host: hsagent\r\n"
	var sets []string
	for _, h := range []string{
		"Origin: https://evil.example", "Origin: null", "Origin: http://localhost", "Origin:", "Referer: https://evil.example/x", "Referer:", "origin: http://hsagent",
		"Origin: a\r\nReferer: b", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site", "sec-fetch-site: x", "Sec-Fetch-Site:",
	} {
		sets = append(sets, ok+h+"\r\n")
	}
	for _, host := range []string{
		"evil.example", "127.0.0.1", "hsagent.evil.example", "hsagent:80", "localhost:8080", "localhost.", "api.hubapi.com", "[::1]", "evil.example#hsagent", "hsagent@evil", "", "hs agent", "169.254.169.254", "hsagent, evil", "xn--hsagent", "hsagent%00",
	} {
		sets = append(sets, "Host: "+host+"\r\n")
	}
	for _, set := range sets {
		for _, req := range []string{"GET /v1/call/client-0" + contacts, "POST /v1/call/client-0" + contacts, "GET /v1/portals", "POST /v1/lock"} {
			got := r.raw(req + " HTTP/1.1\r\n" + set + "Connection: close\r\n\r\n")
			require.Len(t, got, 1, "%q", set)
			require.Contains(t, []int{400, 403}, got[0], "%q", set)
			if !strings.Contains(set, "Host: \r\n") && !strings.ContainsAny(set, "#%@,") && !strings.Contains(set, "hs agent") {
				require.Equal(t, 403, got[0], "%q", set)
			}
		}
	}
	require.Empty(t, r.came())
	require.False(t, r.agent.Status().Locked)
	require.NotEmpty(t, r.records(chain.Filter{Kind: chain.CallDenied}))
	// No socket of the agent's is open to the network, so no page gets further.
	require.Equal(t, http.StatusOK, r.api("GET", "/v1/status", "").status)
}

// Statuses of HubSpot's own pass through; what is none does not.
func TestUpstreamStatuses(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	for _, status := range []int{200, 202, 299, 400, 401, 404, 409, 414, 418, 450, 499, 500, 520, 521, 523, 530, 599} {
		r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Raw: fmt.Appendf(nil, "HTTP/1.1 %d Odd\r\nContent-Length: 2\r\n\r\nok", status)})
		got := r.call("client-0", "PATCH", contacts+"/1", nil)
		require.Empty(t, got.code())
		require.Equal(t, status, got.status)
		require.Equal(t, "ok", got.body)
		require.Equal(t, status, r.outcomeOf(got).StatusCode)
	}
	r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Status: 477})
	got := r.call("client-0", "PATCH", contacts+"/1", nil, wire.HeaderWait, "0s")
	require.Equal(t, 477, got.status)
	require.Empty(t, got.code())
	for _, raw := range []string{
		"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 000 Odd\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 099 x\r\n\r\n",
		"HTTP/1.1 1000 x\r\n\r\n", "HTTP/1.1 -20 x\r\n\r\n", "HTTP/1.1 2x0 x\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/9 200 OK\r\n\r\n", "\x00\x01\x02\x03garbage\r\n\r\n", "SSH-2.0-x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "HTTP/1.1 200 OK\r\n: x\r\n\r\n", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n",
	} {
		r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Raw: []byte(raw)})
		got := r.call("client-1", "PATCH", contacts+"/1", nil)
		got.refused(t, wire.CodeUpstreamInvalid)
		require.Equal(t, string(wire.CodeUpstreamInvalid), r.outcomeOf(got).Error, "%q", raw)
	}
	r.checkLog()
}
