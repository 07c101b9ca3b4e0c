package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDeps keeps all code that handles secrets or the store of records out of
// hsctl: it talks to the agent, it does not do the agent's work.
func TestDeps(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	banned := []string{
		"github.com/dgraph-io/", "github.com/fsnotify/", "filippo.io/age", "github.com/coreos/go-systemd",
		"github.com/hsagent/hsagentd/agent",
	}
	seen := 0
	for dep := range strings.FieldsSeq(string(out)) {
		seen++
		for _, prefix := range banned {
			require.False(t, strings.HasPrefix(dep, prefix), "hsctl imports %s", dep)
		}
		require.NotEqual(t, "github.com/hsagent/hsagentd/auditstore", dep)
	}
	require.Greater(t, seen, 50)
}
