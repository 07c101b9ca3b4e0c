package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// 1,000 callers hang up: before the answer, anywhere in it, anywhere in their own
// body.
func TestThreat55CallersThatHangUp(t *testing.T) {
	const cuts, rounds = 24, 14 // eight of each portal: few enough to be sent before its limits are known
	r := newRig(t, rigOptions{quiet: true})
	r.ready(3)
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	before := runtime.NumGoroutine()
	const get = "GET /v1/call/client-%d" + contacts + " HTTP/1.1\r\nHost: hsagent\r\n\r\n"
	post := func() string {
		return "POST /v1/call/client-%d" + contacts + " HTTP/1.1\r\nHost: hsagent\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", rand.IntN(1000))
	}
	tests := []struct {
		name  string
		send  func() string
		fault sandbox.Fault
		most  int // bytes of the answer before the caller goes
	}{
		{"before the answer", func() string { return get }, sandbox.Fault{PathPrefix: "/crm", Hang: true}, 0},
		{"in the answer", func() string { return get }, sandbox.Fault{PathPrefix: "/crm", Fill: 64 << 20}, 1 << 20},
		{"in its own body", post, sandbox.Fault{PathPrefix: "/crm", Hang: true}, 0},
	}
	total := 0
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.hubspot.SetFaults(tt.fault)
			for range rounds {
				conns := make([]net.Conn, cuts)
				for i := range conns {
					conns[i] = r.dial()
					_, err := fmt.Fprintf(conns[i], tt.send(), i%3)
					require.NoError(t, err)
				}
				eventually(t, func() bool { return len(r.came()) == 1+total+cuts }, "all are on their way")
				for _, conn := range conns {
					_, err := io.CopyN(io.Discard, conn, rand.Int64N(int64(tt.most)+1))
					require.NoError(t, err)
					require.NoError(t, conn.Close())
				}
				total += cuts
				eventually(t, func() bool { return r.agent.Status().CallsInFlight == 0 }, "they end")
			}
		})
	}
	out := r.checkLog()[1:] // all but the first call
	require.Len(t, out, total)
	require.GreaterOrEqual(t, total, 1000)
	for _, rec := range out {
		require.Equal(t, string(wire.CodeClientAbort), rec.Error)
	}
	for _, req := range r.came() {
		require.Less(t, req.BodyBytes, int64(1000), "a body was made whole")
	}
	r.http().CloseIdleConnections()
	eventually(t, func() bool { return runtime.NumGoroutine() <= before+5 }, "goroutines end: %d before", before)
	r.hubspot.ClearFaults()
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
}

func TestUpstreamBreaksOff(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	for _, fault := range []sandbox.Fault{
		{Truncate: 10}, {Truncate: 10, Chunked: true}, {DropAfterHeaders: true}, {Fill: 1 << 20, Truncate: 700_000}, {Gzip: true, Truncate: 20},
		{Raw: []byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")}, {Raw: []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")},
		{Raw: []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")},
	} {
		fault.PathPrefix = "/crm"
		r.hubspot.SetFaults(fault)
		req, err := http.NewRequest("GET", "http://hsagent/", nil)
		require.NoError(t, err)
		got := r.try(req, "/v1/call/client-0"+contacts)
		require.Equal(t, 200, got.status, "%+v", fault)
		require.Error(t, got.err, "a broken answer must not look whole: %+v", fault)
		out := r.outcomeOf(got)
		require.Equal(t, string(wire.CodeUpstreamInvalid), out.Error)
		require.Equal(t, 200, out.StatusCode)
	}
	r.checkLog()
}

func TestUpstreamHangs(t *testing.T) {
	r := newRig(t, rigOptions{upstream: func(c *hubspot.UpstreamConfig) { c.HeaderTimeout = 200 * time.Millisecond }})
	eventually(t, func() bool { return r.call("client-0", "GET", contacts, nil).status == 200 }, "ready")
	r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Hang: true})
	got := r.call("client-0", "POST", contacts, strings.NewReader("{}"))
	p := got.refused(t, wire.CodeUpstreamTimeout)
	require.Contains(t, p.Detail, "not known", "nobody knows whether it was carried out")
	require.Equal(t, string(wire.CodeUpstreamTimeout), r.outcomeOf(got).Error)
	r.checkLog()
}

