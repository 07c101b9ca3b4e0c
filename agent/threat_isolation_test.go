package agent_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// Each call names its slug in its query, so that the sandbox, which knows
// tokens alone, can be asked whether token and slug belong together.
func tagged(slug string) string { return contacts + "?limit=1&tag=" + slug }

// meant is the portal that a request was meant for, if its query says that.
func (r *rig) meant(req *sandbox.Request) int64 {
	_, tag, ok := strings.Cut(req.RawQuery, "&tag=")
	if !ok {
		return 0
	}
	tag, _, _ = strings.Cut(tag, "&")
	n, err := strconv.Atoi(strings.TrimPrefix(tag, "client-"))
	require.NoError(r.t, err)
	require.Equal(r.t, tag, r.portals[n].Slug)
	return r.portals[n].ID
}

// crossed returns the requests whose token is not that of the slug they name.
func (r *rig) crossed() []sandbox.Request {
	return slices.DeleteFunc(r.came(), func(req sandbox.Request) bool { return r.meant(&req) == req.PortalID })
}

// 100,000 calls in the middle of 1,000 rotations, in five rounds of which each
// has an agent and a log of its own. HSAGENT_ROUNDS makes another number of
// rounds.
func TestThreat01RotationsNeverCrossSlugs(t *testing.T) {
	for i := range sized(t, "HSAGENT_ROUNDS", 5) {
		t.Run(strconv.Itoa(i+1), rotateUnderLoad)
	}
}

// sized is a test's size: the usual one, or that of a variable.
func sized(t *testing.T, variable string, usual int) int {
	t.Helper()
	v := os.Getenv(variable)
	if v == "" {
		return usual
	}
	n, err := strconv.Atoi(v)
	require.NoError(t, err)
	return n
}

// rotateUnderLoad makes 20,000 calls, in the middle of 200 rotations.
func rotateUnderLoad(t *testing.T) {
	t.Parallel() // some of a round waits for the disk or uses one processor
	const (
		portals, clients, calls = 100, 64, 20_000
		writes, perWrite        = 20, 10
	)
	r := newRig(t, rigOptions{portals: portalsOf(portals), quiet: true})
	r.ready(portals)

	var (
		made, failed atomic.Int64
		rotated      atomic.Bool
		wg           sync.WaitGroup
	)
	for c := range clients {
		conn, err := net.Dial("unix", r.socket)
		require.NoError(t, err)
		wg.Go(func() {
			defer conn.Close()
			br := bufio.NewReader(conn)
			for i := c; made.Add(1) <= calls || !rotated.Load(); i++ {
				slug := r.portals[i%portals].Slug
				if status, err := get(conn, br, "/v1/call/"+slug+tagged(slug)); status != 200 || err != nil {
					failed.Add(1)
					t.Errorf("%s: %d %v", slug, status, err)
					return
				}
			}
		})
	}
	marks := map[string]string{} // of a call made after a rotation -> the fingerprint it must have
	for w := range writes {
		fresh := map[string]wire.Token{}
		r.change(func(e *credstore.Edit) error {
			for i := range perWrite {
				p := r.portals[(w*perWrite+i)%portals]
				if _, ok := fresh[p.Slug]; !ok { // the edit may be tried again
					fresh[p.Slug] = sandbox.NewToken("na1")
					if err := r.hubspot.Rotate(p.ID, fresh[p.Slug]); err != nil {
						return err
					}
				}
				entry, _ := e.Get(slugOf(t, p.Slug))
				entry.Token = fresh[p.Slug]
				if err := e.Put(entry); err != nil {
					return err
				}
			}
			return nil
		})
		served := func() bool {
			for slug, token := range fresh {
				p, err := r.client.Portal(t.Context(), slugOf(t, slug))
				if err != nil || p.TokenFingerprint != token.Fingerprint() {
					return false
				}
			}
			return true
		}
		if w%4 == 0 { // the watch sees it
			eventually(t, served, "the new tokens serve")
		} else {
			r.reload()
			require.True(t, served())
		}
		var after sync.WaitGroup
		for slug, token := range fresh {
			mark := fmt.Sprintf("%s-%d", slug, w)
			marks[mark] = token.Fingerprint()
			after.Go(func() {
				if got := r.call(slug, "GET", tagged(slug)+"&mark="+mark, nil); got.status != 200 {
					t.Errorf("%s after its rotation: %d %s", slug, got.status, got.body)
				}
			})
		}
		after.Wait()
	}
	rotated.Store(true)
	wg.Wait()

	require.Zero(t, failed.Load())
	came := r.came()
	require.GreaterOrEqual(t, len(came), calls)
	require.Len(t, marks, writes*perWrite)
	for i := range came {
		req := &came[i]
		if id := r.meant(req); id == 0 || id != req.PortalID {
			require.Equal(t, id, req.PortalID, "%s came with another portal's token", req.RawQuery)
		}
		_, mark, _ := strings.Cut(req.RawQuery, "&mark=")
		if want, ok := marks[mark]; ok {
			require.Equal(t, want, req.TokenFingerprint, "a call made after a rotation had the old token")
			delete(marks, mark)
		}
	}
	require.Empty(t, marks)
	for _, rec := range r.checkLog() {
		require.Equal(t, 200, rec.StatusCode)
	}
	r.clean("the log", r.log.String())
}

