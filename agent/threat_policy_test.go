package agent_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/agent/policy"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// policyOf makes a policy; users and groups are numbers.
func policyOf(t testing.TB, rules ...wire.PolicyRule) *policy.Policy {
	t.Helper()
	p, err := policy.New(rules, policy.Names{
		User: strconv.Atoi, Group: strconv.Atoi, Exe: func(pattern string) string { return pattern }, Aliases: hubspot.Aliases(),
	})
	require.NoError(t, err)
	return p
}

func withPolicy(p *policy.Policy) func(*agent.Config) {
	return func(c *agent.Config) { c.Policy = p }
}

// me is the uid that every call of the tests has.
func me() string { return strconv.Itoa(os.Getuid()) }

// strangerRig is a rig in which [rig.stranger] is a user who may not manage.
func strangerRig(t *testing.T, p *policy.Policy) *rig {
	t.Helper()
	r := newRig(t, rigOptions{config: withPolicy(p), made: func(a *agent.Agent) {
		if os.Getuid() != 0 {
			a.PretendUID(54321) // only root becomes another user: else it is the agent that does
		}
	}})
	eventually(t, func() bool { return r.agent.Status().Portals[string(wire.StateReady)] == 3 }, "ready")
	r.open()
	return r
}

// stranger connects as a user who may not manage.
func (r *rig) stranger(t *testing.T) net.Conn {
	t.Helper()
	if os.Getuid() == 0 {
		return dialAs(t, r.socket, 65533, 65533)
	}
	return r.dial()
}

// asks sends a request with a body on conn and returns the whole answer.
func asks(t *testing.T, conn net.Conn, line, body string) (int, string) {
	t.Helper()
	_, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: hsagent\r\nContent-Length: %d\r\n\r\n%s", line, len(body), body)
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

// A caller who may use one slug tries 99 others, some of which there are.
func TestThreat29And61OneSlugOnly(t *testing.T) {
	portals := portalsOf(51)
	r := newRig(t, rigOptions{
		portals: portals,
		config: withPolicy(policyOf(t, wire.PolicyRule{
			Name: "one client", Effect: "allow", Users: []string{me()}, Portals: []string{"client-0"},
		})),
	})
	r.ready(51)
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)

	bodies := map[string]bool{}
	for i := 1; i <= 99; i++ { // those from 51 on are unknown
		got := r.call(fmt.Sprintf("client-%d", i), "GET", contacts, nil)
		got.refused(t, wire.CodeDenied)
		require.Empty(t, got.header.Get(wire.HeaderCallID))
		bodies[got.body] = true
	}
	require.Len(t, bodies, 1, "nothing tells slugs that there are from those that there are not")
	denied := r.records(chain.Filter{Kind: chain.CallDenied})
	require.Len(t, denied, 99)
	seen := map[string]bool{}
	for _, rec := range denied {
		require.Equal(t, policy.Default, rec.Rule)
		require.Equal(t, string(wire.CodeDenied), rec.Error)
		require.Equal(t, os.Getuid(), rec.Caller.UID)
		require.NotEmpty(t, rec.CallID)
		seen[rec.ClientSlug] = true
	}
	require.Len(t, seen, 99)
	for i := range 10_000 - 99 { // half of them are there
		slug := fmt.Sprintf("client-%d", 1+i%50)
		if i%2 == 0 {
			slug = fmt.Sprintf("nobody-%d", i)
		}
		got := r.call(slug, "GET", contacts, nil)
		got.refused(t, wire.CodeDenied)
		bodies[got.body] = true
	}
	require.Len(t, bodies, 1)
	require.Len(t, r.came(), 1)
	for _, rec := range r.records(chain.Filter{Slug: "client-0", Kind: chain.CallIntent}) {
		if ofCalls(rec) {
			require.Equal(t, "one client", rec.Rule)
		}
	}
	r.checkLog()
}

