package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/packaging/standing"
	"github.com/hsagent/hsagentd/wire"
)

// A rig is an agent with all its real parts: store file, audit log on disk,
// Unix socket, and the sandbox over TLS in place of HubSpot.
type rig struct {
	t        testing.TB
	dir      string
	socket   string
	portals  []sandbox.Portal
	hubspot  *sandbox.Server
	upstream *sandbox.Listening
	identity *credstore.Identity
	store    *credstore.File // as an outside writer has it
	audit    *auditstore.Store
	keys     chain.Keys // of the audit log
	agent    *agent.Agent
	client   *wire.Client
	log      *logBuffer
	served   chan error

	sought []wire.Token // that seeker looks for
	seeker *standing.Tokens
}

// rigOptions change a rig before it starts. Zero fields take the usual.
type rigOptions struct {
	portals  []sandbox.Portal
	entries  func([]credstore.Entry) []credstore.Entry // what goes into the store
	config   func(*agent.Config)
	upstream func(*hubspot.UpstreamConfig)
	audit    func(*auditstore.Config)
	made     func(*agent.Agent) // before it serves
	quiet    bool               // logs no debug lines
}

// portalsOf makes n portals named client-0, client-1 … with limits that do not
// get in the way.
func portalsOf(n int) []sandbox.Portal {
	out := make([]sandbox.Portal, n)
	for i := range out {
		out[i] = sandbox.Portal{
			ID: int64(1000 + i), Slug: fmt.Sprintf("client-%d", i), Token: sandbox.NewToken("na1"),
			BurstLimit: -1, DailyLimit: -1, SearchLimit: -1, Contacts: 3, Companies: -1, Deals: -1, Tickets: -1,
		}
	}
	return out
}

func entryOf(p sandbox.Portal) credstore.Entry {
	slug, err := wire.ParseSlug(p.Slug)
	if err != nil {
		panic(err)
	}
	return credstore.Entry{Slug: slug, Token: p.Token, PortalID: p.ID}
}

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	if o.portals == nil {
		o.portals = portalsOf(3)
	}
	dir, err := os.MkdirTemp("/tmp", "hs") // a socket's path has 107 bytes at most
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &rig{t: t, dir: dir, socket: filepath.Join(dir, "agent.sock"), portals: o.portals, log: new(logBuffer)}
	r.hubspot = sandbox.New(sandbox.Config{Portals: o.portals})
	r.upstream, err = r.hubspot.Start()
	require.NoError(t, err)
	t.Cleanup(r.upstream.Close)

	r.identity, err = credstore.GenerateIdentity(filepath.Join(dir, "identity.txt"), nil, false)
	require.NoError(t, err)
	path := filepath.Join(dir, "store.age")
	require.NoError(t, credstore.Create(t.Context(), path, r.identity, nil))
	r.store = credstore.Open(path, r.identity)
	entries := make([]credstore.Entry, 0, len(o.portals))
	for _, p := range o.portals {
		entries = append(entries, entryOf(p))
	}
	if o.entries != nil {
		entries = o.entries(entries)
	}
	r.put(entries...)
	r.start(o)
	return r
}

// start starts the agent over what is in the rig's directory.
func (r *rig) start(o rigOptions) {
	t := r.t
	ca := filepath.Join(r.dir, "ca.pem")
	require.NoError(t, os.WriteFile(ca, r.upstream.CAPEM, 0o600))
	ucfg := hubspot.UpstreamConfig{BaseURL: r.upstream.URL, CAFile: ca}
	if o.upstream != nil {
		o.upstream(&ucfg)
	}
	up, err := hubspot.NewUpstream(ucfg)
	require.NoError(t, err)
	level := slog.LevelDebug
	if o.quiet {
		level = slog.LevelWarn
	}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: level}))
	acfg := auditstore.Config{Dir: filepath.Join(r.dir, "audit"), Actor: "hsagentd/test", Log: log, Keys: r.auditKeys}
	if o.audit != nil {
		o.audit(&acfg)
	}
	r.audit, err = auditstore.Open(context.Background(), acfg)
	require.NoError(t, err)
	cfg := agent.Config{
		Version: "test", Log: log, Audit: r.audit, Upstream: up,
		StorePath:    r.store.Path(),
		LoadIdentity: func([]byte) (*credstore.Identity, error) { return r.identity, nil },
		SocketGroup:  -1, AdminGroup: -1, ReadOnlyGroup: -1,
	}
	if o.config != nil {
		o.config(&cfg)
	}
	r.agent, err = agent.New(context.Background(), cfg)
	require.NoError(t, err)
	if o.made != nil {
		o.made(r.agent)
	}
	l, err := net.Listen("unix", r.socket)
	require.NoError(t, err)
	r.served = make(chan error, 1)
	go func() { r.served <- r.agent.Serve(l) }()
	r.client = wire.NewClient(r.socket)
	t.Cleanup(r.stop)
}

