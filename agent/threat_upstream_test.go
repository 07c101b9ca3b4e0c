package agent_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/wire"
)

// gzipBomb is size bytes, a thousandth of it in gzip.
func gzipBomb(size int64) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.CopyN(w, endless{}, size) // a bytes.Buffer takes everything
	_ = w.Close()
	return b.String()
}

// upstreamReplies are what HubSpot, or what stands between, could answer:
// every status with every framing of every body.
func upstreamReplies() []string {
	bomb := gzipBomb(1 << 20)
	heads := []string{
		"000 Zero", "099 Low", "101 Switching Protocols", "200 OK", "204 No Content", "304 Not Modified", "400 \xe9", "503 Busy\r\nRetry-After: -1", "503 Busy\r\nRetry-After: 1e9",
		"503 Busy\r\nRetry-After: Mon, 23 Nov 1970 10:00:00 GMT", "599 Odd", "600 High", "999 Higher", "1000 Long", "-20 Short", "200 OK\r\nX-Echo: Bearer {token}",
	}
	bodies := []string{
		"", `{"results":[]}`, "<html>{token}</html>", "M\xfcller {token}", strings.Repeat(`{"a":[`, 10_000), "Authorization: Bearer {token}\r\nHost: x\r\n\r\n", "\x00\xff\x1b[2J",
	}
	var out []string
	for _, head := range heads {
		for _, body := range bodies {
			n, chunk := len(strings.ReplaceAll(body, "{token}", string(make([]byte, 44)))), fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
			if strings.Contains(body, "{token}") {
				chunk = fmt.Sprintf("%x\r\n%s\r\n", n, body)
			}
			for _, framed := range []string{
				fmt.Sprintf("Content-Length: %d\r\n\r\n%s", n, body),
				fmt.Sprintf("Content-Length: %d\r\n\r\n%s", n+9, body),
				"\r\n" + body,
				"Transfer-Encoding: chunked\r\n\r\n" + chunk + "0\r\nX-Late: {token}\r\n\r\n",
				"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + chunk + "0\r\n\r\n",
			} {
				out = append(out, "HTTP/1.1 "+head+"\r\nConnection: close\r\n"+framed)
			}
		}
		out = append(out, "HTTP/1.1 "+head+"\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"+bomb, "HTTP/1.1 103 Early\r\nX: {token}\r\nConnection: X\r\n\r\nHTTP/1.1 "+head+"\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
	}
	return out
}

func TestThreat45UpstreamRepliesOfAnyKind(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.ready(3)
	replies := upstreamReplies()
	require.Greater(t, len(replies), 400)
	codes := map[wire.Code]int{}
	for _, raw := range replies {
		r.hubspot.SetFaults(sandbox.Fault{Portal: 1000, PathPrefix: "/crm", Raw: []byte(raw)})
		req, err := http.NewRequest("PATCH", "http://hsagent/", strings.NewReader(`{}`))
		require.NoError(t, err)
		got := r.try(req, "/v1/call/client-0"+contacts+"/1")
		require.NotZero(t, got.status, "%.80q: %v", raw, got.err)
		r.clean(raw, got.text())
		codes[got.code()]++
		if got.code() != "" {
			got.refused(t, wire.CodeUpstreamInvalid)
		}
	}
	require.Len(t, codes, 2, "%v", codes)
	require.Len(t, r.checkLog(), len(replies), "none is sent twice, each has its outcome")
	require.Equal(t, 200, r.call("client-1", "GET", contacts, nil).status)
	r.hubspot.ClearFaults()
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	r.cleanAll()
}

func TestThreat45UpstreamPausesInItsAnswer(t *testing.T) {
	r := newRig(t, rigOptions{upstream: func(c *hubspot.UpstreamConfig) {
		c.PauseTimeout, c.HeaderTimeout = 200*time.Millisecond, time.Hour
	}})
	eventually(t, func() bool { return r.call("client-0", "GET", contacts, nil).status == 200 }, "ready")
	r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Portal: 1000, Trickle: time.Hour})
	for _, method := range []string{"GET", "POST"} {
		req, err := http.NewRequest(method, "http://hsagent/", nil)
		require.NoError(t, err)
		got := r.try(req, "/v1/call/client-0"+contacts)
		require.Error(t, got.err, "a broken answer must not look whole")
		require.Equal(t, string(wire.CodeUpstreamTimeout), r.outcomeOf(got).Error)
	}
	require.Equal(t, 200, r.call("client-1", "GET", contacts, nil).status)
	r.checkLog()
}

// Bodies pass through: what the agent holds does not grow with them, in either
// direction, in plain or decoded.
func TestThreat45UpstreamBodiesAreStreamed(t *testing.T) {
	const size, zipped, most = 96 << 20, 64 << 20, 32 << 20
	r := newRig(t, rigOptions{quiet: true, config: func(c *agent.Config) { c.MaxRequestBytes = size }})
	r.ready(3)
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	watch := &watched{step: size / 32, look: func() {
		runtime.GC()
		runtime.ReadMemStats(&now)
		require.Less(t, int64(now.HeapAlloc)-int64(before.HeapAlloc), int64(most))
	}}
	for _, tt := range []struct {
		name  string
		fault sandbox.Fault
		body  io.Reader
		bytes int64 // of the answer
	}{
		{"answer", sandbox.Fault{PathPrefix: "/crm", Fill: size}, nil, size},
		{"answer in gzip", sandbox.Fault{PathPrefix: "/crm", Raw: []byte("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzipBomb(zipped))}, nil, zipped},
		{"request", sandbox.Fault{PathPrefix: "/crm", Status: 200, Body: "{}"}, io.LimitReader(endless{}, size), 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.hubspot.SetFaults(tt.fault)
			body := tt.body
			if body != nil {
				body = io.TeeReader(body, watch)
			}
			req, err := http.NewRequest("POST", "http://hsagent/", body)
			require.NoError(t, err)
			req.URL.Opaque = "/v1/call/client-0" + contacts
			resp, err := r.http().RoundTrip(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
			n, err := io.Copy(watch, resp.Body)
			require.NoError(t, err)
			require.Equal(t, tt.bytes, n)
		})
	}
	r.checkLog()
}

// A watched stream looks around after each step.
type watched struct {
	step, n int
	look    func()
}

func (w *watched) Write(b []byte) (int, error) {
	if w.n += len(b); w.n >= w.step {
		w.n = 0
		w.look()
	}
	return len(b), nil
}
