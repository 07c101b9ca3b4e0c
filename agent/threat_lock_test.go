package agent_test

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// An agent that nobody uses locks itself; looking at its status is no use.
func TestThreat32LocksWhenIdle(t *testing.T) {
	r := newRig(t, rigOptions{config: func(c *agent.Config) { c.LockAfter = 100 * time.Millisecond }})
	locked := func() bool { return r.agent.Status().Locked && r.api("GET", "/v1/status", "").status == 200 }
	eventually(t, locked, "locked")
	r.call("client-0", "GET", contacts, nil).refused(t, wire.CodeLocked)
	recs := r.records(chain.Filter{Kind: chain.AgentLocked})
	require.Len(t, recs, 1)
	require.Equal(t, "no call for 100ms", recs[0].Reason)
	require.True(t, recs[0].Caller.Agent)

	// It does so again after it was unlocked.
	require.Equal(t, 200, r.api("POST", "/v1/unlock", "{}").status)
	eventually(t, func() bool { return len(r.records(chain.Filter{Kind: chain.AgentLocked})) == 2 }, "locked again")
	unlocked := r.records(chain.Filter{Kind: chain.AgentUnlocked})
	require.Len(t, unlocked, 1)
	require.Equal(t, os.Getuid(), unlocked[0].Caller.UID)
}

// A lock that comes while the agent is being unlocked is not lost.
func TestThreat32LockDuringUnlock(t *testing.T) {
	reads, goOn := make(chan struct{}), make(chan struct{})
	first := true
	r := newRig(t, rigOptions{config: func(c *agent.Config) {
		load := c.LoadIdentity
		c.LoadIdentity = func(passphrase []byte) (*credstore.Identity, error) {
			if !first {
				reads <- struct{}{}
				<-goOn
			}
			first = false
			return load(passphrase)
		}
	}})
	r.ready(3)
	require.NoError(t, r.agent.LockNow(t.Context(), "a test"))
	done := make(chan answer, 1)
	go func() { done <- r.api("POST", "/v1/unlock", "{}") }()
	<-reads
	require.NoError(t, r.agent.LockNow(t.Context(), "again"))
	goOn <- struct{}{}
	(<-done).refused(t, wire.CodeLocked)
	require.True(t, r.agent.Status().Locked)

	go func() { done <- r.api("POST", "/v1/unlock", "{}") }()
	<-reads
	goOn <- struct{}{}
	require.Equal(t, 200, (<-done).status)
	require.False(t, r.agent.Status().Locked)
}

// A lock lets nothing leave any more: not even the next attempt of a call that
// was admitted before.
func TestThreat31LockBetweenAttempts(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	r.hubspot.AddFault(sandbox.Fault{Portal: r.portals[0].ID, PathPrefix: contacts, Status: 429, Header: http.Header{"Retry-After": {"1"}}})
	done := make(chan answer, 1)
	go func() { done <- r.call("client-0", "GET", contacts, nil) }()
	eventually(t, func() bool { return len(r.came()) == 1 }, "the first attempt arrived")
	require.NoError(t, r.agent.LockNow(t.Context(), "a test"))
	(<-done).refused(t, wire.CodeLocked)
	require.Len(t, r.came(), 1)
	r.checkLog()
}

// A slug that is given to another portal is not the one that a waiting call was
// made for: it leaves with neither token.
func TestThreat01PortalOfASlugChangesBetweenAttempts(t *testing.T) {
	r := newRig(t, rigOptions{entries: func(all []credstore.Entry) []credstore.Entry { return all[:2] }})
	r.ready(2)
	r.hubspot.AddFault(sandbox.Fault{Portal: r.portals[0].ID, PathPrefix: contacts, Status: 429, Header: http.Header{"Retry-After": {"1"}}})
	done := make(chan answer, 1)
	go func() { done <- r.call("client-0", "GET", contacts, nil) }()
	eventually(t, func() bool { return len(r.came()) == 1 }, "the first attempt arrived")
	other := entryOf(r.portals[2])
	other.Slug = entryOf(r.portals[0]).Slug
	r.put(other)
	r.reload()
	(<-done).refused(t, wire.CodeConflict)
	require.Len(t, r.came(), 1)
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	came := r.came()
	require.Equal(t, r.portals[2].ID, came[len(came)-1].PortalID)
}

// Who holds a connection is told once more that the agent is locked, and then
// has to come back.
func TestThreat31LockedAgentHangsUp(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	conn := r.dial()
	br := bufio.NewReader(conn)
	get := func() *http.Response {
		_, err := io.WriteString(conn, "GET /v1/portals HTTP/1.1\r\nHost: hsagent\r\n\r\n")
		require.NoError(t, err)
		resp, err := http.ReadResponse(br, nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		return resp
	}
	require.False(t, get().Close)
	require.NoError(t, r.agent.Lock(t.Context(), nil))
	resp := get()
	require.Equal(t, 423, resp.StatusCode)
	require.True(t, resp.Close)
	_, err := br.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}
