package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

// startBridge starts a bridge to a fake agent, for acme-corp.
func startBridge(t *testing.T, reason string) *bridge {
	t.Helper()
	c := wire.NewClient(newFakeAgent(t).socket)
	t.Cleanup(c.Close)
	slug, err := wire.ParseSlug("acme-corp")
	require.NoError(t, err)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	b := newBridge(c, slug, l.Addr().String(), reason)
	served := make(chan error, 1)
	go func() { served <- b.serve(l) }()
	t.Cleanup(func() {
		require.NoError(t, b.close())
		require.NoError(t, <-served)
	})
	return b
}

// through sends a request, written out, and returns the answer.
func (b *bridge) through(t *testing.T, request string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp4", b.host)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, strings.NewReplacer("HOST", b.host, "TOKEN", b.token.Reveal(), "\n", "\r\n").Replace(request))
	require.NoError(t, err)
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

func TestThreat28BridgeWantsItsToken(t *testing.T) {
	b := startBridge(t, "")
	const auth = "Authorization: Bearer TOKEN\n"
	tests := []struct {
		name, request string
		status        int
	}{
		{"as it should be", "GET /echo HTTP/1.1\nHost: HOST\n" + auth + "\n", 200},
		{"by the name localhost", "GET /echo HTTP/1.1\nHost: localhost:" + strings.Split(b.host, ":")[1] + "\n" + auth + "\n", 200},
		{"the scheme in another case", "GET /echo HTTP/1.1\nHost: HOST\nauthorization: bearer TOKEN\n\n", 200},
		{"no token", "GET /echo HTTP/1.1\nHost: HOST\n\n", 401},
		{"another token", "GET /echo HTTP/1.1\nHost: HOST\nAuthorization: Bearer " + madeUpToken + "\n\n", 401},
		{"a part of it", "GET /echo HTTP/1.1\nHost: HOST\nAuthorization: Bearer pat-na1-\n\n", 401},
		{"nothing", "GET /echo HTTP/1.1\nHost: HOST\nAuthorization: Bearer \n\n", 401},
		{"twice", "GET /echo HTTP/1.1\nHost: HOST\n" + auth + auth + "\n", 401},
		{"as a password", "GET /echo HTTP/1.1\nHost: HOST\nAuthorization: Basic TOKEN\n\n", 401},
		{"a foreign host", "GET /echo HTTP/1.1\nHost: evil.example\n" + auth + "\n", 403},
		{"the host without the port", "GET /echo HTTP/1.1\nHost: 127.0.0.1\n" + auth + "\n", 403},
		{"a web page", "GET /echo HTTP/1.1\nHost: HOST\nOrigin: null\n" + auth + "\n", 403},
		{"a link", "GET /echo HTTP/1.1\nHost: HOST\nReferer: http://HOST/\n" + auth + "\n", 403},
		{"an upgrade", "GET /echo HTTP/1.1\nHost: HOST\nConnection: Upgrade\nUpgrade: websocket\n" + auth + "\n", 400},
		{"a whole URL", "GET http://HOST/echo HTTP/1.1\nHost: HOST\n" + auth + "\n", 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := b.through(t, tt.request)
			require.Equal(t, tt.status, resp.StatusCode, body)
			if tt.status != 200 {
				require.NotEmpty(t, resp.Header.Get(wire.HeaderError))
				require.True(t, resp.Close, "strangers hold no connection")
				require.Empty(t, resp.Header.Get(wire.HeaderCallID), "nothing was called")
				require.Contains(t, body, fmt.Sprintf(`"status":%d`, tt.status))
				require.Equal(t, tt.status == 401, resp.Header.Get("WWW-Authenticate") == "Bearer")
			}
		})
	}
}

