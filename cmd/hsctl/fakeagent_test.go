package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

const (
	madeUpToken = "pat-na1-00000000-0000-4000-8000-00000000000a"
	fakeCallID  = "0193a1b2-0000-7000-8000-000000000001"
)

// A fakeAgent is a server at a Unix socket that answers as hsagentd does, as
// far as hsctl can see. Its fleet is acme-corp, beta-inc (quarantined) and
// gamma-gmbh (rejected).
type fakeAgent struct {
	socket string

	mu      sync.Mutex
	puts    []wire.PutPortal
	posts   []string // bodies of POSTs that change the agent
	damaged bool
	large   bool // the log takes long to verify
	hostile bool // the fleet has names that attack terminals and spreadsheets
	records uint64

	confirmed bool // CI secrets has the new token
	healthy   bool // the doctor finds nothing
	locked    bool
	answered  chan struct{} // closed by the next answer to a call that waits
}

func newFakeAgent(t testing.TB) *fakeAgent {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hs") // a socket's path has to be short
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	a := &fakeAgent{socket: filepath.Join(dir, "a.sock"), records: 25, answered: make(chan struct{})}
	ln, err := net.Listen("unix", a.socket)
	require.NoError(t, err)
	srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: a, ReadHeaderTimeout: time.Minute}}
	srv.Start()
	t.Cleanup(func() {
		srv.CloseClientConnections() // a follower never ends by itself
		srv.Close()
	})
	return a
}

// set changes the fake's behaviour between two commands of a test.
func (a *fakeAgent) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

func (a *fakeAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Host != wire.Host {
		problem(w, wire.Errorf(wire.CodeDenied, "host %s", r.Host))
		return
	}
	if rest, ok := strings.CutPrefix(r.RequestURI, "/v1/call/"); ok {
		slug, target, _ := strings.Cut(rest, "/")
		a.call(w, r, slug, "/"+target)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		problem(w, wire.Errorf(wire.CodeBadRequest, "%v", err))
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/v1/rotations") {
		a.rotations(w, r, body)
		return
	}
	if a.locked && r.URL.Path != "/v1/status" {
		problem(w, wire.Errorf(wire.CodeLocked, "the agent is locked"))
		return
	}
	switch route := r.Method + " " + r.URL.Path; route {
	case "POST /v1/onboard", "POST /v1/rotate":
		a.fleetRows(w, r, body)
	case "POST /v1/verify":
		a.checkToken(w, body)
	case "GET /v1/quota":
		a.quotas(w, r)
	case "GET /v1/status":
		at := wire.At(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC))
		if a.healthy {
			answer(w, wire.Status{Version: wire.Version, PID: 77, Locked: a.locked, Upstream: "https://api.hubapi.com",
				Store: wire.StoreStatus{Path: "/s", Version: 7, LoadedAt: &at}, Audit: wire.AuditStatus{Path: "/a", Size: 1, Durable: 1}})
			return
		}
		answer(w, wire.Status{Version: "9.9.9", PID: 77, StartedAt: at, UptimeSeconds: 3661, Upstream: "https://api.hubapi.com",
			Store:   wire.StoreStatus{Path: "/var/lib/hsagent/store.age", Version: 7, LoadedAt: &at, LastError: "version went back"},
			Audit:   wire.AuditStatus{Path: "/var/lib/hsagent/audit", Size: a.records, Durable: a.records},
			Policy:  wire.PolicyStatus{Rules: 2, LastError: "/etc/hsagent/config.toml:7: rule \"x\": effect: \"alow\": want allow, deny or confirm\n/etc/hsagent/config.toml:9: more"},
			Portals: map[string]int{"ready": 1, "quarantined": 1, "rejected": 1}})
	case "GET /v1/portals":
		answer(w, wire.Portals{Portals: a.fleet()})
	case "GET /v1/audit/records":
		a.log(w, r)
	case "POST /v1/audit/verify":
		rep := wire.AuditReport{Records: a.records, Root: "cm9vdA==", Damage: []wire.AuditDamage{}}
		for done := uint64(0); a.large && done < 100; done += 40 {
			answer(w, wire.AuditProgress{Done: done, Total: 100})
		}
		if a.damaged {
			rep.Damaged, rep.Damage = 1, []wire.AuditDamage{{Seq: 3, Kind: "changed", Detail: "its bytes do not give its hash"}}
		}
		answer(w, rep)
	case "GET /v1/confirmations":
		a.confirmations(w, r)
	case "POST /v1/confirmations":
		a.posts = append(a.posts, string(body))
		var in wire.ConfirmationAnswer
		_ = json.Unmarshal(body, &in) // a bad one shows in posts
		answer(w, wire.Confirmation{ID: in.ID, Slug: "acme-corp", State: map[bool]string{true: wire.ConfirmAllowed, false: wire.ConfirmRefused}[in.Allow]})
		close(a.answered)
		a.answered = make(chan struct{})
	case "POST /v1/lock", "POST /v1/unlock", "POST /v1/reload":
		if strings.Contains(string(body), "wrong") {
			problem(w, wire.Errorf(wire.CodeBadPassphrase, "the passphrase does not open the identity"))
			return
		}
		a.posts = append(a.posts, r.URL.Path+" "+string(body))
		w.WriteHeader(http.StatusNoContent)
	default:
		a.portal(w, r, body)
	}
}