func TestUpstreamIsDown(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	r.upstream.Close()
	before := len(r.came())
	r.call("client-0", "POST", contacts, strings.NewReader("{}")).refused(t, wire.CodeUpstreamUnreachable)
	require.Len(t, r.came(), before)
	r.checkLog()
}

func TestRequestBytesAreBounded(t *testing.T) {
	const limit = 100_000
	r := newRig(t, rigOptions{config: func(c *agent.Config) { c.MaxRequestBytes = limit }})
	r.ready(3)
	got := r.call("client-0", "POST", contacts, bytes.NewReader(make([]byte, limit+1)))
	got.refused(t, wire.CodeTooLarge)
	require.Empty(t, r.came(), "its length was told: nothing left")

	// Without a length it shows on the way; what has left is recorded.
	req, err := http.NewRequest("POST", "http://hsagent/", io.LimitReader(endless{}, limit+1))
	require.NoError(t, err)
	got = r.try(req, "/v1/call/client-0"+contacts)
	got.refused(t, wire.CodeTooLarge)
	require.Equal(t, string(wire.CodeTooLarge), r.outcomeOf(got).Error)

	for _, body := range []io.Reader{bytes.NewReader(make([]byte, limit)), io.LimitReader(endless{}, limit)} {
		got := r.call("client-0", "POST", contacts, body)
		require.Empty(t, got.code(), got.body)
		require.Equal(t, int64(limit), *r.outcomeOf(got).RequestBytes)
	}
	r.checkLog()
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func TestThreat43OnePortalTakesItsShareAlone(t *testing.T) {
	r := newRig(t, rigOptions{config: func(c *agent.Config) { c.MaxInFlight = 80 }})
	r.ready(3)
	r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Portal: 1000, Hang: true})
	var busy int
	for i := range 30 {
		conn := r.dial()
		_, err := io.WriteString(conn, "GET /v1/call/client-0"+contacts+" HTTP/1.1\r\nHost: hsagent\r\n\r\n")
		require.NoError(t, err)
		if i < 20 { // a quarter of all places
			eventually(t, func() bool { return r.agent.Status().CallsInFlight == i+1 }, "call %d hangs", i)
			continue
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.Equal(t, 503, resp.StatusCode)
		require.Equal(t, string(wire.CodeBusy), resp.Header.Get(wire.HeaderError))
		require.NotEmpty(t, resp.Header.Get("Retry-After"))
		busy++
	}
	require.Equal(t, 10, busy)
	for range 50 {
		require.Equal(t, 200, r.call("client-1", "GET", contacts, nil).status)
	}
	st, err := r.client.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, 20, st.CallsInFlight)
}

// sick makes 99 portals exhausted, hanging or failing, and leaves client-0
// healthy. The function that it returns has a caller at each of them until it
// is called again.
func sick(t testing.TB) (*rig, func() (stop func())) {
	ps := portalsOf(100)
	for i := 1; i < len(ps); i += 3 {
		ps[i].DailyLimit = 50
	}
	r := newRig(t, rigOptions{portals: ps, quiet: true})
	for _, p := range ps {
		r.awaitState(p.Slug, wire.StateReady)
	}
	for i, p := range ps[1:] {
		switch f := (sandbox.Fault{Portal: p.ID, PathPrefix: "/crm"}); i % 3 {
		case 0:
			require.NoError(t, r.hubspot.Spend(p.ID, 50))
		case 1:
			f.Hang = true
			r.hubspot.AddFault(f)
		case 2:
			f.Status = http.StatusServiceUnavailable
			r.hubspot.AddFault(f)
		}
	}
	return r, func() func() {
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for _, p := range ps[1:] {
			wg.Go(func() {
				for ctx.Err() == nil {
					req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hsagent/", nil)
					if err != nil {
						return
					}
					r.try(req, "/v1/call/"+p.Slug+contacts) // it goes wrong in one way or another
					time.Sleep(200 * time.Millisecond)      // sick portals, no flood
				}
			})
		}
		return func() { cancel(); wg.Wait() }
	}
}

func TestThreat43SickPortalsHarmNoOther(t *testing.T) {
	r, begin := sick(t)
	stop := begin()
	defer stop()
	eventually(t, func() bool { return r.agent.Status().CallsInFlight >= 33 }, "33 calls hang")
	for range 200 {
		got := r.call("client-0", "GET", contacts, nil)
		require.Equal(t, 200, got.status, got.body)
	}
}

