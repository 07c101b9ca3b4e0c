package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the expected output in the scripts")

func TestMain(m *testing.M) {
	// Under -race every process sleeps a second at its end unless told not to.
	if os.Getenv("GORACE") == "" {
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // without it the tests are slow, no more
	}
	testscript.Main(m, map[string]func(){"hsctl": main, "sdk": sdk})
}

// TestScripts runs hsctl as a process of its own, each script against a fake
// agent of its own.
func TestScripts(t *testing.T) {
	type key struct{}
	agentOf := func(ts *testscript.TestScript) *fakeAgent { return ts.Value(key{}).(*fakeAgent) }
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			a := newFakeAgent(env.T().(testing.TB))
			env.Values[key{}] = a
			env.Setenv("HSAGENT_SOCK", a.socket)
			env.Setenv("TOKEN", madeUpToken)
			env.Setenv("GORACE", os.Getenv("GORACE"))
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("no condition %q", cond)
			}
			return os.Getuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// exits CODE COMMAND…: the command ends with just this exit code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got := 0
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					var exit *exec.ExitError
					if !errors.As(err, &exit) {
						ts.Fatalf("%v", err)
					}
					got = exit.ExitCode()
				}
				if got != want {
					ts.Fatalf("exit code %d, want %d", got, want)
				}
			},
			// agent damaged|large|hostile|healthy|locked: make the fake agent so.
			"agent": func(ts *testscript.TestScript, _ bool, args []string) {
				a := agentOf(ts)
				a.set(func() {
					a.damaged = a.damaged || args[0] == "damaged"
					a.large = a.large || args[0] == "large"
					a.hostile = a.hostile || args[0] == "hostile"
					a.healthy = a.healthy || args[0] == "healthy"
					a.locked = a.locked || args[0] == "locked"
				})
			},
			// received TEXT: the agent got a request to change something with TEXT in it.
			"received": func(ts *testscript.TestScript, neg bool, args []string) {
				a := agentOf(ts)
				var all string
				a.set(func() {
					puts, err := json.Marshal(a.puts)
					ts.Check(err)
					all = strings.Join(a.posts, "\n") + "\n" + string(puts)
				})
				if strings.Contains(all, args[0]) == neg {
					ts.Fatalf("received:\n%s", all)
				}
			},
		},
	})
}
