//go:build faults

package main_test

import (
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/wire"
)

// Load and faults of all kinds, for 20 seconds or as long as HSAGENT_SOAK
// says. After each half the daemon comes to hold what it held before.
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
	rest := func(most map[string]int) map[string]int {
		s.client.Close()
		return s.process(cmd).Rests(t, most)
	}
	most := map[string]int{"go_goroutines": 35, "fds": 80, "anon_mib": 48}
	before := rest(most)
	most = map[string]int{
		"go_goroutines": before["go_goroutines"] + 5,
		"fds":           before["fds"] + 5,
		"anon_mib":      before["anon_mib"] + 32,
	}
	ends := map[wire.Code]int{} // of calls, by the agent's own code; "" for HubSpot's answers
	for half := range 2 {
		faults := s.soak(cmd.Process, length/2, ends)
		after := rest(most)
		t.Logf("half %d of %v: %d faults; %d calls so far: before %v, now %v", half+1, length, faults, s.calls.Load(), before, after)
	}
	t.Logf("how calls ended, by the agent's own code: %v; %d requests arrived", ends, s.hub.Count().Total.Arrivals)
	s.end(cmd)
	s.requireWhole()
}

// soak calls and breaks things for so long, and returns how many faults there
// were.
func (s *site) soak(daemon *os.Process, length time.Duration, ends map[wire.Code]int) (began int) {
	t := s.t
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				code := codeOf(s.call())
				mu.Lock()
				ends[code]++
				mu.Unlock()
			}
		})
	}
	soon := http.Header{"Retry-After": {"1"}} // or all portals would wait for most of the time
	faults := []sandbox.Fault{
		{Status: 500}, {Status: 429, Header: soon}, {Status: 502}, {Status: 477, Header: soon}, {DropBefore: true}, {DropAfterHeaders: true}, {Truncate: 20},
		{Trickle: time.Millisecond}, {EchoToken: "body"}, {EchoToken: "header"}, {Gzip: true}, {Encoding: "br"},
		{Raw: []byte("nonsense\r\n\r\n")}, {Redirect: "https://example.com/"}, {EarlyHints: true},
	}
	for ctx.Err() == nil {
		began++
		f := faults[rand.IntN(len(faults))]
		f.PathPrefix, f.Every, f.Times = "/crm", 3, 20
		s.hub.SetFaults(f)
		switch began % 10 {
		case 1:
			require.NoError(t, daemon.Signal(syscall.SIGHUP))
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
	return began
}