func TestBridgePassesCallsOn(t *testing.T) {
	b := startBridge(t, "TICKET-7")
	resp, body := b.through(t, "PATCH /echo?a=%2B&b=1 HTTP/1.1\nHost: HOST\nAuthorization: Bearer TOKEN\nContent-Type: text/x\nX-Own: 1\nConnection: X-Hop\nX-Hop: 1\nTE: trailers\nContent-Length: 5\n\nhello")
	require.Equal(t, 200, resp.StatusCode, body)
	require.Equal(t, fakeCallID, resp.Header.Get(wire.HeaderCallID))
	var got struct {
		Method, Target, Body string
		Length               int
		Header               map[string]string
	}
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.Equal(t, "PATCH", got.Method)
	require.Equal(t, "/echo?a=%2B&b=1", got.Target)
	require.Equal(t, "hello", got.Body)
	require.Equal(t, 5, got.Length)
	require.Equal(t, map[string]string{"Content-Type": "text/x", "X-Own": "1", "Content-Length": "5", wire.HeaderReason: "TICKET-7"}, got.Header)

	// Bodies without a length, answers with a bad status, and the agent's own.
	resp, body = b.through(t, "POST /echo HTTP/1.1\nHost: HOST\nAuthorization: Bearer TOKEN\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n")
	require.Equal(t, 200, resp.StatusCode)
	require.Contains(t, body, `"body":"abc"`)
	resp, _ = b.through(t, "GET /status/404 HTTP/1.1\nHost: HOST\nAuthorization: Bearer TOKEN\n\n")
	require.Equal(t, 404, resp.StatusCode)
	require.Empty(t, resp.Header.Get(wire.HeaderError))
	resp, body = b.through(t, "GET /agent/throttled HTTP/1.1\nHost: HOST\nAuthorization: Bearer TOKEN\n\n")
	require.Equal(t, 429, resp.StatusCode)
	require.Equal(t, "throttled", resp.Header.Get(wire.HeaderError))
	require.Contains(t, body, fakeCallID)
}

// An answer that breaks off arrives broken, not short; one that has only begun
// has arrived so far.
func TestBridgeStreams(t *testing.T) {
	b := startBridge(t, "")
	get := func(path string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.host+path, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+b.token.Reveal())
		resp, err := http.DefaultTransport.RoundTrip(req)
		require.NoError(t, err)
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	_, err := io.ReadAll(get("/broken").Body)
	require.Error(t, err)
	line, err := bufio.NewReader(get("/hangs").Body).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "begun\n", line)
}

func TestMadeUpTokens(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		token := madeUp()
		require.NoError(t, token.Check())
		require.Equal(t, "pat-na1-***", wire.MaskTokens(token.Reveal()), "it has a token's form")
		seen[token.Reveal()] = true
	}
	require.Len(t, seen, 100)
}

func TestChildEnvironment(t *testing.T) {
	b := &bridge{host: "127.0.0.1:7", token: madeUp()}
	in := []string{"PATH=/bin", "HUBSPOT_ACCESS_TOKEN=x", "HUBSPOT_API_KEY=x", "hubspot_client_secret=x", "HAPIKEY=x", "HUBSPOT_BASE_URL=x",
		"HUBSPOT_PORTAL=12", "CI_SECRET=" + madeUpToken, "HSAGENT_SOCK=/s", "EMPTY=", "HTTP_PROXY="}
	added := []string{"HUBSPOT_BASE_URL=http://127.0.0.1:7", "HUBSPOT_ACCESS_TOKEN=" + b.token.Reveal()}
	kept := []string{"PATH=/bin", "HUBSPOT_PORTAL=12", "HSAGENT_SOCK=/s", "EMPTY=", "HTTP_PROXY="}
	require.Equal(t, slices.Concat(kept, added), childEnv(in, b))
	out := childEnv([]string{"https_proxy=x", "http_proxy=http://proxy:3128", "NO_PROXY=internal"}, b)
	require.Equal(t, "internal,127.0.0.1", last(out, "NO_PROXY"))
	require.Equal(t, "127.0.0.1", last(out, "no_proxy"))
}

// last is the value that counts where a variable stands twice.
func last(environ []string, name string) string {
	value := ""
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}

// sdk is a program for hsctl exec to run: it makes a call as an SDK would and
// prints what came.
func sdk() {
	err := func() error {
		req, err := http.NewRequest(http.MethodGet, os.Getenv("HUBSPOT_BASE_URL")+"/status/418", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+os.Getenv("HUBSPOT_ACCESS_TOKEN"))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		fmt.Printf("%s %s\n", resp.Status, b)
		return err
	}()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(42)
}