// get makes a request on a connection that is kept, and reads the whole answer:
// with less ado than net/http's client, of which the race detector makes much.
func get(conn net.Conn, br *bufio.Reader, target string) (status int, err error) {
	if _, err := io.WriteString(conn, "GET "+target+" HTTP/1.1\r\nHost: hsagent\r\n\r\n"); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

func TestThreat02SwappedTokensAreQuarantined(t *testing.T) {
	ps := portalsOf(5)
	r := newRig(t, rigOptions{portals: ps, entries: func(es []credstore.Entry) []credstore.Entry {
		es[1].Token, es[3].Token = es[3].Token, es[1].Token
		return es
	}})
	var wg sync.WaitGroup
	for _, p := range ps {
		for range 10 {
			wg.Go(func() {
				got := r.call(p.Slug, "GET", tagged(p.Slug), nil)
				if p.ID == 1001 || p.ID == 1003 {
					got.refused(t, wire.CodePortalQuarantined)
					return
				}
				require.Equal(t, 200, got.status, got.body)
			})
		}
	}
	wg.Wait()
	require.Len(t, r.came(), 30)
	require.Empty(t, r.crossed())
	require.Equal(t, wire.StateQuarantined, r.state("client-1", wire.StateQuarantined).State)
	require.Len(t, r.records(chain.Filter{Kind: chain.PortalQuarantined}), 2, "each is recorded once")
	require.Len(t, r.records(chain.Filter{Kind: chain.CallDenied}), 20)

	r.api("POST", "/v1/portals/client-1/resume", "").refused(t, wire.CodeIdentityMismatch)
	require.Len(t, r.came(), 30)

	// Mended: the watcher takes it, and the tokens serve where they belong.
	r.put(entryOf(sandbox.Portal{ID: 1001, Slug: "client-1", Token: sparePut(t, r, 1001)}))
	r.put(entryOf(ps[3]))
	r.put(entryOf(ps[1]))
	for _, slug := range []string{"client-1", "client-3"} {
		r.state(slug, wire.StateReady)
		require.Equal(t, 200, r.call(slug, "GET", tagged(slug), nil).status)
	}
	require.Empty(t, r.crossed())
	r.checkLog()
	r.cleanAll()
}

// An outside writer, and a list of new clients, mix up the tokens of 100
// portals.
func TestThreat02TokensOfOthersAreRefused(t *testing.T) {
	const portals = 100
	r := newRig(t, rigOptions{portals: portalsOf(portals)})
	r.ready(portals)

	rows := make([]string, portals)
	for i, p := range portalsOf(2 * portals)[portals:] {
		require.NoError(t, r.hubspot.AddPortal(p))
		rows[i] = row(fmt.Sprintf("new-%d", i), p.Token, p.ID^1) // the neighbour's number
	}
	results, done := r.fleet("/v1/onboard", rows...)
	for _, res := range results {
		require.Equal(t, wire.CodeIdentityMismatch, res.Code, "%+v", res)
	}
	require.Equal(t, portals, done.Rejected)

	entries := make([]credstore.Entry, portals)
	for i, p := range r.portals { // new tokens, as after a rotation: the slug's portal has them, but not this slug's
		entries[i] = entryOf(p)
		entries[i].Token = sparePut(t, r, p.ID^1)
	}
	r.put(entries...)
	r.reload()
	for _, p := range r.portals {
		r.call(p.Slug, "GET", tagged(p.Slug), nil).refused(t, wire.CodePortalQuarantined)
	}
	require.Empty(t, r.came(), "a call left with another portal's token")
	require.Len(t, r.records(chain.Filter{Kind: chain.PortalQuarantined}), portals)
	r.cleanAll()
}

// sparePut gives a portal a further token: the store takes no token twice, not
// even while two are being put back in their places.
func sparePut(t *testing.T, r *rig, portal int64) wire.Token {
	t.Helper()
	token := sandbox.NewToken("na1")
	require.NoError(t, r.hubspot.AddToken(portal, token))
	return token
}

func TestThreat02ResumeAfterTheTokenOpensThePortal(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	require.NoError(t, r.hubspot.SetIdentity(1000, sandbox.Identity{ClaimID: 1001}))
	r.api("POST", "/v1/portals/client-0/verify", "").refused(t, wire.CodeIdentityMismatch)
	r.call("client-0", "GET", tagged("client-0"), nil).refused(t, wire.CodePortalQuarantined)
	require.Empty(t, r.came())
	require.NoError(t, r.hubspot.SetIdentity(1000, sandbox.Identity{}))
	r.call("client-0", "GET", tagged("client-0"), nil).refused(t, wire.CodePortalQuarantined)
	require.Equal(t, 200, r.api("POST", "/v1/portals/client-0/resume", "").status)
	require.Equal(t, 200, r.call("client-0", "GET", tagged("client-0"), nil).status)
	require.Len(t, r.records(chain.Filter{Kind: chain.PortalResumed}), 1)
}

func TestThreat02OneTokenTwiceServesNobody(t *testing.T) {
	ps := portalsOf(3)
	r := newRig(t, rigOptions{portals: ps})
	r.ready(3)
	// The store's own writer refuses this: an outside writer need not.
	plain := `{"version": 99, "portals": {` +
		`"client-0": {"token": "` + ps[0].Token.Reveal() + `", "portalId": 1000, "clientSlug": "client-0"},` +
		`"client-1": {"token": "` + ps[0].Token.Reveal() + `", "portalId": 1001, "clientSlug": "client-1"},` +
		`"client-2": {"token": "` + ps[2].Token.Reveal() + `", "portalId": 1002, "clientSlug": "client-2"}}}`
	r.writePlain(plain)
	r.reload()
	for _, slug := range []string{"client-0", "client-1"} {
		p := r.call(slug, "GET", tagged(slug), nil).refused(t, wire.CodePortalRejected)
		r.clean("the problem", p.Detail)
	}
	got := r.call("client-2", "GET", tagged("client-2"), nil)
	require.Equal(t, 200, got.status, got.body)
	require.Len(t, r.came(), 1)
	require.Len(t, r.records(chain.Filter{Kind: chain.PortalRejected}), 2)
	r.cleanAll()
}
