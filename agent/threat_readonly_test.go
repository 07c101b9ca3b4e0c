package agent_test

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

const readers = 4545 // a group

// readOnly serves the rig's agent on a read-only socket too.
func (r *rig) readOnly(t *testing.T) string {
	t.Helper()
	path := filepath.Join(r.dir, "readonly.sock")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- r.agent.ServeReadOnly(l) }()
	t.Cleanup(func() {
		r.stop()
		require.NoError(t, <-served)
	})
	require.NoError(t, os.Chmod(path, 0o777))
	return path
}

// Whoever gets the read-only socket alone, a container for instance, can read
// and no more: not even the agent's own user can.
func TestThreat29ReadOnlySocket(t *testing.T) {
	r := newRig(t, rigOptions{config: func(c *agent.Config) { c.ReadOnlyGroup = readers }})
	r.ready(3)
	path := r.readOnly(t)
	ask := func(line string) (int, string) {
		conn, err := net.Dial("unix", path)
		require.NoError(t, err)
		defer conn.Close()
		return asks(t, conn, line, "")
	}
	for _, line := range []string{
		"GET /v1/call/client-0" + contacts, "GET /v1/status", "GET /v1/portals",
		"GET /v1/portals/client-0", "GET /v1/quota", "GET /v1/openapi.json",
	} {
		status, body := ask(line)
		require.Equal(t, 200, status, "%s: %s", line, body)
	}
	status, body := ask("POST /v1/call/client-0" + contacts + "/search")
	require.NotEqual(t, 403, status, body)

	came := len(r.came())
	refused := []string{
		"POST /v1/call/client-0" + contacts, "PATCH /v1/call/client-0" + contacts + "/1", "PUT /v1/call/client-0" + contacts + "/1",
		"DELETE /v1/call/client-0" + contacts + "/1", "POST /v1/call/client-0" + contacts + "/batch/create",
		"POST /v1/call/client-0/cms/v3/source-code/draft/content/search", "POST /v1/call/client-0/crm/v3/properties/search",
		"PUT /v1/portals/client-0", "DELETE /v1/portals/client-0", "POST /v1/portals/client-0/verify", "POST /v1/lock", "POST /v1/unlock",
		"POST /v1/reload", "POST /v1/onboard", "GET /v1/audit/records", "POST /v1/audit/verify", "GET /v1/policy", "POST /v1/policy/test",
		"GET /v1/confirmations", "POST /v1/confirmations", "GET /v1/rotations", "GET /metrics",
	}
	for _, line := range refused {
		status, body := ask(line)
		require.Equal(t, 403, status, line)
		require.Contains(t, body, string(wire.CodeDenied), line)
	}
	require.Len(t, r.came(), came)
	require.False(t, r.agent.Status().Locked)
	denied := r.records(chain.Filter{Kind: chain.CallDenied})
	require.Len(t, denied, len(refused))
	require.Equal(t, "(read-only socket)", denied[0].Rule)

	// Who manages sees all portals, but not here: rules hold for this socket.
	r.agent.SetPolicy(t.Context(), policyOf(t, wire.PolicyRule{Name: "one client", Effect: "allow", Portals: []string{"client-0"}}))
	_, body = ask("GET /v1/portals")
	require.Contains(t, body, "client-0")
	require.NotContains(t, body, "client-1")
	require.Contains(t, r.api("GET", "/v1/portals", "").body, "client-1")
	r.agent.SetPolicy(t.Context(), policyOf(t))

	// The other socket is as it was.
	require.Equal(t, 201, r.call("client-0", "POST", contacts, strings.NewReader(`{"properties":{}}`), "Content-Type", "application/json").status)
}

// Its group may use this socket, and not the other one.
func TestThreat29ReadOnlyGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		require.NotZero(t, os.Getuid()) // only root becomes another user
		return
	}
	r := newRig(t, rigOptions{config: func(c *agent.Config) { c.ReadOnlyGroup = readers }})
	r.ready(3)
	r.open()
	path := r.readOnly(t)
	status, body := asks(t, dialAs(t, path, 65533, 65533, readers), "GET /v1/call/client-0"+contacts, "")
	require.Equal(t, 200, status, body)
	for _, conn := range []net.Conn{dialAs(t, r.socket, 65533, 65533, readers), dialAs(t, path, 65533, 65533)} {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil) // the answer comes although nothing was asked
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 403, resp.StatusCode)
	}
}