// confirmations has two calls that wait; the second comes once the first is
// answered.
func (a *fakeAgent) confirmations(w http.ResponseWriter, r *http.Request) {
	for _, q := range []wire.Confirmation{
		{ID: "1", State: wire.ConfirmWaiting, Slug: "acme-corp", Method: "DELETE", Path: "/crm/v3/objects/contacts/7", User: "ann", Exe: "/bin/\x1b[2Jsh", Reason: "x\r\nclient  other " + madeUpToken},
		{ID: "2", State: wire.ConfirmWaiting, Slug: "acme-corp", Method: "PATCH", Path: "/crm/v3/objects/deals/8", User: "ben"},
	} {
		answered := a.answered
		_ = json.NewEncoder(w).Encode(q) // a client that hung up is no concern
		_ = http.NewResponseController(w).Flush()
		a.mu.Unlock()
		select {
		case <-answered:
		case <-r.Context().Done():
		}
		a.mu.Lock()
	}
	a.mu.Unlock()
	<-r.Context().Done()
	a.mu.Lock()
}

func (a *fakeAgent) fleet() []wire.Portal {
	at := wire.At(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC))
	fleet := []wire.Portal{
		{Slug: "acme-corp", PortalID: 12345678, Datacenter: "na1", State: wire.StateReady, LastRotatedAt: &at, VerifiedAt: &at,
			TokenFingerprint: "0123456789ab"},
		{Slug: "beta-inc", PortalID: 87654321, Datacenter: "na1", State: wire.StateQuarantined, Reason: "token opens another portal"},
		{Slug: "gamma-gmbh", State: wire.StateRejected, Reason: "no token"},
	}
	if a.healthy {
		now := wire.At(time.Now())
		fleet[0].LastRotatedAt = &now
		return fleet[:1]
	}
	if a.hostile {
		fleet[1].Reason = "=HYPERLINK(\"http://evil\")"
		fleet[2].Reason = "\x1b[2J\u202e\u009b31mowned\r\nfake row"
	}
	return fleet
}

