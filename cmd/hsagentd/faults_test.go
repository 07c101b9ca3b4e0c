//go:build faults

package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/packaging/faults"
	"github.com/hsagent/hsagentd/packaging/standing"
	"github.com/hsagent/hsagentd/wire"
)

// call makes one call and returns what came of it.
func (s *site) call() error {
	n := s.calls.Add(1)
	resp, err := s.client.Call(s.t.Context(), wire.CallRequest{
		Slug: s.slugs[int(n)%len(s.slugs)], Method: http.MethodGet,
		Target: fmt.Sprintf("/crm/v3/objects/contacts?after=%d", n),
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if p := wire.AgentError(resp); p != nil {
		return p
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// dial connects; a full queue of connections is no failure.
func (s *site) dial() net.Conn {
	s.t.Helper()
	for {
		c, err := net.Dial("unix", s.path("s/a.sock"))
		if errors.Is(err, syscall.EAGAIN) {
			time.Sleep(time.Millisecond)
			continue
		}
		require.NoError(s.t, err)
		return c
	}
}

// end wants an answer, sends SIGTERM and wants a clean exit.
func (s *site) end(cmd *exec.Cmd) {
	s.t.Helper()
	s.process(cmd).Answers(s.t)
	require.NoError(s.t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(s.t, cmd.Wait(), s.logs())
}

// logs are the last lines of the daemon's log.
func (s *site) logs() string {
	b, err := os.ReadFile(s.path(fmt.Sprintf("log.%d", s.started)))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// process is the daemon as what always holds is checked of it.
func (s *site) process(cmd *exec.Cmd) standing.Process {
	return standing.Process{PID: cmd.Process.Pid, Socket: s.path("s/a.sock"), LogDir: s.audit}
}

// status asks as a user does, and returns how long that took.
func (s *site) status() time.Duration {
	s.t.Helper()
	begin := time.Now()
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(binaries, "hsctl"), "--socket", s.path("s/a.sock"), "status")
	out, err := cmd.CombinedOutput()
	require.NoError(s.t, err, "%s", out)
	return time.Since(begin)
}

// The log's file system turns read-only under load: nothing leaves any more.
func TestFaultReadOnlyRemount(t *testing.T) {
	s := newSite(t, 3)
	d := faults.NewDisk(t, 512)
	s.audit = filepath.Join(d.Path, "audit")
	cmd := s.start()
	ctx, cancel := context.WithCancel(t.Context())
	wg := s.load(ctx, 8)
	require.Eventually(t, func() bool { return s.hub.Count().Total.Arrivals > 100 }, time.Minute, time.Millisecond)
	d.Abort(t)
	begin := time.Now()
	require.Eventually(t, func() bool { return codeOf(s.call()) == wire.CodeAuditUnavailable }, time.Minute, time.Millisecond)
	took := time.Since(begin)
	cancel()
	wg.Wait()
	arrived := s.hub.Count().Total.Arrivals
	for range 50 {
		require.Equal(t, wire.CodeAuditUnavailable, codeOf(s.call()))
	}
	require.Equal(t, arrived, s.hub.Count().Total.Arrivals, "something left without a record")
	t.Logf("refused after %v; status answered in %v", took, s.status())
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait() // a log that is shut is no clean end
	d.Restart(t)
	s.end(s.start())
	s.requireWhole()
}

// outcomes are how many calls' ends the log's database has.
func (s *site) outcomes() int {
	s.t.Helper()
	body, err := s.client.Stream(s.t.Context(), http.MethodGet, "/v1/audit/records", url.Values{"kind": {"call.outcome"}}, nil)
	require.NoError(s.t, err)
	defer body.Body.Close()
	lines, err := io.ReadAll(body.Body)
	require.NoError(s.t, err)
	return bytes.Count(lines, []byte("\n"))
}

// The log's disk stops answering, without an error, and comes back: calls of then
// are told so and do not leave, and the agent answers.
func TestFaultHungDisk(t *testing.T) {
	s := newSite(t, 3)
	d := faults.NewDisk(t, 512)
	s.audit = filepath.Join(d.Path, "audit")
	cmd := s.start()
	for range 100 {
		require.NoError(t, s.call())
	}
	// With all of it in the database, nothing but calls touches the disk.
	arrived := s.hub.Count().Total.Arrivals
	require.Eventually(t, func() bool { return s.outcomes() == arrived }, time.Minute, time.Millisecond)

	thaw := d.Freeze(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { assert.Equal(t, wire.CodeAuditUnavailable, codeOf(s.call()), "it waited for the disk") })
	}
	wg.Wait()
	for range 50 {
		require.Equal(t, wire.CodeAuditUnavailable, codeOf(s.call()))
	}
	st, err := s.client.Status(t.Context())
	require.NoError(t, err)
	require.Contains(t, string(st.Audit.LastError), "has not answered")
	require.Equal(t, arrived, s.hub.Count().Total.Arrivals, "something left without a record")

	thaw()
	require.Eventually(t, func() bool { return s.call() == nil }, time.Minute, time.Millisecond)
	st, err = s.client.Status(t.Context())
	require.NoError(t, err)
	require.Empty(t, st.Audit.LastError)
	s.end(cmd)
	s.requireWhole()
}

// 10,000 connections that say nothing, half a line, or a byte now and then. All
// of them are closed in time.
func TestFaultIdleClients(t *testing.T) {
	s := newSite(t, 3)
	cmd := s.start()
	before := s.process(cmd).Holds(t)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range 10_000 {
		conns = append(conns, s.dial())
		if i%3 == 0 {
			_, _ = io.WriteString(conns[i], "GET /v1/sta") // it may be closed already
		}
	}
	begin := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	var trickle sync.WaitGroup
	trickle.Go(func() {
		for ctx.Err() == nil {
			for i := 1; i < len(conns); i += 3 {
				_, _ = io.WriteString(conns[i], "G") // the same
			}
			select {
			case <-ctx.Done():
			case <-time.After(4 * time.Second):
			}
		}
	})
	slowest := time.Duration(0)
	for range 10 {
		slowest = max(slowest, s.status())
		require.NoError(t, s.call())
	}
	now := s.process(cmd).Holds(t)
	t.Logf("before %v, with 10,000 connections %v; the slowest of 10 hsctl status took %v", before, now, slowest)
	require.LessOrEqual(t, now["rss_mib"], 150)
	require.LessOrEqual(t, now["hsagent_connections"], 512+16)
	for _, c := range conns {
		require.NoError(t, c.SetReadDeadline(begin.Add(time.Minute)))
		_, err := io.Copy(io.Discard, c)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it is still open")
	}
	cancel()
	trickle.Wait()
	t.Logf("all were closed after %v", time.Since(begin))
	s.end(cmd)
	s.requireWhole()
}

// A process that may open 64 or 256 files, and 1,000 clients.
func TestFaultDescriptors(t *testing.T) {
	for _, limit := range []int{64, 256} {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			s := newSite(t, 3)
			s.wrap = []string{"prlimit", fmt.Sprintf("--nofile=%d:%d", limit, limit)}
			cmd := s.start()
			ctx, cancel := context.WithCancel(t.Context())
			wg := s.load(ctx, 100)
			var conns []net.Conn
			for range 900 {
				conns = append(conns, s.dial())
			}
			slowest := time.Duration(0)
			for range 5 {
				slowest = max(slowest, s.status())
			}
			arrived := s.hub.Count().Total.Arrivals
			cancel()
			wg.Wait()
			for _, c := range conns {
				_ = c.Close()
			}
			begin := time.Now()
			require.Eventually(t, func() bool { return s.call() == nil }, time.Minute, 10*time.Millisecond, s.logs())
			t.Logf("%d requests arrived meanwhile; the slowest hsctl status took %v; calls again after %v", arrived, slowest, time.Since(begin))
			s.end(cmd)
			s.requireWhole()
		})
	}
}

// HubSpot's end of a connection breaks off at any point of its answer. A write
// is sent once, and every call has one outcome.
func TestFaultResets(t *testing.T) {
	const calls, workers = 10_000, 32
	s := newSite(t, 3)
	cmd := s.start()
	s.hub.SetFaults(
		sandbox.Fault{PathPrefix: "/crm", Every: 5, DropBefore: true},
		sandbox.Fault{PathPrefix: "/crm", Every: 4, DropAfterHeaders: true},
		sandbox.Fault{PathPrefix: "/crm", Every: 3, Truncate: 20},
	)
	var wg sync.WaitGroup
	var broken atomic.Int64
	for range workers {
		wg.Go(func() {
			for n := s.calls.Add(1); n <= calls; n = s.calls.Add(1) {
				resp, err := s.client.Call(t.Context(), wire.CallRequest{
					Slug: s.slugs[int(n)%len(s.slugs)], Method: http.MethodPost, Body: strings.NewReader(`{"properties":{}}`),
					Target: fmt.Sprintf("/crm/v3/objects/contacts?after=%d", n),
				})
				if !assert.NoError(t, err) {
					return
				}
				_, err = io.Copy(io.Discard, resp.Body)
				if code := wire.AgentError(resp); err != nil || code != nil {
					broken.Add(1)
				}
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	require.Greater(t, broken.Load(), int64(calls/4))
	require.Equal(t, calls, s.hub.Count().ByMethod[http.MethodPost], "each left once")
	t.Logf("of %d calls %d were broken off", calls, broken.Load())
	s.hub.ClearFaults()
	s.end(cmd)
	s.requireWhole()
}

// bodies has so many callers at once, half of them with a body of so many bytes
// to send, half with an answer of that length, and wants each to pass whole.
func (s *site) bodies(clients int, size int64) {
	for range 25 * len(s.slugs) { // until the agent knows that there is no limit, it has but few under way
		require.NoError(s.t, s.call())
	}
	s.hub.SetFaults(sandbox.Fault{PathPrefix: "/big", Fill: size})
	defer s.hub.ClearFaults()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			req := wire.CallRequest{Slug: s.slugs[i%len(s.slugs)], Method: http.MethodGet, Target: "/big"}
			if i%2 == 0 {
				req.Method, req.Target, req.Body = http.MethodPost, "/files/v3/files", io.LimitReader(zeros{}, size)
			}
			resp, err := s.client.Call(s.t.Context(), req)
			if !assert.NoError(s.t, err, "call %d", i) {
				return
			}
			defer resp.Body.Close()
			assert.Nil(s.t, wire.AgentError(resp), "call %d", i)
			n, err := io.Copy(io.Discard, resp.Body)
			if assert.NoError(s.t, err, "call %d", i) && i%2 != 0 {
				assert.Equal(s.t, size, n, "call %d", i)
			}
		})
	}
	wg.Wait()
	sent := 0
	for _, r := range s.hub.Requests() {
		if r.BodyBytes == size {
			sent++
		}
	}
	assert.Equal(s.t, (clients+1)/2, sent, "bodies that arrived whole")
}

// Bodies pass through; they are not kept.
func TestFaultMemory(t *testing.T) {
	const clients, size = 64, 32 << 20
	s := newSite(t, 3)
	cmd := s.start()
	before := s.process(cmd).Memory(t, "VmRSS:")
	done := make(chan struct{})
	go func() { defer close(done); s.bodies(clients, size) }()
	peak := 0
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-time.After(20 * time.Millisecond):
		}
		peak = max(peak, s.process(cmd).Memory(t, "VmRSS:"))
	}
	t.Logf("%d bodies of %d MiB at once: %d MiB before, %d MiB at most", clients, size>>20, before, peak)
	require.LessOrEqual(t, peak, before+96, "bodies are kept in memory")
	s.end(cmd)
	s.requireWhole()
}

// codeOf is the code of the agent's own answer, "" if there was none.
func codeOf(err error) wire.Code {
	var p *wire.Problem
	if !errors.As(err, &p) {
		return ""
	}
	return p.Code
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
