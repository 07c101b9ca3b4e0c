package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/packaging/standing"
	"github.com/hsagent/hsagentd/wire"
)

// TestThreat60NoTokenInMemory looks through all memory of an idle daemon for
// every token that it ever had: after 1,000 calls, 100 rotations, by an outside
// writer of the store and over the socket, an onboarding and a reload.
func TestThreat60NoTokenInMemory(t *testing.T) {
	const portals, calls, rotations = 5, 1000, 100
	s := newSite(t, portals)
	used := make([]wire.Token, 0, portals+rotations+2)
	for i := range portals {
		used = append(used, s.hub.ActiveToken(int64(1000+i)))
	}
	daemon := startReadable(t, s.command())
	s.await()
	ctx := t.Context()

	call := func(n int) { // n at once
		t.Helper()
		ended := make(chan error, n)
		for i := range n {
			go func() {
				resp, err := s.client.Call(ctx, wire.CallRequest{Slug: s.slugs[i%portals], Method: http.MethodGet, Target: "/crm/v3/objects/contacts"})
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					err = errors.Join(err, resp.Body.Close())
				}
				if err == nil && resp.StatusCode != http.StatusOK {
					err = errors.New(resp.Status)
				}
				ended <- err
			}()
		}
		for range n {
			require.NoError(t, <-ended)
		}
	}
	id, err := credstore.LoadIdentity(s.path("identity.txt"), nil)
	require.NoError(t, err)
	store := credstore.Open(s.path("store.age"), id)
	for i := range rotations {
		call(calls / rotations)
		n := i % portals
		next := sandbox.NewToken("na1")
		used = append(used, next)
		require.NoError(t, s.hub.AddToken(int64(1000+n), next))
		if i%2 == 0 {
			_, err := s.client.Rotate(ctx, s.slugs[n], next, false)
			require.NoError(t, err)
			continue
		}
		_, err := store.Update(ctx, func(e *credstore.Edit) error {
			entry, _ := e.Get(s.slugs[n])
			entry.Token = next
			return e.Put(entry)
		})
		require.NoError(t, err)
		require.NoError(t, s.client.Do(ctx, http.MethodPost, "/v1/reload", nil, nil, nil))
		p, err := s.client.Portal(ctx, s.slugs[n])
		require.NoError(t, err)
		require.Equal(t, next.Fingerprint(), p.TokenFingerprint)
	}
	more := sandbox.Portal{ID: 2000, Slug: "more", Token: sandbox.NewToken("na1"), BurstLimit: -1, DailyLimit: -1, SearchLimit: -1}
	bulk := sandbox.Portal{ID: 2001, Slug: "bulk", Token: sandbox.NewToken("eu1"), BurstLimit: -1, DailyLimit: -1, SearchLimit: -1}
	for _, p := range []sandbox.Portal{more, bulk} {
		require.NoError(t, s.hub.AddPortal(p))
		used = append(used, p.Token)
	}
	_, err = s.client.CheckToken(ctx, more.Token, 0)
	require.NoError(t, err)
	slug, err := wire.ParseSlug(more.Slug)
	require.NoError(t, err)
	_, err = s.client.Onboard(ctx, slug, more.Token, more.ID, "", false)
	require.NoError(t, err)
	rows, err := s.client.Stream(ctx, http.MethodPost, "/v1/onboard", nil,
		strings.NewReader(fmt.Sprintf("{\"slug\":%q,\"token\":%q}\n", bulk.Slug, bulk.Token.Reveal())))
	require.NoError(t, err)
	answer, err := io.ReadAll(rows.Body)
	require.NoError(t, err)
	require.NoError(t, rows.Body.Close())
	require.Contains(t, string(answer), `"ok":1`)
	require.NoError(t, daemon.Process.Signal(syscall.SIGHUP))
	call(portals)
	status, err := s.client.Status(ctx)
	require.NoError(t, err)
	require.Equal(t, portals+2, status.Portals["ready"])

	// Without memfd_secret the tokens that serve, and those before them, can
	// be read by whoever may read memory at all: the others are gone.
	t.Logf("the pages for tokens are %s", status.TokenMemory)
	searched := used
	if status.TokenMemory != "hidden" {
		searched = slices.DeleteFunc(slices.Clone(used), func(u wire.Token) bool { return held(t, store, u) })
	}
	require.GreaterOrEqual(t, len(searched), rotations-2*portals)
	var hits []string
	require.Eventually(t, func() bool {
		hits = daemon.search(searched)
		return len(hits) == 0
	}, 20*time.Second, time.Second, "of %d tokens ever used some are in memory: %s", len(searched), lazily(&hits))
	require.Positive(t, daemon.searched, "memory was read")

	// The control: what a plain client of net/http keeps is found.
	plain := exec.CommandContext(ctx, os.Args[0])
	plain.Env = []string{plainClient + "=" + s.url, "CA=" + s.path("ca.pem")}
	plain.Stdin = strings.NewReader(more.Token.Reveal())
	out, err := plain.StdoutPipe()
	require.NoError(t, err)
	control := startReadable(t, plain)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "done\n", line)
	hits = control.search([]wire.Token{more.Token})
	t.Logf("control: a plain client of net/http keeps %d copies after 10 calls", len(hits))
	for _, form := range []string{"as it is", "hexadecimal", "base64", "percent", "JSON", "UTF-16"} {
		require.True(t, slices.ContainsFunc(hits, func(h string) bool { return strings.Contains(h, ", "+form) }), "the search is blind for tokens in the form: %s", form)
	}
}