// The same holds where a rule would allow the unknown slug.
func TestThreat61UnknownSlugsWithinAPattern(t *testing.T) {
	r := newRig(t, rigOptions{config: withPolicy(policyOf(t,
		wire.PolicyRule{Name: "clients", Effect: "allow", Portals: []string{"client-*"}},
		wire.PolicyRule{Name: "not this one", Effect: "deny", Portals: []string{"client-1"}},
	))})
	r.ready(3)
	forbidden := r.call("client-1", "GET", contacts, nil)
	forbidden.refused(t, wire.CodeDenied)
	require.NotContains(t, forbidden.body, "not this one")
	for _, slug := range []string{"client-9", "acme-corp"} {
		got := r.call(slug, "GET", contacts, nil)
		require.Equal(t, forbidden.body, got.body, slug)
		require.Equal(t, forbidden.status, got.status)
	}
	require.Equal(t, 200, r.call("client-2", "GET", contacts, nil).status)
	recs := r.records(chain.Filter{Kind: chain.CallDenied, Slug: "client-9"})
	require.Len(t, recs, 1)
	require.Equal(t, "(unknown portal)", recs[0].Rule)
}

// Whoever manages and may call everything keeps the helpful answer.
func TestUnlimitedCallersAreHelped(t *testing.T) {
	r := newRig(t, rigOptions{config: withPolicy(policyOf(t, wire.PolicyRule{Name: "all", Effect: "allow", Portals: []string{"*"}}))})
	r.ready(3)
	p := r.call("client-9", "GET", contacts, nil).refused(t, wire.CodeUnknownPortal)
	require.NotEmpty(t, p.Similar)
}

// What a caller may not call it does not see either, in any answer.
func TestThreat61NothingShowsOtherSlugs(t *testing.T) {
	r := strangerRig(t, policyOf(t, wire.PolicyRule{Name: "one client", Effect: "allow", Portals: []string{"client-0"}, Methods: []string{"read"}}))
	ask := func(line string) (int, string) { return asks(t, r.stranger(t), line, "") }
	status, body := ask("GET /v1/call/client-0" + contacts)
	require.Equal(t, 200, status, body)
	for _, path := range []string{"/v1/status", "/v1/portals", "/v1/quota", "/v1/rotations", "/metrics"} {
		status, body := ask("GET " + path)
		require.Equal(t, 200, status, path)
		for _, slug := range []string{"client-1", "client-2"} {
			require.NotContains(t, body, slug, path)
		}
		if path == "/v1/status" {
			require.Contains(t, body, `"portals":{"quarantined":0,"ready":1,"rejected":0,"unverified":0}`)
		}
	}
	_, forbidden := ask("GET /v1/portals/client-1")
	_, unknown := ask("GET /v1/portals/nobody")
	require.Equal(t, forbidden, unknown)
	require.Contains(t, forbidden, string(wire.CodeDenied))
	_, forbidden = ask("GET /v1/rotations/client-1")
	require.Equal(t, forbidden, unknown)
	status, body = ask("GET /v1/portals/client-0")
	require.Equal(t, 200, status, body)
	status, body = ask("GET /v1/policy")
	require.Equal(t, 403, status, body)
}

