package main_test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/packaging/standing"
	"github.com/hsagent/hsagentd/wire"
)

// A site is a home for daemons that are started and killed, with a sandbox
// HubSpot that outlives them.
type site struct {
	t       *testing.T
	home    string
	hub     *sandbox.Server
	url     string
	slugs   []wire.Slug
	client  *wire.Client
	calls   atomic.Int64
	started int
	audit   string   // the log's directory
	wrap    []string // a command that becomes the daemon, with its arguments
}

// newSite makes a site of n portals without limits.
func newSite(t *testing.T, n int) *site {
	t.Helper()
	s := &site{t: t, home: shortDir(t)}
	s.audit = s.path("audit")
	portals := make([]sandbox.Portal, n)
	for i := range portals {
		portals[i] = sandbox.Portal{
			ID: int64(1000 + i), Slug: fmt.Sprintf("client-%d", i), Token: sandbox.NewToken("na1"),
			BurstLimit: -1, DailyLimit: -1, SearchLimit: -1, Contacts: 1, Companies: -1, Deals: -1, Tickets: -1,
		}
	}
	s.hub = sandbox.New(sandbox.Config{Portals: portals})
	l, err := s.hub.Start()
	require.NoError(t, err)
	t.Cleanup(l.Close)
	s.url = l.URL
	require.NoError(t, os.WriteFile(s.path("ca.pem"), l.CAPEM, 0o600))
	id, err := credstore.GenerateIdentity(s.path("identity.txt"), nil, false)
	require.NoError(t, err)
	require.NoError(t, credstore.Create(t.Context(), s.path("store.age"), id, nil))
	_, err = credstore.Open(s.path("store.age"), id).Update(t.Context(), func(e *credstore.Edit) error {
		for _, p := range portals {
			slug, err := wire.ParseSlug(p.Slug)
			if err != nil {
				return err
			}
			s.slugs = append(s.slugs, slug)
			if err := e.Put(credstore.Entry{Slug: slug, Token: p.Token, PortalID: p.ID}); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.home, name) }

// start starts a daemon and waits until it answers.
func (s *site) start() *exec.Cmd {
	s.t.Helper()
	cmd := s.command()
	require.NoError(s.t, cmd.Start())
	s.await()
	return cmd
}

// command is a daemon that was not started yet. Its log is a file of its own.
func (s *site) command() *exec.Cmd {
	s.t.Helper()
	s.started++
	args := append(slices.Clone(s.wrap), filepath.Join(binaries, "hsagentd"),
		"--socket", s.path("s/a.sock"), "--store", s.path("store.age"), "--identity", s.path("identity.txt"),
		"--audit-dir", s.audit, "--upstream", s.url, "--upstream-ca", s.path("ca.pem"))
	cmd := exec.CommandContext(s.t.Context(), args[0], args[1:]...)
	cmd.Env = []string{"HOME=" + s.home, "XDG_RUNTIME_DIR=" + s.home}
	log, err := os.Create(s.path(fmt.Sprintf("log.%d", s.started)))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = log.Close() })
	cmd.Stderr = log
	return cmd
}

// await waits until the daemon answers.
func (s *site) await() {
	s.t.Helper()
	s.client = wire.NewClient(s.path("s/a.sock"))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		_, err := s.client.Status(s.t.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			said, _ := os.ReadFile(s.path(fmt.Sprintf("log.%d", s.started))) // what there is of it
			require.NoError(s.t, err, "the daemon of start %d does not answer; it says:\n%s", s.started, said)
		}
	}
}

// load makes calls with so many workers until ctx ends. Each call has a number
// in its target, so that the sandbox's arrivals and the log's intents can be
// told apart.
func (s *site) load(ctx context.Context, workers int) *sync.WaitGroup {
	wg := new(sync.WaitGroup)
	client := s.client
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				n := s.calls.Add(1)
				resp, err := client.Call(ctx, wire.CallRequest{
					Slug: s.slugs[int(n)%len(s.slugs)], Method: http.MethodGet,
					Target: fmt.Sprintf("/crm/v3/objects/contacts?after=%d", n),
				})
				if err == nil {
					_ = resp.Body.Close() // what became of the call does not matter here
				}
			}
		})
	}
	return wg
}

