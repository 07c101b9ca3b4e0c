package agent_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/wire"
)

// metric reads one figure of the agent.
func (r *rig) metric(name string) int {
	r.t.Helper()
	got := r.api("GET", "/metrics", "")
	require.Equal(r.t, 200, got.status, got.body)
	for line := range strings.Lines(got.body) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			require.NoError(r.t, err)
			return int(n)
		}
	}
	require.Fail(r.t, "no such metric", name)
	return 0
}

// Callers that connect and say nothing, or half of something, keep nobody out:
// whoever has waited longest makes room.
func TestThreat46IdleCallers(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.ready(3)
	starts := []string{"", "GET /v1/status HTTP/1.1\r\nHost: hs", "POST /v1/call/client-0/crm/v3/objects/contacts HTTP/1.1\r\n"}
	for i := range 1500 {
		_, err := io.WriteString(r.dial(), starts[i%len(starts)])
		if err != nil {
			require.ErrorContains(t, err, "pipe") // closed already
		}
	}
	for range 5 {
		_, err := r.client.Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	}
	require.LessOrEqual(t, r.metric("hsagent_connections"), 512+16)
	r.checkLog()
}

// A header that never ends is not waited for, also where there is room.
func TestThreat46HalfHeaders(t *testing.T) {
	t.Parallel() // it takes as long as a header may
	r := newRig(t, rigOptions{quiet: true})
	for _, start := range []string{"GET /v1/status HTTP/1.1\r\nHost: hs", "POST /v1/call/client-0/crm/v3/objects/contacts HTTP/1.1\r\n"} {
		conn := r.dial()
		_, err := io.WriteString(conn, start)
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
		_, err = io.Copy(io.Discard, conn)
		require.NoError(t, err, "it is held open")
	}
}

// Where every connection of a user is at work, none is closed for a new one.
// The last few are for asking how the agent is.
func TestThreat46ConnectionsAtWork(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.ready(3)
	r.http().DisableKeepAlives = true
	work := func() {
		conn := r.dial()
		_, err := io.WriteString(conn, "GET /v1/audit/records?follow=true&limit=1&after=999999 HTTP/1.1\r\nHost: hsagent\r\n\r\n")
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
	}
	for range 512 {
		work()
	}
	for range 20 { // more than there are to spare: each makes room when it ends
		eventually(t, func() bool { return r.metric("hsagent_connections") == 513 }, "the ones before have ended")
		_, err := r.client.Status(t.Context())
		require.NoError(t, err)
	}
	r.call("client-0", "GET", contacts, nil).refused(t, wire.CodeBusy)
	require.Empty(t, r.came(), "a connection to spare makes no calls")

	eventually(t, func() bool { return r.metric("hsagent_connections") == 513 }, "the ones before have ended")
	for range 16 {
		work()
	}
	for i := range 50 { // nobody gets in; who asks is told so
		conn := r.dial()
		br := bufio.NewReader(conn)
		late := i < 4 // a client that sends its request only now
		if late {
			_, err := br.Peek(1)
			require.NoError(t, err)
		}
		_, err := io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: hsagent\r\n\r\n")
		if late {
			require.NoError(t, err, "it sees a broken connection instead of the answer")
		}
		resp, err := http.ReadResponse(br, nil)
		require.NoError(t, err)
		require.Equal(t, string(wire.CodeBusy), resp.Header.Get(wire.HeaderError))
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Contains(t, string(body), "connections at work")
		require.NoError(t, conn.Close())
	}
}

func TestThreat47DescriptorsRunOut(t *testing.T) {
	var used atomic.Int64
	used.Store(20)
	r := newRig(t, rigOptions{quiet: true, made: func(a *agent.Agent) {
		a.SetOpenFDs(func() (int, int) { return int(used.Load()), 256 })
	}})
	r.ready(3)
	r.http().DisableKeepAlives = true
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	busy := r.dial()
	_, err := io.WriteString(busy, "GET /v1/audit/records?follow=true&limit=1&after=999999 HTTP/1.1\r\nHost: hsagent\r\n\r\n")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(busy), nil)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)

	used.Store(195) // fewer than 64 are free
	eventually(t, func() bool { return r.call("client-0", "GET", contacts, nil).code() == wire.CodeBusy }, "the shortage is seen")
	arrived := len(r.came())
	r.call("client-1", "GET", contacts, nil).refused(t, wire.CodeBusy)
	require.Len(t, r.came(), arrived)
	_, err = r.client.Status(t.Context())
	require.NoError(t, err, "there are some left for that")

	used.Store(20)
	eventually(t, func() bool { return r.call("client-0", "GET", contacts, nil).status == 200 }, "it ends by itself")
}

// A process at its limit of files does not stop accepting for good.
func TestThreat47AcceptFails(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.ready(3)
	l, err := net.Listen("unix", r.dir+"/second.sock")
	require.NoError(t, err)
	f := &failing{Listener: l}
	f.left.Store(3)
	served := make(chan error, 1)
	go func() { served <- r.agent.Serve(f) }()
	_, err = wire.NewClient(r.dir + "/second.sock").Status(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.Error(t, <-served)
}

// failing cannot accept a few times, as a process without free descriptors.
type failing struct {
	net.Listener
	left atomic.Int64
}

type errFiles struct{}

func (errFiles) Error() string   { return "accept: too many open files" }
func (errFiles) Timeout() bool   { return false }
func (errFiles) Temporary() bool { return true }

func (f *failing) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, errFiles{}
	}
	return f.Listener.Accept()
}
