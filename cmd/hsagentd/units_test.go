package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const packaging = "../../packaging"

// directives reads a unit file: the values of each key, in their order.
func directives(t *testing.T, file string) map[string][]string {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	all := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			all[key] = append(all[key], value)
		}
	}
	return all
}

func TestUnits(t *testing.T) {
	both := map[string]string{
		"Type": "notify", "ExecReload": "/bin/kill -HUP $MAINPID", "UMask": "0077", "NoNewPrivileges": "yes",
		"LimitCORE": "0", "MemorySwapMax": "0", "KeyringMode": "private", "LimitNOFILE": "524288",
		"MemoryDenyWriteExecute": "yes", "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
		"SystemCallArchitectures": "native", "RestrictSUIDSGID": "yes", "LockPersonality": "yes",
		"RestartPreventExitStatus": "2 78", "WatchdogSec": "60s", "WatchdogSignal": "SIGKILL",
	}
	system := map[string]string{
		"User":           "hsagent",
		"StateDirectory": "hsagent", "StateDirectoryMode": "0700",
		"ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes",
		"CapabilityBoundingSet": "", "AmbientCapabilities": "", "RestrictNamespaces": "yes",
		"ProtectKernelTunables": "yes", "ProtectControlGroups": "yes",
	}
	for _, kind := range []string{"system", "user"} {
		unit := directives(t, filepath.Join(packaging, "systemd", kind, "hsagentd.service"))
		for key, value := range both {
			require.Equal(t, []string{value}, unit[key], "%s: %s", kind, key)
		}
		if kind == "system" {
			for key, value := range system {
				require.Equal(t, []string{value}, unit[key], key)
			}
			require.Equal(t, []string{"identity:/etc/hsagent/identity.txt", "audit-key:/etc/hsagent/audit.key"}, unit["LoadCredential"])
		}
		require.Equal(t, "@system-service", unit["SystemCallFilter"][0])
		// Callers' names come from /proc, and 252 knows no notify-reload.
		require.NotContains(t, unit, "ProtectProc")
		require.NotContains(t, unit, "PrivateUsers")
		socket := directives(t, filepath.Join(packaging, "systemd", kind, "hsagentd.socket"))
		require.Equal(t, []string{"api"}, socket["FileDescriptorName"])
	}
	require.Equal(t, []string{"/run/hsagent/agent.sock"}, directives(t, filepath.Join(packaging, "systemd/system/hsagentd.socket"))["ListenStream"])
}

// TestUnitsAnalyzed asks systemd itself, offline.
func TestUnitsAnalyzed(t *testing.T) {
	dir := shortDir(t)
	var files []string
	for _, name := range []string{"hsagentd.service", "hsagentd.socket"} {
		b, err := os.ReadFile(filepath.Join(packaging, "systemd/system", name))
		require.NoError(t, err)
		// The binary need not be installed for the unit to be right.
		text := strings.ReplaceAll(string(b), "/usr/bin/hsagentd", binaries+"/hsagentd")
		files = append(files, filepath.Join(dir, name))
		require.NoError(t, os.WriteFile(files[len(files)-1], []byte(text), 0o600))
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", append([]string{"verify", "--man=no", "--recursive-errors=no"}, files...)...).CombinedOutput()
	require.NoError(t, err, string(out))
	require.NotContains(t, string(out), "hsagentd", "a warning")
	out, err = exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--threshold=25", files[0]).CombinedOutput()
	require.NoError(t, err, string(out))
}
