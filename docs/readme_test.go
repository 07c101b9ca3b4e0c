package docs_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/wire"
)

// nobody is who the tests of a user's own agent run as where they run as root,
// which has the system's paths.
const nobody = 65534

// block returns the README's shell block of the name.
func block(t *testing.T, name string) string {
	t.Helper()
	_, after, ok := strings.Cut(read(t, "../README.md"), "```sh "+name+"\n")
	require.True(t, ok, "the README has no block %q", name)
	text, _, ok := strings.Cut(after, "```")
	require.True(t, ok)
	return text
}

// bash is a shell that stops at the first failure, and so do those it starts.
func bash(t *testing.T, stdin io.Reader, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("bash", args...)
	cmd.Stdin = stdin
	home := t.TempDir()
	cmd.Env = []string{
		"PATH=" + programs + ":" + os.Getenv("PATH"), "HOME=" + home, "SHELLOPTS=errexit:pipefail",
	}
	return cmd
}

// The first lines of the README, typed as they stand there.
func TestReadmeSession(t *testing.T) {
	script := filepath.Join(t.TempDir(), "session")
	require.NoError(t, os.WriteFile(script, []byte(block(t, "session")), 0o600))
	in, err := os.Open(script)
	require.NoError(t, err)
	defer func() { require.NoError(t, in.Close()) }()
	// The shell that the demo starts goes on where the first one was.
	out := run(t.Context(), t, bash(t, in))
	for _, want := range []string{
		`"slug": "gamma-gmbh"`, `"results":[`, `"email":"ann@example.com"`, `"reason":"TICKET-7"`, `"kind":"call.outcome"`, `"statusCode":201`,
	} {
		require.Contains(t, out, want)
	}
	require.NotContains(t, out, "pat-na1-")
}

// The first real set-up, on a sandbox in HubSpot's place.
func TestReadmeSetup(t *testing.T) {
	play := sandbox.Demo()
	hub, err := sandbox.New(play).Start()
	require.NoError(t, err)
	t.Cleanup(hub.Close)
	out := setUp(t, hub, block(t, "setup"), play.Portals[0].Token, "")
	for _, want := range []string{"recipient age1", `"state": "ready"`, `"results":[`, `"kind":"call.intent"`, `"damaged": 0`} {
		require.Contains(t, out, want)
	}
	require.NotContains(t, out, "pat-na1-")
}

// The commands for many clients, on a sandbox whose HubSpot has made the new
// token already.
func TestReadmeFleet(t *testing.T) {
	play := sandbox.Demo()
	server := sandbox.New(play)
	hub, err := server.Start()
	require.NoError(t, err)
	t.Cleanup(hub.Close)
	clients := "clientSlug,portalToken,expectedPortalId\n"
	for _, p := range play.Portals {
		clients += fmt.Sprintf("%s,%s,%d\n", p.Slug, p.Token.Reveal(), p.ID)
	}
	next := sandbox.NewToken("na1")
	require.NoError(t, server.Rotate(play.Portals[0].ID, next))
	out := setUp(t, hub, "hsagentd init\nhsagentd &\n"+block(t, "fleet"), next, clients)
	for _, want := range []string{
		"nothing was written", `"done":true,"ok":3,"exists":0,"rejected":0`, "calls leave with the new token now",
		`"state": "switched"`, `"dailyRemaining": 6`, "3 of 3 are ready",
	} {
		require.Contains(t, out, want)
	}
	for _, p := range play.Portals {
		require.NotContains(t, out, p.Token.Reveal())
	}
	require.NotContains(t, out, next.Reveal())
}

// A report and an export that its client verifies.
func TestReadmeProof(t *testing.T) {
	play := sandbox.Demo()
	hub, err := sandbox.New(play).Start()
	require.NoError(t, err)
	t.Cleanup(hub.Close)
	lines := "hsagentd init\nhsagentd &\nhsctl onboard acme-corp\nhsctl call acme-corp GET /crm/v3/objects/contacts >contacts.json\n" +
		block(t, "proof") + "cat acme-corp.html acme-corp.jsonl\n"
	out := setUp(t, hub, lines, play.Portals[0].Token, "")
	for _, want := range []string{"<!DOCTYPE html>", "<title>HubSpot calls for acme-corp", `"proof":[`, `"firstSlugSeq": 0`, `"damaged": 0`, "\n— hsagentd/"} {
		require.Contains(t, out, want)
	}
	require.NotContains(t, out, "pat-na1-0")
}

// setUp runs lines of a shell as an ordinary user whose hsagentd has the
// sandbox for its HubSpot, and returns what they print. The token is on stdin,
// the clients are in clients.csv.
func setUp(t *testing.T, hub *sandbox.Listening, lines string, stdin wire.Token, clients string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hs")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })

	// Where HubSpot is, and that the agent needs a moment to start, is all that
	// the sandbox changes.
	files := map[string]string{
		"ca.pem":      string(hub.CAPEM),
		"clients.csv": clients,
		"token":       stdin.Reveal() + "\n",
		"setup":       lines,
		"hsagentd": "#!/bin/bash\n" +
			`if [ "$1" = init ]; then set -- "$@" --upstream "` + hub.URL + `" --upstream-ca "` + dir + `/ca.pem"; fi` + "\n" +
			`exec "` + programs + `/hsagentd" "$@"` + "\n",
		"hsctl": "#!/bin/bash\n" +
			`until "` + programs + `/hsctl" status >/dev/null 2>&1; do sleep 0.05; done` + "\n" +
			`exec "` + programs + `/hsctl" "$@"` + "\n",
	}
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	for _, program := range []string{"hsagentd", "hsctl"} {
		require.NoError(t, os.Chmod(filepath.Join(dir, program), 0o700))
	}

	token, err := os.Open(filepath.Join(dir, "token"))
	require.NoError(t, err)
	defer func() { require.NoError(t, token.Close()) }()
	cmd := bash(t, token, filepath.Join(dir, "setup"))
	cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "SHELLOPTS=errexit"}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, nobody, nobody))
		})
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	t.Cleanup(func() { stopGroup(t, cmd) })
	return run(ctx, t, cmd)
}

// stopGroup ends what a shell left in the background and waits for it.
func stopGroup(t *testing.T, cmd *exec.Cmd) {
	if cmd.Process == nil {
		return
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // it may be gone
	require.Eventually(t, func() bool {
		return errors.Is(syscall.Kill(-cmd.Process.Pid, 0), syscall.ESRCH)
	}, 30*time.Second, 20*time.Millisecond)
}

var agentURL = regexp.MustCompile(`http://hsagent(/[^\s'"` + "`" + `]*)`)

// Every URL of the README's curl lines answers, to any HTTP client.
func TestReadmeURLs(t *testing.T) {
	cmd := exec.Command(filepath.Join(programs, "hsagentd"), "demo")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait())
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	socket, ok := strings.CutPrefix(strings.TrimSpace(line), "export HSAGENT_SOCK=")
	require.True(t, ok, line)

	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	urls := agentURL.FindAllString(read(t, "../README.md"), -1)
	require.NotEmpty(t, urls)
	for _, u := range urls {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, errors.Join(err, resp.Body.Close()))
		require.Equal(t, http.StatusOK, resp.StatusCode, "%s: %s", u, body)
		require.Empty(t, resp.Header.Get("Hsagent-Error"))
	}
}