// Whenever the daemon is killed, the log holds an intent for every request
// that HubSpot saw, each intent gets an end, and no number is missing.
// HSAGENT_KILLS makes another number of kills than 100.
func TestThreat03KillAtRandomPoints(t *testing.T) {
	kills := 100
	if v := os.Getenv("HSAGENT_KILLS"); v != "" {
		var err error
		kills, err = strconv.Atoi(v)
		require.NoError(t, err)
	}
	s := newSite(t, 5)
	for range kills {
		cmd := s.start()
		ctx, cancel := context.WithCancel(t.Context())
		wg := s.load(ctx, 8)
		time.Sleep(rand.N(60 * time.Millisecond)) // the random point
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		cancel()
		wg.Wait()
		s.client.Close()
	}
	cmd := s.start() // closes what the last kill left open
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait())
	s.requireWhole()
}

// A crash of any kind leaves neither a core file nor a token in what it prints.
func TestThreat15CrashesLeaveNothing(t *testing.T) {
	const rounds = 10
	s := newSite(t, 1)
	for range rounds {
		for _, sig := range []syscall.Signal{syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGQUIT} {
			cmd := s.command()
			cmd.Dir = s.home
			require.NoError(t, cmd.Start())
			s.await()
			resp, err := s.client.Call(t.Context(), wire.CallRequest{Slug: s.slugs[0], Method: http.MethodGet, Target: "/crm/v3/objects/contacts"})
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.NoError(t, resp.Body.Close())
			require.NoError(t, cmd.Process.Signal(sig))
			require.Error(t, cmd.Wait())
			require.False(t, cmd.ProcessState.Sys().(syscall.WaitStatus).CoreDump(), "%v left a core file", sig)
			said, err := os.ReadFile(s.path(fmt.Sprintf("log.%d", s.started)))
			require.NoError(t, err)
			require.Contains(t, string(said), "goroutine ", "the control: it says where it was")
			s.client.Close()
		}
	}
	cores, err := filepath.Glob(s.path("core*"))
	require.NoError(t, err)
	require.Empty(t, cores)
	s.requireClean(standing.NewTokens(s.hub.ActiveToken(1000)))
}

// requireWhole checks the log against what the sandbox saw, and that nothing
// that the daemons left has a token in it.
func (s *site) requireWhole() {
	t := s.t
	t.Helper()
	used := make([]wire.Token, len(s.slugs))
	for i := range used {
		used[i] = s.hub.ActiveToken(int64(1000 + i))
	}
	tokens := standing.NewTokens(used...)
	store, err := auditstore.Open(t.Context(), auditstore.Config{Dir: s.audit, Actor: "test"})
	require.NoError(t, err)
	defer s.requireClean(tokens) // once it is closed: an open log merges tables and deletes them
	defer func() { require.NoError(t, store.Close()) }()
	standing.Verified(t, store)
	seen := standing.Walk(t, store, tokens, nil)
	seen.Ended(t)
	arrived := s.hub.Requests()
	require.NotEmpty(t, arrived)
	seen.Arrived(t, arrived, func(r *sandbox.Request) int64 {
		var n int
		if _, err := fmt.Sscanf(r.Target, "/crm/v3/objects/contacts?after=%d", &n); err != nil {
			return 0
		}
		return int64(1000 + n%len(s.slugs))
	})
	t.Logf("%d records, %d intents, %d requests arrived, %d starts", seen.Records, seen.Intents, len(arrived), s.started)
}

// requireClean looks for tokens in every file that the daemon left. The store
// is encrypted.
func (s *site) requireClean(tokens *standing.Tokens) {
	require.NoError(s.t, filepath.WalkDir(s.home, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		tokens.Absent(s.t, path, b)
		return nil
	}))
}