// auditKeys makes the audit log's key once.
func (r *rig) auditKeys(string) (chain.Keys, error) {
	if r.keys == nil {
		k, err := chain.GenerateKey(chain.NewOrigin())
		if err != nil {
			return nil, err
		}
		r.keys = chain.Keys{k}
	}
	return r.keys, nil
}

// stop drains and closes the agent and its log. A second stop does nothing.
func (r *rig) stop() {
	if r.agent == nil {
		return
	}
	r.client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), agent.DefaultDrainTimeout)
	defer cancel()
	_ = r.agent.Drain(ctx) // calls that hang are broken off
	require.NoError(r.t, <-r.served)
	_ = r.agent.Close(ctx) // a log that was latched shut on purpose cannot be closed cleanly
	_ = r.audit.Close()
	r.agent = nil
}

// put writes entries into the store as an outside writer would.
func (r *rig) put(entries ...credstore.Entry) {
	r.t.Helper()
	_, err := r.store.Update(r.t.Context(), func(e *credstore.Edit) error {
		for _, en := range entries {
			if err := e.Put(en); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(r.t, err)
}

// reload makes the agent read the store now.
func (r *rig) reload() {
	r.t.Helper()
	require.NoError(r.t, r.agent.Reload(r.t.Context(), false))
}

// An answer is a whole response.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body; where status is 0, there was no answer
}

func (a answer) code() wire.Code { return wire.Code(a.header.Get(wire.HeaderError)) }

// call makes a call and reads its whole answer.
func (r *rig) call(slug, method, target string, body io.Reader, header ...string) answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://hsagent/", body)
	require.NoError(r.t, err)
	return r.do(req, "/v1/call/"+slug+target, header...)
}

// do sends req for a raw target and gets an answer, if perhaps a broken one.
func (r *rig) do(req *http.Request, target string, header ...string) answer {
	r.t.Helper()
	got := r.try(req, target, header...)
	if got.status == 0 {
		require.NoError(r.t, got.err)
	}
	return got
}

// try sends req for a raw target.
func (r *rig) try(req *http.Request, target string, header ...string) answer {
	req.URL.Opaque = target
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := r.http().RoundTrip(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b), err}
}

var transports sync.Map // socket -> *http.Transport

func (r *rig) http() *http.Transport {
	if tr, ok := transports.Load(r.socket); ok {
		return tr.(*http.Transport)
	}
	tr := &http.Transport{
		DisableCompression:  true,
		MaxIdleConnsPerHost: 128,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", r.socket)
		},
	}
	actual, loaded := transports.LoadOrStore(r.socket, tr)
	if !loaded {
		r.t.Cleanup(tr.CloseIdleConnections)
	}
	return actual.(*http.Transport)
}

// records returns what the log holds, everything queued included.
func (r *rig) records(f chain.Filter) []chain.Record {
	r.t.Helper()
	_ = r.audit.Flush(context.Background()) // a log that is shut can still be read
	var out []chain.Record
	require.NoError(r.t, r.audit.Records(context.Background(), f, func(_ []byte, rec *chain.Record) error {
		out = append(out, *rec)
		return nil
	}))
	return out
}

// arrivals is how many requests of the slug's portal reached the sandbox on
// paths other than the agent's own.
func (r *rig) arrivals() int {
	n := 0
	for _, req := range r.hubspot.Requests() {
		if req.Path != hubspot.DetailsPath && req.Path != hubspot.TokenInfoPath {
			n++
		}
	}
	return n
}

// logBuffer is a log that tests read.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