// BenchmarkHealthyPortal measures calls for one portal, alone and while 99
// others are exhausted, hang or fail. Alone and beside take turns, and what
// counts is the median of the rounds: a round is 500 calls each.
func BenchmarkHealthyPortal(b *testing.B) {
	r, begin := sick(b)
	r.call("client-0", "GET", contacts, nil)
	round := func() (p50, p99 float64) {
		took := make([]time.Duration, 500)
		for i := range took {
			began := time.Now()
			require.Equal(b, 200, r.call("client-0", "GET", contacts, nil).status)
			took[i] = time.Since(began)
		}
		slices.Sort(took)
		return float64(took[len(took)/2].Microseconds()), float64(took[len(took)*99/100].Microseconds())
	}
	figures := map[string][]float64{}
	note := func(name string, v float64) { figures[name] = append(figures[name], v) }
	for b.Loop() {
		p50, p99 := round()
		stop := begin()
		eventually(b, func() bool { return r.agent.Status().CallsInFlight >= 33 }, "33 calls hang")
		round() // until all have their connections
		sick50, sick99 := round()
		stop()
		eventually(b, func() bool { return r.agent.Status().CallsInFlight == 0 }, "the sick have gone")
		note("p50-µs", p50)
		note("p99-µs", p99)
		note("sick-p50-µs", sick50)
		note("sick-p99-µs", sick99)
		note("p50-ratio", sick50/p50)
		note("p99-ratio", sick99/p99)
	}
	for name, v := range figures {
		slices.Sort(v)
		b.ReportMetric(v[len(v)/2], name)
	}
}

func TestMaxInFlight(t *testing.T) {
	r := newRig(t, rigOptions{config: func(c *agent.Config) { c.MaxInFlight = 2 }})
	r.ready(3)
	r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Hang: true})
	for i := range 2 {
		conn := r.dial()
		_, err := fmt.Fprintf(conn, "GET /v1/call/client-%d%s HTTP/1.1\r\nHost: hsagent\r\n\r\n", i, contacts)
		require.NoError(t, err)
		eventually(t, func() bool { return r.agent.Status().CallsInFlight == i+1 }, "call %d hangs", i)
	}
	r.call("client-2", "GET", contacts, nil).refused(t, wire.CodeBusy)
	require.Equal(t, 200, r.api("GET", "/v1/status", "").status)
}

// A write whose caller hangs up while it waits for quota never leaves: its body
// was not read yet, so that net/http does not notice.
func TestThreat55CallersThatHangUpWhileTheyWait(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	r.hubspot.AddFault(sandbox.Fault{Portal: r.portals[0].ID, Method: "POST", Status: 429, Times: 1, Header: http.Header{"Retry-After": {"2"}}})
	require.Equal(t, 429, r.call("client-0", "POST", contacts, strings.NewReader("{}"), wire.HeaderRetry, "off").status)
	conn := r.dial()
	_, err := io.WriteString(conn, "POST /v1/call/client-0"+contacts+" HTTP/1.1\r\nHost: hsagent\r\nContent-Length: 2\r\n\r\n{}")
	require.NoError(t, err)
	eventually(t, func() bool { return r.agent.Status().CallsInFlight == 1 }, "it waits")
	require.NoError(t, conn.Close())
	r.quiet()
	require.Len(t, r.came(), 1)
	denied := r.records(chain.Filter{Slug: "client-0", Kind: chain.CallDenied})
	require.Len(t, denied, 1)
	require.Equal(t, string(wire.CodeClientAbort), denied[0].Error)
	r.checkLog()
}

// Who follows the log does not keep the agent from stopping: its answer ends,
// whole.
func TestDrainEndsWhatFollows(t *testing.T) {
	r := newRig(t, rigOptions{})
	resp, err := r.client.Stream(t.Context(), "GET", "/v1/audit/records", url.Values{"follow": {"true"}}, nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, r.agent.Drain(t.Context()))
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
}

// Draining breaks off what does not end by itself, and records it.
func TestDrainRecordsWhatItBreaksOff(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Hang: true})
	conn := r.dial()
	_, err := io.WriteString(conn, "POST /v1/call/client-0"+contacts+" HTTP/1.1\r\nHost: hsagent\r\n\r\n")
	require.NoError(t, err)
	eventually(t, func() bool { return len(r.came()) == 1 }, "it has arrived")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Error(t, r.agent.Drain(ctx))
	out := r.checkLog()
	require.Len(t, out, 1)
	require.Equal(t, string(wire.CodeBusy), out[0].Error)
}