// The same verdict on every way to a call: as it is, by another name of the
// type, percent-encoded, in another case, after other slashes.
func TestThreat34EveryWayIsRestricted(t *testing.T) {
	r := newRig(t, rigOptions{config: withPolicy(policyOf(t,
		wire.PolicyRule{Name: "all", Effect: "allow", Portals: []string{"*"}},
		wire.PolicyRule{Name: "no contacts", Effect: "deny", Paths: []string{"/crm/**/contacts/**"}},
		wire.PolicyRule{Name: "no notes", Effect: "deny", Paths: []string{"/crm/v3/objects/notes/**"}},
		wire.PolicyRule{Name: "no tasks", Effect: "deny", Paths: []string{"/crm/v3/objects/*-27/**"}},
		wire.PolicyRule{Name: "no writes", Effect: "deny", Methods: []string{"write"}},
	))})
	r.ready(3)
	tests := []struct{ method, path, rule string }{
		{"GET", "/crm/v3/objects/contacts", "no contacts"},
		{"GET", "/crm/v3/objects/contacts/1?archived=true", "no contacts"},
		{"GET", "/crm/v3/objects/0-1/1", "no contacts"},
		{"GET", "/crm/v3/objects/contact/1", "no contacts"},
		{"GET", "/crm/objects/2026-03/contacts/1", "no contacts"},
		{"GET", "/crm/v3/objects/%63ontacts/1", "no contacts"},
		{"GET", "/crm/v3/objects/%2563ontacts/1", "no contacts"},
		{"GET", "/crm/v3/objects/CONTACTS/1", "no contacts"},
		{"GET", "//crm///v3/objects//contacts/", "no contacts"},
		{"POST", "/crm/v3/objects/contacts/search", "no contacts"},
		{"HEAD", "/crm/v3/objects/contacts", "no contacts"},
		{"GET", "/crm/v3/objects/0-46/1", "no notes"},
		{"GET", "/crm/v3/objects/note/1", "no notes"},
		{"GET", "/crm/v3/objects/tasks/1", "no tasks"},
		{"GET", "/crm/v3/objects/0-27/1", "no tasks"},
		{"POST", "/cms/v3/source-code/draft/content/search", "no writes"},
		{"POST", "/crm/v3/objects/companies", "no writes"},
		{"PATCH", "/crm/v3/objects/companies/1", "no writes"},
		{"PUT", "/crm/v3/objects/companies/1", "no writes"},
		{"DELETE", "/crm/v3/objects/companies/1", "no writes"},
		{"POST", "/crm/v3/objects/companies/batch/create", "no writes"},
	}
	for i, tt := range tests {
		got := r.call("client-0", tt.method, tt.path, nil)
		require.Equal(t, 403, got.status, "%s %s", tt.method, tt.path)
		require.Equal(t, wire.CodeDenied, got.code())
		recs := r.records(chain.Filter{Kind: chain.CallDenied})
		require.Len(t, recs, i+1)
		require.Equal(t, tt.rule, recs[i].Rule, "%s %s", tt.method, tt.path)

		// What hsctl policy test says is what is done.
		body := fmt.Sprintf(`{"slug":"client-0","method":%q,"path":%q}`, tt.method, tt.path)
		said := r.api("POST", "/v1/policy/test", body)
		require.Equal(t, 200, said.status, said.body)
		require.Contains(t, said.body, `"effect":"deny","rule":"`+tt.rule+`"`)
	}
	require.Empty(t, r.came())
	for _, tt := range []struct{ method, path string }{
		{"GET", "/crm/v3/objects/companies"}, {"POST", "/crm/v3/objects/companies/search"}, {"POST", "/crm/v3/objects/companies/batch/read"},
	} {
		require.Empty(t, r.call("client-0", tt.method, tt.path, strings.NewReader("{}"), "Content-Type", "application/json").code(), tt.path)
	}
	require.Len(t, r.came(), 3)
}

// Managing needs the right to manage, whatever the rules say: they neither give
// it nor take it.
func TestThreat29RulesDoNotManage(t *testing.T) {
	r := newRig(t, rigOptions{config: withPolicy(policyOf(t, wire.PolicyRule{Name: "nothing", Effect: "deny", Portals: []string{"*"}}))})
	r.ready(3)
	require.Equal(t, 200, r.api("POST", "/v1/portals/client-0/verify", "").status)
	r.call("client-0", "GET", contacts, nil).refused(t, wire.CodeDenied)

	r = strangerRig(t, policyOf(t, wire.PolicyRule{Name: "everything", Effect: "allow", Portals: []string{"*"}}))
	status, body := asks(t, r.stranger(t), "POST /v1/portals/client-0/verify", "")
	require.Equal(t, 403, status, body)
}

