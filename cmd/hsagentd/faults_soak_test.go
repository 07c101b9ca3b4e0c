//go:build faults

package main_test

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
)

// Load and faults of all kinds, for 20 seconds or as long as HSAGENT_SOAK
// says. Afterwards the daemon holds what it held before.
func TestFaultSoak(t *testing.T) {
	length := 20 * time.Second
	if v := os.Getenv("HSAGENT_SOAK"); v != "" {
		var err error
		length, err = time.ParseDuration(v)
		require.NoError(t, err)
	}
	s := newSite(t, 10)
	cmd := s.start()

	// What is made once and kept is made before the first look.
	warm, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	s.load(warm, 16).Wait()
	cancel()
	before := s.settled(cmd.Process.Pid)

	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	wg := s.load(ctx, 16)
	faults := []sandbox.Fault{
		{Status: 500}, {Status: 429}, {Status: 502}, {Status: 477}, {DropBefore: true}, {DropAfterHeaders: true}, {Truncate: 20},
		{Trickle: time.Millisecond}, {EchoToken: "body"}, {EchoToken: "header"}, {Gzip: true}, {Encoding: "br"},
		{Raw: []byte("nonsense\r\n\r\n")}, {Redirect: "https://example.com/"}, {EarlyHints: true},
	}
	began := 0
	for ctx.Err() == nil {
		began++
		f := faults[rand.IntN(len(faults))]
		f.PathPrefix, f.Every, f.Times = "/crm", 3, 20
		s.hub.SetFaults(f)
		switch began % 10 {
		case 1:
			require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
		case 3:
			var idle []net.Conn
			for range 600 {
				idle = append(idle, s.dial())
			}
			for _, c := range idle {
				_ = c.Close()
			}
		case 5: // callers that hang up
			cut, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			s.load(cut, 20).Wait()
			cancel()
		case 7:
			s.status()
		}
		time.Sleep(rand.N(200 * time.Millisecond)) // the random moment of the next fault
	}
	wg.Wait()
	s.hub.ClearFaults()
	after := s.settled(cmd.Process.Pid)
	t.Logf("%v, %d faults, %d calls: before %v, after %v", length, began, s.calls.Load(), before, after)
	require.LessOrEqual(t, after["go_goroutines"], before["go_goroutines"]+5)
	require.LessOrEqual(t, after["process_open_fds"], before["process_open_fds"]+5)
	require.LessOrEqual(t, after["anon_mib"], before["anon_mib"]+32)
	s.end(cmd)
	s.requireWhole()
}

// settled waits until idle connections have ended, and returns what the daemon
// holds then.
func (s *site) settled(pid int) map[string]int {
	s.client.Close()
	least := s.holds(pid)
	for range 75 { // connections to HubSpot and of callers are kept for a minute or so
		now := s.holds(pid)
		for k, v := range now {
			least[k] = min(least[k], v)
		}
		if now["go_goroutines"] <= 30 {
			break
		}
		time.Sleep(time.Second)
	}
	return least
}
