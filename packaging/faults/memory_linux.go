package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A MemoryLimit is a control group that holds its processes to so much memory.
// It needs root, and a memory controller of version 2 or 1.
type MemoryLimit struct{ dir string }

// NewMemoryLimit makes a group of so many MiB, without swap where the kernel
// counts it.
func NewMemoryLimit(t *testing.T, mib int) *MemoryLimit {
	t.Helper()
	parent, limit, swap := "/sys/fs/cgroup", "memory.max", "memory.swap.max"
	if b, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers")); err != nil || !strings.Contains(string(b), "memory") {
		parent, limit, swap = "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.swappiness"
	}
	l := &MemoryLimit{filepath.Join(parent, fmt.Sprintf("hsagent-faults-%d", os.Getpid()))}
	require.NoError(t, os.Mkdir(l.dir, 0o755)) //nolint:gosec // the kernel's directory
	t.Cleanup(func() { _ = os.Remove(l.dir) }) // empty by then, or the test has failed already
	require.NoError(t, os.WriteFile(filepath.Join(l.dir, limit), []byte(strconv.Itoa(mib<<20)), 0o600))
	_ = os.WriteFile(filepath.Join(l.dir, swap), []byte("0"), 0o600) // not every kernel has it
	return l
}

// Wrap is a command that becomes another one, which is in the group.
func (l *MemoryLimit) Wrap() []string {
	return []string{"sh", "-c", "echo $$ >" + filepath.Join(l.dir, "cgroup.procs") + ` && exec "$0" "$@"`}
}

// Kills is how often the kernel has killed for want of memory in the group.
func (l *MemoryLimit) Kills(t *testing.T) int {
	t.Helper()
	for _, name := range []string{"memory.events", "memory.oom_control"} {
		b, err := os.ReadFile(filepath.Join(l.dir, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
				kills, err := strconv.Atoi(strings.TrimSpace(n))
				require.NoError(t, err)
				return kills
			}
		}
	}
	require.Fail(t, "the kernel does not count what it kills")
	return 0
}