// portal serves /v1/portals/{slug}… .
func (a *fakeAgent) portal(w http.ResponseWriter, r *http.Request, body []byte) {
	name, verb, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/portals/"), "/")
	fleet := a.fleet()
	i := slices.IndexFunc(fleet, func(p wire.Portal) bool { return p.Slug == name })
	if r.Method == http.MethodPut {
		var in wire.PutPortal
		_ = json.Unmarshal(body, &in) // a bad one shows in puts
		a.puts = append(a.puts, in)
		switch {
		case i >= 0:
			problem(w, wire.Errorf(wire.CodeConflict, "slug %s exists with another token: rotate it", name))
		case in.PortalID == 666:
			problem(w, wire.Errorf(wire.CodeIdentityMismatch, "the token opens portal 42, not 666"))
		default:
			answer(w, wire.Portal{Slug: name, PortalID: 42, Datacenter: "na1", State: wire.StateReady})
		}
		return
	}
	if i < 0 {
		unknown(w, name)
		return
	}
	p := fleet[i]
	switch r.Method + " " + verb {
	case "POST resume":
		p.State, p.Reason = wire.StateReady, ""
	case "POST rotate":
		a.posts = append(a.posts, r.URL.Path+"?"+r.URL.RawQuery+" "+string(body))
	case "POST verify":
		if p.State == wire.StateRejected {
			problem(w, wire.Errorf(wire.CodePortalRejected, "%s: no token", name))
			return
		}
	case "DELETE ":
		a.posts = append(a.posts, "DELETE "+name)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer(w, p)
}

// call plays agent and HubSpot for one call.
func (a *fakeAgent) call(w http.ResponseWriter, r *http.Request, slug, target string) {
	if slug != "acme-corp" {
		unknown(w, slug)
		return
	}
	path, _, _ := strings.Cut(target, "?")
	word := path[strings.LastIndexByte(path, '/')+1:]
	if strings.HasPrefix(path, "/agent/") {
		p := wire.Errorf(wire.Code(word), "told to")
		p.CallID = fakeCallID
		problem(w, p)
		return
	}
	w.Header().Set(wire.HeaderCallID, fakeCallID)
	w.Header().Set("Content-Type", "application/json")
	switch {
	case path == "/echo":
		b, _ := io.ReadAll(r.Body)
		h := map[string]string{}
		for k := range r.Header {
			h[k] = r.Header.Get(k)
		}
		answer(w, map[string]any{"method": r.Method, "target": target, "body": string(b), "length": r.ContentLength, "header": h})
	case strings.HasPrefix(path, "/status/"):
		code, _ := strconv.Atoi(word)
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, `{"status":"error","message":"status %d"}`, code)
	case path == "/broken":
		_, _ = io.WriteString(w, `{"results":[`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case path == "/hangs":
		_, _ = io.WriteString(w, "begun\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case path == "/bytes":
		_, _ = w.Write([]byte{0, 0xff, '\r', '\n', 0x1b, '[', 'm'})
	case path == "/no-results":
		answer(w, map[string]int{"total": 0})
	case path == "/circle":
		_, _ = io.WriteString(w, `{"results":[1],"paging":{"next":{"after":"x"}}}`)
	case strings.HasSuffix(path, "/search"):
		var in struct {
			After string
			Query string
		}
		b, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(b, &in) // a bad one finds nothing
		listing(w, in.After, 2, in.Query != "none", "")
	default:
		q := r.URL.Query()
		limit, _ := strconv.Atoi(q.Get("limit"))
		listing(w, q.Get("after"), max(1, limit), true, q.Get("fail"))
	}
}

// listing answers with the contacts 1 to 5 in pages.
func listing(w http.ResponseWriter, after string, limit int, found bool, failAt string) {
	from, _ := strconv.Atoi(after)
	if failAt != "" && after == failAt {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"status":"error","message":"cannot go on"}`)
		return
	}
	out := map[string]any{}
	results := []map[string]any{}
	for i := from; i < min(from+limit, 5) && found; i++ {
		results = append(results, map[string]any{"id": strconv.Itoa(i + 1), "big": json.Number("90071992547409931")})
	}
	if found && from+limit < 5 {
		out["paging"] = map[string]any{"next": map[string]any{"after": strconv.Itoa(from + limit)}}
	}
	out["results"] = results
	answer(w, out)
}

// log answers with records 0 to records-1, filtered by slug and after.
func (a *fakeAgent) log(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var first uint64
	if s := q.Get("after"); s != "" {
		n, _ := strconv.ParseUint(s, 10, 64)
		first = n + 1
	}
	limit, _ := strconv.Atoi(q.Get("limit"))
	if limit == 0 {
		limit = 1000
	}
	w.Header().Set("Content-Type", wire.NDJSONType)
	for seq := first; seq < a.records && limit > 0; seq++ {
		if q.Get("slug") != "" && q.Get("slug") != "acme-corp" {
			break
		}
		limit--
		kind, status := "call.intent", ""
		if seq%2 == 1 {
			kind, status = "call.outcome", `,"statusCode":404,"durationMs":12`
		}
		path := "/crm/v3/objects/contacts"
		if a.hostile {
			path = "=1+1"
		}
		_, _ = fmt.Fprintf(w, `{"seq":%d,"ts":"2026-11-23T10:00:00.000Z","kind":"%s","clientSlug":"acme-corp","portalId":12345678,`+
			`"method":"GET","path":"%s","actor":"hsagentd/9.9.9","caller":{"uid":1000,"user":"ann","gid":1000}%s}`+"\n", seq, kind, path, status)
	}
	if q.Get("follow") == "true" {
		_ = http.NewResponseController(w).Flush()
		a.mu.Unlock()
		<-r.Context().Done()
		a.mu.Lock()
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that hung up is no concern
}

func unknown(w http.ResponseWriter, slug string) {
	p := wire.Errorf(wire.CodeUnknownPortal, "no portal %s", slug)
	p.Similar = []string{"acme-corp"}
	problem(w, p)
}

func problem(w http.ResponseWriter, p *wire.Problem) {
	w.Header().Set("Content-Type", wire.ProblemType)
	w.Header().Set(wire.HeaderError, string(p.Code))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // a client that hung up is no concern
}