// lazily shows what hits is when it is asked.
func lazily(hits *[]string) fmt.Stringer {
	return lazy(func() string { return strings.Join(*hits, "; ") })
}

type lazy func() string

func (l lazy) String() string { return l() }

// held reports whether the store has the token, as one that serves or the one
// before it.
func held(t *testing.T, store *credstore.File, token wire.Token) bool {
	t.Helper()
	now, err := store.Load(t.Context())
	require.NoError(t, err)
	return slices.ContainsFunc(now.Entries, func(e credstore.Entry) bool {
		return e.Token == token || e.Previous != nil && e.Previous.Token == token
	})
}

// A readable is a process whose memory can be read, although the process closes
// itself: what is read through was opened before it could.
type readable struct {
	*exec.Cmd
	t         *testing.T
	mem, maps *os.File
	searched  int64 // bytes, the last time
}

// startReadable starts cmd. It is held at its first instruction, as a debugger
// does it, until its memory is open; then it is let go. Any user may do so with
// a program of their own that they start, whereas nobody but root could open
// the memory later.
func startReadable(t *testing.T, cmd *exec.Cmd) *readable {
	t.Helper()
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	var ws syscall.WaitStatus
	_, err := syscall.Wait4(cmd.Process.Pid, &ws, 0, nil)
	require.NoError(t, err)
	require.True(t, ws.Stopped())
	r := &readable{Cmd: cmd, t: t}
	for name, f := range map[string]**os.File{"mem": &r.mem, "maps": &r.maps} {
		*f, err = os.Open(fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, name))
		require.NoError(t, err)
		t.Cleanup(func() { _ = (*f).Close() })
	}
	require.NoError(t, syscall.PtraceDetach(cmd.Process.Pid))
	return r
}

// search looks for the tokens in all that can be read of the process's memory,
// and says where each stands.
func (r *readable) search(tokens []wire.Token) []string {
	r.t.Helper()
	_, err := r.maps.Seek(0, io.SeekStart)
	require.NoError(r.t, err)
	maps, err := io.ReadAll(r.maps)
	require.NoError(r.t, err)
	sought := standing.NewTokens(tokens...)
	var hits []string
	r.searched = 0
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		from, to, _ := strings.Cut(fields[0], "-")
		lo, err := strconv.ParseUint(from, 16, 64)
		require.NoError(r.t, err)
		hi, err := strconv.ParseUint(to, 16, 64)
		require.NoError(r.t, err)
		if fields[1][0] != 'r' || hi > 1<<63-1 { // the last is the kernel's vsyscall
			continue
		}
		what := strings.Join(fields[1:2], "") + " " + strings.Join(fields[5:], " ")
		for _, at := range r.searchRange(lo, hi, sought) {
			hits = append(hits, fmt.Sprintf("%s in %s(%s)", at, fields[0], what))
		}
	}
	return hits
}

// searchRange looks through one mapping, piece by piece.
func (r *readable) searchRange(lo, hi uint64, sought *standing.Tokens) []string {
	const piece = 1 << 20
	var hits []string
	buf := make([]byte, piece+sought.Longest())
	for at := lo; at < hi; at += piece {
		n, err := r.mem.ReadAt(buf[:min(uint64(len(buf)), hi-at)], int64(at))
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EIO) {
			require.NoError(r.t, err)
		}
		r.searched += int64(n)
		for _, h := range sought.Find(buf[:n]) {
			around := bytes.Map(func(c rune) rune {
				if c < ' ' || c > '~' {
					return '.'
				}
				return c
			}, slices.Concat(buf[max(0, h.At-40):h.At], []byte("[token]"), buf[h.At+h.Size:min(n, h.At+h.Size+16)]))
			hits = append(hits, fmt.Sprintf("token %d, %s, at %x (%s)", h.Token, h.Form, at+uint64(h.At), wire.MaskTokens(string(around))))
		}
	}
	return hits
}

// plainClient names the variable that makes of the test's program a plain client
// of net/http.
const plainClient = "HSAGENT_TEST_PLAIN_CLIENT"

// keepsakes are what the plain client keeps of its token, in other forms.
var keepsakes []any

// runPlainClient makes ten calls as any program would, and waits.
func runPlainClient(url string) int {
	token, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = callPlainly(context.Background(), url, string(token))
	}
	var escaped strings.Builder
	for _, c := range token {
		fmt.Fprintf(&escaped, `\u%04x`, c)
	}
	keepsakes = append(keepsakes, hex.EncodeToString(token), base64.StdEncoding.EncodeToString(append([]byte("user:"), token...)),
		strings.ReplaceAll(string(token), "-", "%2D"), escaped.String(), utf16.Encode([]rune(string(token))))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("done")
	select {} // keepsakes are global: they stay
}

func callPlainly(ctx context.Context, url, token string) error {
	pem, err := os.ReadFile(os.Getenv("CA"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	for range 10 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/account-info/v3/details", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
	}
	return nil
}
