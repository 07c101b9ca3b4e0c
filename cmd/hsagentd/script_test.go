package main_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

// binaries is the directory of hsagentd and hsctl, built once.
var binaries string

func TestMain(m *testing.M) {
	if url := os.Getenv(plainClient); url != "" {
		os.Exit(runPlainClient(url))
	}
	if pid := os.Getenv(intruder); pid != "" {
		os.Exit(intrude(pid))
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("/tmp", "hsb")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // a leftover below /tmp harms nobody
	out, err := exec.Command("go", "build", "-o", dir+"/", "github.com/hsagent/hsagentd/cmd/hsagentd", "github.com/hsagent/hsagentd/cmd/hsctl").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		return 1
	}
	binaries = dir
	return m.Run()
}

// TestScripts runs daemon and command together, as users do.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		WorkdirRoot:         shortDir(t),
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", binaries+":"+os.Getenv("PATH"))
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("R", e.WorkDir+"/r")
			e.Setenv("XDG_RUNTIME_DIR", e.WorkDir+"/r")
			e.Setenv("HSAGENT_SOCK", e.WorkDir+"/r/s/a.sock")
			e.Setenv("HSAGENT_CONFIG", e.WorkDir+"/c/config.toml")
			e.Setenv("UID", strconv.Itoa(os.Getuid()))
			return os.Mkdir(e.WorkDir+"/r", 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await":   await,
			"sandbox": startSandbox,
			"code":    code,
		},
	})
}

// await waits until somebody listens on $HSAGENT_SOCK.
func await(ts *testscript.TestScript, _ bool, _ []string) {
	var err error
	for range 6000 { // a minute: the machine may be busy
		var c net.Conn
		if c, err = net.Dial("unix", ts.Getenv("HSAGENT_SOCK")); err == nil {
			ts.Check(c.Close())
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("nobody listens: %v", err)
}

// startSandbox starts a HubSpot with the demo's portals. It sets UPSTREAM, and
// leaves its CA in ca.pem and acme-corp's token in the file token.
func startSandbox(ts *testscript.TestScript, _ bool, _ []string) {
	play := sandbox.Demo()
	hub, err := sandbox.New(play).Start()
	ts.Check(err)
	ts.Defer(hub.Close)
	ts.Setenv("UPSTREAM", hub.URL)
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), hub.CAPEM, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("token"), []byte(play.Portals[0].Token.Reveal()+"\n"), 0o600))
}

// code runs a command and wants the exit code: code 78 hsagentd check. What it
// printed is in the files out and err.
func code(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		_, err = fmt.Sscanf(err.Error(), "exit status %d", &got)
		ts.Check(err)
	}
	ts.Check(os.WriteFile(ts.MkAbs("out"), []byte(ts.ReadFile("stdout")), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("err"), []byte(ts.ReadFile("stderr")), 0o600))
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// shortDir is a temporary directory whose sockets' paths fit.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hs")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// hsagentd returns the command with a home of its own and nothing else in its
// environment but extra.
func hsagentd(t *testing.T, home string, extra []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(binaries, "hsagentd"), args...)
	cmd.Env = append([]string{"HOME=" + home, "HSAGENT_CONFIG=" + home + "/config.toml", "PATH=" + os.Getenv("PATH")}, extra...)
	return cmd
}

// pathFlags keep everything below home, also for root.
func pathFlags(home string) []string {
	return []string{"--socket", home + "/s/a.sock", "--store", home + "/store.age", "--audit-dir", home + "/audit"}
}

func outputOf(t *testing.T, cmd *exec.Cmd) (string, int) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if _, ok := err.(*exec.ExitError); !ok { //nolint:errorlint // CombinedOutput wraps nothing
		require.NoError(t, err)
	}
	return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
}
