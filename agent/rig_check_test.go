package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/packaging/standing"
	"github.com/hsagent/hsagentd/wire"
)

// patience bounds every wait for something that goes on in the background. It
// is no measure: on a busy machine things take their time.
const (
	patience = time.Minute
	tick     = 5 * time.Millisecond
)

const contacts = "/crm/v3/objects/contacts"

// eventually waits until ok.
func eventually(t testing.TB, ok func() bool, msg string, args ...any) {
	t.Helper()
	require.Eventuallyf(t, ok, patience, tick, msg, args...)
}

// ready waits until n portals are ready.
func (r *rig) ready(n int) {
	r.t.Helper()
	eventually(r.t, func() bool { return r.agent.Status().Portals[string(wire.StateReady)] == n }, "%d portals ready", n)
}

// state waits until the slug's portal is in the state, and returns its view.
func (r *rig) state(slug string, want wire.State) wire.Portal {
	r.t.Helper()
	var p *wire.Portal
	eventually(r.t, func() bool {
		var err error
		p, err = r.client.Portal(r.t.Context(), slugOf(r.t, slug))
		return err == nil && p.State == want
	}, "%s becomes %s", slug, want)
	return *p
}

func slugOf(t testing.TB, s string) wire.Slug {
	t.Helper()
	slug, err := wire.ParseSlug(s)
	require.NoError(t, err)
	return slug
}

// quiet waits until no call is in flight: until then outcomes may be missing.
func (r *rig) quiet() {
	r.t.Helper()
	eventually(r.t, func() bool { return r.agent.Status().CallsInFlight == 0 }, "no call in flight")
}

// checkLog checks what must hold after whatever happened, once all calls have
// ended. It returns the outcomes of calls, without the agent's own requests.
func (r *rig) checkLog() []chain.Record {
	r.t.Helper()
	r.quiet()
	var (
		seen *standing.Seen
		out  []chain.Record
	)
	eventually(r.t, func() bool { // the agent's own questions go on in the background
		_ = r.audit.Flush(context.Background()) // a log that is shut can still be read
		out = nil
		seen = standing.Walk(r.t, r.audit, r.tokens(), func(rec *chain.Record) {
			if rec.Kind == chain.CallOutcome && !rec.Caller.Agent {
				out = append(out, *rec)
			}
		})
		return seen.Open() == 0
	}, "every intent gets its outcome")
	seen.Arrived(r.t, r.hubspot.Requests(), func(req *sandbox.Request) int64 { return r.meant(req) })
	standing.Verified(r.t, r.audit)
	return out
}

// outcomeOf is the one outcome of the call that got the answer.
func (r *rig) outcomeOf(a answer) chain.Record {
	r.t.Helper()
	id := a.header.Get(wire.HeaderCallID)
	if id == "" {
		id = a.problem(r.t).CallID
	}
	r.quiet()
	recs := r.records(chain.Filter{CallID: id, Kind: chain.CallOutcome})
	require.Len(r.t, recs, 1)
	return recs[0]
}

// problem is the problem document of an answer of the agent's own.
func (a answer) problem(t testing.TB) wire.Problem {
	t.Helper()
	require.Equal(t, wire.ProblemType, a.header.Get("Content-Type"), a.body)
	var p wire.Problem
	require.NoError(t, json.Unmarshal([]byte(a.body), &p))
	require.Equal(t, a.code(), p.Code)
	require.Equal(t, a.status, p.Status)
	require.NotEmpty(t, p.Detail)
	return p
}

// refused checks that the answer is the agent's own, with this code.
func (a answer) refused(t testing.TB, code wire.Code) wire.Problem {
	t.Helper()
	require.Equal(t, code, a.code(), "%d %s", a.status, a.body)
	require.Equal(t, code.Status(), a.status)
	return a.problem(t)
}

// api makes a request to the agent's own API.
func (r *rig) api(method, target, body string) answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://hsagent/", strings.NewReader(body))
	require.NoError(r.t, err)
	return r.do(req, target)
}

