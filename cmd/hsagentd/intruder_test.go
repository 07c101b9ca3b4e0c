package main_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A second program of the agent's own user gets nothing of its process: neither
// memory nor environment, mappings, descriptors or ptrace. As root the test runs
// the agent as a user of its own, with a program of that user and one of
// another; else both are the user's who runs the test.
func TestThreat14SecondProgramGetsNothing(t *testing.T) {
	type test struct {
		name          string
		agent, second *syscall.Credential // nil: the test's own user
	}
	const agents, users = 65533, 65534
	tests := []test{{"the user's agent and program", nil, nil}}
	if os.Getuid() == 0 {
		tests = []test{
			{"the user's agent and program", as(users), as(users)},
			{"an agent with a uid of its own, a user's program", as(agents), as(users)},
			{"an agent with a uid of its own, a program of that uid", as(agents), as(agents)},
		}
	}
	program := filepath.Join(shortDir(t), "second")
	b, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, b, 0o755))
	for _, dir := range []string{binaries, filepath.Dir(program)} {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			second := func(pid int) []string {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), program)
				cmd.Env = []string{intruder + "=" + strconv.Itoa(pid)}
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: tt.second}
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, string(out))
				lines := strings.Split(strings.TrimSpace(string(out)), "\n")
				require.Len(t, lines, 5, string(out))
				return lines
			}
			s := newSite(t, 1)
			if tt.agent != nil {
				require.NoError(t, filepath.Walk(s.home, func(path string, _ os.FileInfo, err error) error {
					if err != nil {
						return err
					}
					return os.Chown(path, int(tt.agent.Uid), int(tt.agent.Gid))
				}))
			}
			agent := s.command()
			agent.SysProcAttr = &syscall.SysProcAttr{Credential: tt.agent}
			require.NoError(t, agent.Start())
			t.Cleanup(func() {
				_ = agent.Process.Kill()
				_ = agent.Wait() // it was killed
			})
			s.await()
			for _, line := range second(agent.Process.Pid) {
				require.Regexp(t, `: (permission denied|operation not permitted)$`, line)
			}

			// The control: of a program that does not close itself the same
			// user reads all that is not ptrace's.
			open := exec.CommandContext(t.Context(), "sleep", "1000")
			open.SysProcAttr = &syscall.SysProcAttr{Credential: tt.second}
			require.NoError(t, open.Start())
			t.Cleanup(func() {
				_ = open.Process.Kill()
				_ = open.Wait() // it was killed
			})
			require.Subset(t, second(open.Process.Pid), []string{"environ: <nil>", "maps: <nil>", "fd: <nil>"}, "the program is refused everything, whatever it looks at")
		})
	}
}

func as(uid uint32) *syscall.Credential { return &syscall.Credential{Uid: uid, Gid: uid} }

// intruder names the variable that makes of the test's program one that looks
// into the process of that number.
const intruder = "HSAGENT_TEST_INTRUDER"

// intrude tries five ways into a process and says how each went.
func intrude(pid string) int {
	for _, name := range []string{"mem", "environ", "maps"} {
		f, err := os.Open("/proc/" + pid + "/" + name)
		if err == nil && name != "mem" { // where nothing is mapped a read fails anyway
			_, err = io.ReadAll(f)
		}
		fmt.Printf("%s: %v\n", name, err)
	}
	_, err := os.ReadDir("/proc/" + pid + "/fd")
	fmt.Printf("fd: %v\n", err)
	runtime.LockOSThread()
	n, err := strconv.Atoi(pid)
	if err == nil {
		err = syscall.PtraceAttach(n)
	}
	fmt.Printf("ptrace: %v\n", err)
	return 0
}
