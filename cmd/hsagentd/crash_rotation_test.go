package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/wire"
)

// What a rotation has done when it is killed.
const (
	killBegun    = iota // HubSpot was asked whose the token is, and has not said what it may do
	killStaged          // the journal has it as staged
	killWritten         // the store was replaced
	killNoted           // the journal has it as switched
	killAnswered        // the caller has its answer
	killSteps
)

// Whenever a rotation is killed, exactly one of the two tokens serves
// afterwards, and the journal says which.
func TestKilledRotations(t *testing.T) {
	const rotations = 50
	s := newSite(t, 1)
	old := s.hub.ActiveToken(1000)
	var switched [killSteps]int
	for i := range rotations {
		next := sandbox.NewToken("na1")
		require.NoError(t, s.hub.AddToken(1000, next)) // the old one stays good, as in HubSpot's days of grace
		step := i % killSteps
		s.killRotation(next, step)

		cmd := s.start()
		serves := s.serves(old, next)
		all, err := s.client.Rotations(t.Context())
		require.NoError(t, err)
		if serves == next {
			require.Len(t, all, 1)
			require.Equal(t, wire.RotationSwitched, all[0].State)
			require.Equal(t, next.Fingerprint(), all[0].NewFingerprint)
			require.Equal(t, old.Fingerprint(), all[0].OldFingerprint)
			old = next
			switched[step]++
		} else {
			for _, r := range all {
				require.NotEqual(t, next.Fingerprint(), r.NewFingerprint, "the journal names a token that does not serve")
			}
		}
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait())
		s.client.Close()
	}
	t.Logf("switched, by the step at which they were killed: %v of %d each", switched, rotations/killSteps)
	require.Zero(t, switched[killBegun])
	for step := killWritten; step < killSteps; step++ {
		require.Equal(t, rotations/killSteps, switched[step], "killed at step %d: the store has the new token", step)
	}
	s.requireWhole()
}

// killRotation starts a daemon, and kills it when a rotation to next has come
// to a step.
func (s *site) killRotation(next wire.Token, step int) {
	t := s.t
	t.Helper()
	if step == killBegun {
		s.hub.SetFaults(sandbox.Fault{PathPrefix: hubspot.TokenInfoPath, Hang: true})
		defer s.hub.ClearFaults()
	}
	store, err := os.ReadFile(s.path("store.age"))
	require.NoError(t, err)
	cmd := s.start()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.client.Rotate(ctx, s.slugs[0], next, false) // it may be cut off
	}()
	reached := func() bool {
		var j credstore.Rotations
		b, err := os.ReadFile(s.path("store.age.rotations"))
		if err == nil {
			require.NoError(t, json.Unmarshal(b, &j))
		}
		slug := s.slugs[0].String()
		switch step {
		case killBegun:
			return s.asked(next)
		case killStaged:
			return j.Staged[slug].NewFingerprint == next.Fingerprint() || j.Latest[slug].NewFingerprint == next.Fingerprint()
		case killWritten:
			b, err := os.ReadFile(s.path("store.age"))
			return err == nil && !bytes.Equal(b, store)
		case killNoted:
			return j.Latest[slug].NewFingerprint == next.Fingerprint()
		}
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	deadline := time.Now().Add(time.Minute)
	for !reached() {
		require.True(t, time.Now().Before(deadline), "the rotation does not come to step %d", step)
		time.Sleep(50 * time.Microsecond) // many of them are over before the next step is
	}
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	cancel()
	<-done
	s.client.Close()
}

// asked reports whether the sandbox saw a request with the token.
func (s *site) asked(token wire.Token) bool {
	for _, r := range s.hub.Requests() {
		if r.TokenFingerprint == token.Fingerprint() {
			return true
		}
	}
	return false
}

// serves makes a call and returns the one of the two tokens that it left with,
// which is the one that the agent shows.
func (s *site) serves(one, other wire.Token) wire.Token {
	t := s.t
	t.Helper()
	const target = "/crm/v3/objects/contacts"
	p, err := s.client.Portal(t.Context(), s.slugs[0])
	require.NoError(t, err, "the store does not open")
	resp, err := s.client.Call(t.Context(), wire.CallRequest{Slug: s.slugs[0], Method: http.MethodGet, Target: target})
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, resp.Body.Close())
	served := ""
	for _, r := range s.hub.Requests() {
		if r.Path == target {
			served = r.TokenFingerprint
		}
	}
	require.Equal(t, p.TokenFingerprint, served, "another token serves than the one shown")
	if served == one.Fingerprint() {
		return one
	}
	require.Equal(t, other.Fingerprint(), served, "neither of the two serves")
	return other
}