// A new policy decides at once, also on connections that are open; a bad one
// changes nothing and shows in status.
func TestPolicySwap(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	require.Zero(t, r.agent.Status().Policy)
	r.agent.SetPolicy(t.Context(), policyOf(t, wire.PolicyRule{Name: "other", Effect: "allow", Portals: []string{"client-1"}}))
	r.call("client-0", "GET", contacts, nil).refused(t, wire.CodeDenied)
	require.Equal(t, 200, r.call("client-1", "GET", contacts, nil).status)
	st := r.agent.Status().Policy
	require.Equal(t, 1, st.Rules)
	require.NotNil(t, st.LoadedAt)

	r.agent.RefusePolicy(t.Context(), fmt.Errorf("line 7: pat-na1-00000000-0000-4000-8000-00000000000a is no rule"))
	r.call("client-0", "GET", contacts, nil).refused(t, wire.CodeDenied)
	st = r.agent.Status().Policy
	require.Equal(t, 1, st.Rules)
	require.Equal(t, "line 7: pat-na1-*** is no rule", string(st.LastError))

	r.agent.SetPolicy(t.Context(), policyOf(t))
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	require.Zero(t, r.agent.Status().Policy)
	var reasons []string
	for _, rec := range r.records(chain.Filter{Kind: chain.PolicyLoaded}) {
		reasons = append(reasons, rec.Reason)
	}
	require.Equal(t, []string{"1 rules", "no rules: the agent's user, root and socket_group may call"}, reasons)
}

// Programs are known by what they are: path and digest.
func TestPolicyByProgram(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	sum := strings.Repeat("00", 32)
	rule := func(path, sum string) *policy.Policy {
		return policyOf(t, wire.PolicyRule{Name: "program", Effect: "allow", Exes: []wire.PolicyExe{{Path: path, SHA256: sum}}})
	}
	r := newRig(t, rigOptions{config: withPolicy(rule(self, sum))})
	r.ready(3)
	r.call("client-0", "GET", contacts, nil).refused(t, wire.CodeDenied)
	r.agent.SetPolicy(t.Context(), rule(self, ""))
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	r.agent.SetPolicy(t.Context(), rule("/usr/bin/curl", ""))
	r.call("client-0", "GET", contacts, nil).refused(t, wire.CodeDenied)
	r.agent.SetPolicy(t.Context(), rule("/**", digestOf(t, self)))
	r.http().CloseIdleConnections() // one from before has no digest
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
}

// Denials cannot fill the log: beyond a thousand they are counted, and the sum
// is recorded.
func TestThreat29DenialsDoNotFloodTheLog(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true, config: withPolicy(policyOf(t,
		wire.PolicyRule{Name: "one client", Effect: "allow", Portals: []string{"client-0"}}))})
	r.ready(3)
	const tries = 1500
	began := time.Now()
	for range tries {
		r.call("client-1", "GET", contacts, nil).refused(t, wire.CodeDenied)
	}
	took := time.Since(began)
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	single := len(r.records(chain.Filter{Kind: chain.CallDenied}))
	require.GreaterOrEqual(t, single, 1000)
	require.LessOrEqual(t, single, 1000+10*int(took.Seconds()+1))

	dir := r.dir
	r.stop()
	r.start(rigOptions{quiet: true})
	require.Equal(t, dir, r.dir)
	var sums []chain.Record
	for _, rec := range r.records(chain.Filter{Kind: chain.CallDenied}) {
		if rec.ClientSlug == "" {
			sums = append(sums, rec)
		}
	}
	require.Len(t, sums, 1)
	require.Equal(t, os.Getuid(), sums[0].Caller.UID)
	require.True(t, strings.HasPrefix(sums[0].Reason, fmt.Sprintf("%d more refusals since ", tries-single)), sums[0].Reason)
}