// dial connects to the socket for bytes of the test's own.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	conn, err := net.Dial("unix", r.socket)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = conn.Close() })
	require.NoError(r.t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

// raw sends bytes on a connection of its own, each part in a write of its own,
// and returns the status of every answer until the agent ends the connection.
// Where no part asks for that with "Connection: close", what is sent ends when
// the agent has nothing more to do: net/http takes that end for a hang-up.
func (r *rig) raw(parts ...string) []int {
	r.t.Helper()
	conn := r.dial()
	written := make(chan struct{})
	defer func() { <-written }()
	defer conn.Close()
	go func() {
		defer close(written)
		for _, p := range parts {
			if _, err := io.WriteString(conn, p); err != nil {
				return // the agent may hang up first
			}
			time.Sleep(tick)
		}
		if strings.Contains(strings.Join(parts, ""), "Connection: close") {
			return
		}
		for quiet, waited := 0, 0; quiet < 10 && waited < 100; quiet, waited = quiet+1, waited+1 {
			time.Sleep(tick)
			if r.agent.Status().CallsInFlight > 0 {
				quiet = 0
			}
		}
		_ = conn.(*net.UnixConn).CloseWrite()
	}()
	var out []int
	br := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return out
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		out = append(out, resp.StatusCode)
		if err != nil {
			return out
		}
	}
}

// tokens are those that the rig's portals have now.
func (r *rig) tokens() *standing.Tokens {
	now := make([]wire.Token, len(r.portals))
	for i, p := range r.portals {
		now[i] = r.hubspot.ActiveToken(p.ID)
	}
	if !slices.Equal(now, r.sought) {
		r.sought, r.seeker = now, standing.NewTokens(now...)
	}
	return r.seeker
}

// clean checks that no token of the rig's portals stands in text.
func (r *rig) clean(what, text string) {
	r.t.Helper()
	r.tokens().Absent(r.t, what, []byte(text))
}

// cleanAll checks everything that the agent has put out: its log and its
// records as they are stored.
func (r *rig) cleanAll() {
	r.t.Helper()
	r.clean("the log", r.log.String())
	_ = r.audit.Flush(context.Background()) // a log that is shut can still be read
	standing.Walk(r.t, r.audit, r.tokens(), nil)
}

// text is all of an answer that a client can see.
func (a answer) text() string {
	var b strings.Builder
	_ = a.header.Write(&b) // a strings.Builder takes everything
	return b.String() + a.body
}

// A tap stands between the agent and its audit log.
type tap struct {
	*auditstore.Store
	before func(rec chain.Record) error // before each record; an error refuses it
}

func (a *tap) Append(ctx context.Context, rec chain.Record) (chain.Receipt, error) {
	if err := a.before(rec); err != nil {
		return chain.Receipt{}, err
	}
	return a.Store.Append(ctx, rec)
}

func (a *tap) AppendLazy(rec chain.Record) error {
	if rec.Kind == chain.CallIntent {
		return errors.New("nobody waits until this intent is durable")
	}
	if err := a.before(rec); err != nil {
		return err
	}
	return a.Store.AppendLazy(rec)
}

// ofCalls reports whether a record is one of a caller's call.
func ofCalls(rec chain.Record) bool { return rec.Caller != nil && !rec.Caller.Agent }

// own reports whether a request that arrived is one of the agent's own.
func own(req sandbox.Request) bool {
	return req.Path == hubspot.DetailsPath || req.Path == hubspot.TokenInfoPath
}

// came returns the requests that arrived, without the agent's own.
func (r *rig) came() []sandbox.Request {
	var out []sandbox.Request
	for _, req := range r.hubspot.Requests() {
		if !own(req) {
			out = append(out, req)
		}
	}
	return out
}

// change edits the store as an outside writer would.
func (r *rig) change(fn func(e *credstore.Edit) error) {
	r.t.Helper()
	_, err := r.store.Update(r.t.Context(), fn)
	require.NoError(r.t, err)
}

// writePlain encrypts a plaintext of any kind to the agent's identity and puts
// it in the store's place, as a foreign writer may.
func (r *rig) writePlain(plain string) {
	r.t.Helper()
	to, err := age.ParseX25519Recipient(r.identity.Recipient())
	require.NoError(r.t, err)
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to)
	require.NoError(r.t, err)
	_, err = io.WriteString(w, plain)
	require.NoError(r.t, err)
	require.NoError(r.t, w.Close())
	r.writeFile(b.Bytes())
}

// writeFile puts bytes in the store's place, whole.
func (r *rig) writeFile(b []byte) {
	r.t.Helper()
	tmp := r.store.Path() + ".new"
	require.NoError(r.t, os.WriteFile(tmp, b, 0o600))
	require.NoError(r.t, os.Rename(tmp, r.store.Path()))
}
