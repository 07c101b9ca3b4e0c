package main_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/wire"
)

// Whenever a rotation is killed, exactly one of the two tokens serves
// afterwards, and the journal says which.
func TestKilledRotations(t *testing.T) {
	const rotations = 50
	s := newSite(t, 1)
	slug := s.slugs[0]
	old := s.hub.ActiveToken(1000)
	switched, whole := 0, time.Minute // how long a rotation takes; the first one is not killed
	for i := range rotations {
		next := sandbox.NewToken("na1")
		require.NoError(t, s.hub.AddToken(1000, next)) // the old one stays good, as in HubSpot's days of grace
		cmd := s.start()
		ctx, cancel := context.WithCancel(t.Context())
		done, began := make(chan struct{}), time.Now()
		go func() {
			defer close(done)
			_, _ = s.client.Rotate(ctx, slug, next, false) // it may be cut off
		}()
		select {
		case <-done:
		case <-time.After(rand.N(2 * whole)): // the random step
		}
		if i == 0 {
			<-done
			whole = time.Since(began)
		}
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		cancel()
		<-done
		s.client.Close()

		cmd = s.start()
		p, err := s.client.Portal(t.Context(), slug)
		require.NoError(t, err, "the store does not open")
		resp, err := s.client.Call(t.Context(), wire.CallRequest{Slug: slug, Method: http.MethodGet, Target: "/crm/v3/objects/contacts"})
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.NoError(t, resp.Body.Close())
		served := ""
		for _, r := range s.hub.Requests() {
			if r.Path == "/crm/v3/objects/contacts" {
				served = r.TokenFingerprint
			}
		}
		require.Equal(t, p.TokenFingerprint, served, "another token serves than the one shown")
		require.Contains(t, []string{old.Fingerprint(), next.Fingerprint()}, p.TokenFingerprint)

		all, err := s.client.Rotations(t.Context())
		require.NoError(t, err)
		if p.TokenFingerprint == next.Fingerprint() {
			require.Len(t, all, 1)
			require.Equal(t, wire.RotationSwitched, all[0].State)
			require.Equal(t, next.Fingerprint(), all[0].NewFingerprint)
			require.Equal(t, old.Fingerprint(), all[0].OldFingerprint)
			old = next
			switched++
		} else {
			for _, r := range all {
				require.NotEqual(t, next.Fingerprint(), r.NewFingerprint, "the journal names a token that does not serve")
			}
		}
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait())
		s.client.Close()
	}
	t.Logf("%d of %d killed rotations had switched", switched, rotations)
	require.Greater(t, switched, 1)
	require.Less(t, switched, rotations, "no rotation was killed before its switch")
	s.requireWhole()
}