// A program that tries again and again where it cannot be served must not fill
// the disk, on which everybody's calls depend.
func TestThreat29RetriesDoNotFloodTheLog(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.ready(3)
	require.NoError(t, r.agent.LockNow(t.Context(), "a test"))
	const tries = 1500
	began := time.Now()
	for range tries {
		r.call("client-1", "GET", contacts, nil).refused(t, wire.CodeLocked)
	}
	most := 1000 + 10*int(time.Since(began).Seconds()+1)
	r.call("Client", "GET", contacts, nil).refused(t, wire.CodeBadRequest)
	require.LessOrEqual(t, len(r.records(chain.Filter{Kind: chain.CallDenied, Slug: "client-1"})), most)
	require.GreaterOrEqual(t, len(r.records(chain.Filter{Kind: chain.CallDenied, Slug: "client-1"})), 1000)
	require.Equal(t, 200, r.api("POST", "/v1/unlock", "{}").status)
	r.call("client-1", "GET", "/oauth/v1/access-tokens", nil).refused(t, wire.CodeDenied)
	denied := r.records(chain.Filter{Kind: chain.CallDenied, Slug: "client-1"})
	require.Equal(t, string(wire.CodeDenied), denied[len(denied)-1].Error, "a refusal for another reason has its record")
}

