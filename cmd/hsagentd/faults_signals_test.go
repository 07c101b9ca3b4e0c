//go:build faults

package main_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/wire"
)

// terminate sends SIGTERM until the daemon ends: the second one ends it at once,
// also where a call is under way.
func (s *site) terminate(cmd *exec.Cmd) {
	s.hub.SetFaults(sandbox.Fault{PathPrefix: "/hangs", Hang: true})
	defer s.hub.ClearFaults()
	call := make(chan error, 1)
	go func() {
		_, err := s.client.Call(s.t.Context(), wire.CallRequest{Slug: s.slugs[0], Method: http.MethodGet, Target: "/hangs"})
		call <- err
	}()
	require.Eventually(s.t, func() bool {
		st, err := s.client.Status(s.t.Context())
		return err == nil && st.CallsInFlight == 1
	}, time.Minute, time.Millisecond)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
			require.True(s.t, cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled(), "it waited for the call: %s", s.logs())
			require.Error(s.t, <-call)
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// SIGTERM at any moment ends in order, a second one ends at once; a storm of
// SIGHUP harms nobody.
func TestFaultSignals(t *testing.T) {
	const rounds = 100
	s := newSite(t, 3)
	for i := range rounds {
		cmd := s.start()
		ctx, cancel := context.WithCancel(t.Context())
		wg := s.load(ctx, 8)
		if i == 0 {
			for range 200 {
				require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
				time.Sleep(time.Millisecond)
			}
			s.status()
			require.NoError(t, s.call())
		}
		time.Sleep(rand.N(100 * time.Millisecond)) // the random point
		s.end(cmd)
		cancel()
		wg.Wait()
		s.client.Close()
		if i%20 == 0 {
			s.terminate(s.start())
			s.client.Close()
		}
	}
	s.end(s.start()) // closes what the last second signal left open
	s.requireWhole()
}
