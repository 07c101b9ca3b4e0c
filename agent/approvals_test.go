package agent_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os/user"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// confirming is a rig in which writes want a confirmation.
func confirming(t *testing.T, timeout time.Duration) *rig {
	t.Helper()
	p := policyOf(t,
		wire.PolicyRule{Name: "all", Effect: "allow", Portals: []string{"*"}},
		wire.PolicyRule{Name: "changes", Effect: "confirm", Methods: []string{"write"}})
	r := newRig(t, rigOptions{config: func(c *agent.Config) { c.Policy, c.ConfirmTimeout = p, timeout }})
	r.ready(3)
	return r
}

// watcher follows the calls that wait.
func (r *rig) watcher(t *testing.T) func() wire.Confirmation {
	t.Helper()
	resp, err := r.client.Stream(t.Context(), http.MethodGet, "/v1/confirmations", url.Values{"follow": {"true"}}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	sc := bufio.NewScanner(resp.Body)
	return func() wire.Confirmation {
		var q wire.Confirmation
		require.True(t, sc.Scan(), "the stream ended: %v", sc.Err())
		require.NoError(t, json.Unmarshal(sc.Bytes(), &q))
		return q
	}
}

func (r *rig) confirmCall(id string, allow bool) answer {
	return r.api("POST", "/v1/confirmations", fmt.Sprintf(`{"id":%q,"allow":%v}`, id, allow))
}

// write makes a call that changes something, in the background.
func (r *rig) write(slug string) chan answer {
	out := make(chan answer, 1)
	go func() {
		out <- r.call(slug, "POST", contacts+"?email=a@example.com", strings.NewReader(`{"properties":{}}`), "Content-Type", "application/json", "Hsagent-Reason", "TICKET-7")
	}()
	return out
}

func TestConfirmation(t *testing.T) {
	r := confirming(t, time.Minute)
	next := r.watcher(t)
	me, err := user.Current()
	require.NoError(t, err)

	done := r.write("client-0")
	q := next()
	require.Equal(t, wire.ConfirmWaiting, q.State)
	require.Equal(t, "changes", q.Rule)
	require.Equal(t, "client-0", q.Slug)
	require.Equal(t, "POST", q.Method)
	require.Equal(t, contacts+"?email=*", q.Path)
	require.Equal(t, "TICKET-7", q.Reason)
	require.Equal(t, me.Username, q.User)
	require.Equal(t, time.Minute, q.ExpiresAt.Sub(q.AskedAt.Time))

	// Nothing else is held up, and nothing has left.
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	require.Equal(t, 200, r.call("client-1", "GET", contacts, nil).status)
	require.Len(t, r.came(), 2)
	require.Zero(t, r.agent.Status().CallsInFlight)

	require.Equal(t, 200, r.confirmCall(q.ID, true).status)
	got := <-done
	require.Equal(t, 201, got.status, got.body)
	require.Equal(t, q.ID, got.header.Get(wire.HeaderCallID))
	end := next()
	require.Equal(t, wire.ConfirmAllowed, end.State)
	require.Equal(t, me.Username, end.By)
	intents := r.records(chain.Filter{CallID: q.ID, Kind: chain.CallIntent})
	require.Len(t, intents, 1)
	require.Equal(t, me.Username, intents[0].ConfirmedBy)
	require.Equal(t, "changes", intents[0].Rule)

	// No means no, and the second answer comes too late.
	done = r.write("client-0")
	q = next()
	require.Equal(t, 200, r.confirmCall(q.ID, false).status)
	r.confirmCall(q.ID, true).refused(t, wire.CodeNotFound)
	p := (<-done).refused(t, wire.CodeConfirmationRequired)
	require.Contains(t, p.Detail, me.Username+" said no")
	denied := r.records(chain.Filter{CallID: q.ID, Kind: chain.CallDenied})
	require.Len(t, denied, 1)
	require.Equal(t, me.Username, denied[0].ConfirmedBy)
	require.Equal(t, "changes", denied[0].Rule)
	require.Equal(t, wire.ConfirmRefused, next().State)
	r.checkLog()
}

func TestConfirmationNobodyGives(t *testing.T) {
	r := confirming(t, 20*time.Millisecond)
	next := r.watcher(t)
	(<-r.write("client-0")).refused(t, wire.CodeConfirmationRequired)
	require.Equal(t, wire.ConfirmWaiting, next().State)
	q := next()
	require.Equal(t, wire.ConfirmExpired, q.State)
	require.Empty(t, q.By)
	denied := r.records(chain.Filter{CallID: q.ID, Kind: chain.CallDenied})
	require.Len(t, denied, 1)
	require.Equal(t, string(wire.CodeConfirmationRequired), denied[0].Error)
	require.Empty(t, r.came())
}

// A call that was confirmed is still subject to what has changed meanwhile.
func TestConfirmationIsNotTheLastWord(t *testing.T) {
	r := confirming(t, time.Minute)
	next := r.watcher(t)
	done := r.write("client-0")
	q := next()
	r.agent.SetPolicy(t.Context(), policyOf(t, wire.PolicyRule{Name: "no more", Effect: "deny", Portals: []string{"*"}}))
	require.Equal(t, 200, r.confirmCall(q.ID, true).status)
	(<-done).refused(t, wire.CodeDenied)
	require.Equal(t, wire.ConfirmAllowed, next().State)

	r.agent.SetPolicy(t.Context(), policyOf(t, wire.PolicyRule{Name: "ask", Effect: "confirm", Portals: []string{"*"}}))
	done = r.write("client-0")
	q = next()
	require.NoError(t, r.agent.Lock(t.Context(), nil))
	require.Equal(t, 200, r.confirmCall(q.ID, true).status)
	(<-done).refused(t, wire.CodeLocked)
	require.Equal(t, wire.ConfirmAllowed, next().State)

	// A locked agent asks nobody.
	r.call("client-0", "POST", contacts, strings.NewReader("{}")).refused(t, wire.CodeLocked)
	require.Empty(t, r.came())
}

// One user's calls cannot fill the screen, and an agent that stops waits for
// none of them.
func TestConfirmationsAreBounded(t *testing.T) {
	r := confirming(t, time.Minute)
	next := r.watcher(t)
	var all []chan answer
	for range 16 {
		all = append(all, r.write("client-0"))
	}
	for range 16 {
		require.Equal(t, wire.ConfirmWaiting, next().State)
	}
	p := (<-r.write("client-0")).refused(t, wire.CodeConfirmationRequired)
	require.Contains(t, p.Detail, "wait for one already")
	list := r.api("GET", "/v1/confirmations", "")
	require.Equal(t, 16, strings.Count(list.body, "\n"))
	require.NoError(t, r.agent.Drain(t.Context()))
	for _, done := range all {
		(<-done).refused(t, wire.CodeConfirmationRequired)
	}
}

// Who may call, but not manage, confirms nothing.
func TestThreat29OnlyManagersConfirm(t *testing.T) {
	r := strangerRig(t, policyOf(t, wire.PolicyRule{Name: "ask", Effect: "confirm", Portals: []string{"*"}}))
	for _, line := range []string{"GET /v1/confirmations", "POST /v1/confirmations"} {
		status, body := asks(t, r.stranger(t), line, "")
		require.Equal(t, 403, status, body)
	}
}