func TestPolicyTestAboutOthers(t *testing.T) {
	r := newRig(t, rigOptions{config: withPolicy(policyOf(t,
		wire.PolicyRule{Name: "reports", Effect: "allow", Users: []string{"0"}, Exes: []wire.PolicyExe{{Path: "/usr/bin/report"}}, Units: []string{"report.service"}, Methods: []string{"read"}},
		wire.PolicyRule{Name: "ask", Effect: "confirm", Users: []string{"0"}, Methods: []string{"write"}},
	))})
	r.ready(3)
	root, err := user.LookupId("0")
	require.NoError(t, err)
	tests := []struct{ name, body, want string }{
		{"as it should be", `{"user":"` + root.Username + `","exe":"/usr/bin/report","unit":"report.service","slug":"client-0","method":"GET","path":"/a"}`, `"effect":"allow","rule":"reports"`},
		{"by number", `{"user":"0","exe":"/usr/bin/report","unit":"report.service","slug":"no-such","method":"GET","path":"/a"}`, `"effect":"allow","rule":"reports"`},
		{"another program", `{"user":"0","exe":"/usr/bin/other","unit":"report.service","slug":"client-0","method":"GET","path":"/a"}`, `"rule":"(default)"`},
		{"says which key", `{"user":"0","exe":"/usr/bin/report","slug":"client-0","method":"GET","path":"/a"}`, `"mismatch":"units"`},
		{"a write", `{"user":"0","slug":"client-0","method":"POST","path":"/a"}`, `"effect":"confirm","rule":"ask"`},
		{"a stranger", `{"user":"61234","slug":"client-0","method":"GET","path":"/a"}`, `"rule":"(socket)"`},
		{"nobody", `{"user":"no such user","slug":"client-0","method":"GET","path":"/a"}`, `"code":"bad_request"`},
		{"a bad path", `{"slug":"client-0","method":"GET","path":"/a/../b"}`, `"code":"bad_request"`},
		{"a bad method", `{"slug":"client-0","method":"BREW","path":"/a"}`, `"code":"bad_request"`},
		{"a bad slug", `{"slug":"Client","method":"GET","path":"/a"}`, `"code":"bad_request"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { require.Contains(t, r.api("POST", "/v1/policy/test", tt.body).body, tt.want) })
	}
	got := r.api("GET", "/v1/policy", "")
	require.Contains(t, got.body, `{"name":"ask","effect":"confirm","users":["0"],"methods":["write"]}`)

	r = strangerRig(t, policyOf(t, wire.PolicyRule{Name: "all", Effect: "allow", Portals: []string{"*"}}))
	for body, want := range map[string]int{
		`{"slug":"client-0","method":"GET","path":"/a"}`:               200,
		`{"user":"root","slug":"client-0","method":"GET","path":"/a"}`: 403,
		`{"exe":"/a","slug":"client-0","method":"GET","path":"/a"}`:    403,
	} {
		status, text := asks(t, r.stranger(t), "POST /v1/policy/test", body)
		require.Equal(t, want, status, text)
	}
}

func digestOf(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// A call that waits for its portal's quota was permitted and admitted when it
// came. What is taken back meanwhile stops it all the same: nothing leaves.
func TestThreat34WaitingCallsAreAskedAgain(t *testing.T) {
	portals := portalsOf(6)
	allow := wire.PolicyRule{Name: "all", Effect: "allow", Portals: []string{"*"}}
	tests := []struct {
		name string
		do   func(r *rig)
		code wire.Code // of client-0's call; "" if it leaves
	}{
		{"the rules deny it", func(r *rig) {
			r.agent.SetPolicy(r.t.Context(), policyOf(r.t, allow, wire.PolicyRule{Name: "not this one", Effect: "deny", Portals: []string{"client-0"}}))
		}, wire.CodeDenied},
		{"no rule allows it", func(r *rig) {
			r.agent.SetPolicy(r.t.Context(), policyOf(r.t, wire.PolicyRule{Name: "others", Effect: "allow", Portals: []string{"client-1"}}))
		}, wire.CodeDenied},
		{"the rules want a confirmation", func(r *rig) {
			r.agent.SetPolicy(r.t.Context(), policyOf(r.t, allow, wire.PolicyRule{Name: "ask", Effect: "confirm", Portals: []string{"client-0"}}))
		}, wire.CodeConfirmationRequired},
		{"its slug is removed", func(r *rig) {
			require.NoError(r.t, r.client.Remove(r.t.Context(), slugOf(r.t, "client-0")))
		}, wire.CodeUnknownPortal},
		{"its slug vanishes from the store", func(r *rig) {
			r.change(func(e *credstore.Edit) error { e.Remove(slugOf(r.t, "client-0")); return nil })
			r.reload()
		}, wire.CodeUnknownPortal},
		{"its entry in the store is bad", func(r *rig) {
			r.writePlain(strings.Replace(plainStore(portals), `"clientSlug": "client-0"`, `"clientSlug": "client-1"`, 1))
			r.reload()
		}, wire.CodePortalRejected},
		{"other rules that allow it", func(r *rig) {
			r.agent.SetPolicy(r.t.Context(), policyOf(r.t, wire.PolicyRule{Name: "mine", Effect: "allow", Portals: []string{"client-0"}}))
		}, ""},
		{"the store is read again", func(r *rig) { r.reload() }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // each waits for a while
			r := newRig(t, rigOptions{portals: portals, quiet: true, config: withPolicy(policyOf(t, allow))})
			r.ready(len(portals))
			r.hubspot.AddFault(sandbox.Fault{Portal: 1000, Method: "POST", Status: 429, Policy: "SECONDLY", Times: 1, Header: http.Header{"Retry-After": {"2"}}})
			search := func(retry string) answer {
				return r.call("client-0", "POST", contacts+"/search", strings.NewReader("{}"), "Content-Type", "application/json", wire.HeaderRetry, retry, wire.HeaderWait, "1m")
			}
			require.Equal(t, 429, search("off").status)
			waiting := make(chan answer, 1)
			go func() { waiting <- search("on") }()
			eventually(t, func() bool { return r.agent.Status().CallsInFlight == 1 }, "it waits")
			tt.do(r)
			got := <-waiting
			if tt.code == "" {
				require.Equal(t, 200, got.status, got.body)
				require.Len(t, r.came(), 2)
				return
			}
			got.refused(t, tt.code)
			require.Len(t, r.came(), 1, "it left")
			require.Len(t, r.records(chain.Filter{Slug: "client-0", Kind: chain.CallDenied}), 1)
			r.checkLog()
		})
	}
}
