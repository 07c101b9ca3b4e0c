package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzConfig: whatever stands in the file, loading ends with a config or with
// an error that has an exit code, never with both or a panic.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{configTemplate, "socket = \"/x\"", "drain_timeout = 10", "upstream = []", "[upstream]\nproxy = \"http://u:p@h:1\"",
		"max_in_flight = 99999999999999999999", "log_level = \"loud\"", "a.b.c = 1", "socket = '''\n", "store = \"/a\"\naudit_dir = \"/a\"", "\xff",
		"[[rule]]\nname = \"r\"\neffect = \"allow\"\nusers = [\"0\"]\nexes = [{path = \"/a\", sha256 = \"x\"}]\npaths = [\"/**\"]",
		"rule = [{name = \"r\", effect = \"deny\"}]", "[[rule]]", "[rule]\nname = \"r\"", "[[rule.a]]\n[[\"rule\"]]"} {
		f.Add(seed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "config.toml")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		flags := newFlags("test")
		require.NoError(t, flags.set.Parse([]string{"--config", path}))
		c, err := loadConfig(&env{getenv: func(string) string { return "" }, uid: os.Getuid()}, flags)
		if err != nil {
			require.Nil(t, c)
			require.Equal(t, exitConfig, exitCode(err))
			return
		}
		require.Empty(t, c.validate())
	})
}

func TestPaths(t *testing.T) {
	tests := []struct {
		name string
		uid  int
		vars map[string]string
		want paths
	}{
		{"root", 0, nil, paths{system: true, config: "/etc/hsagent/config.toml", socket: "/run/hsagent/agent.sock",
			store: "/var/lib/hsagent/store.age", audit: "/var/lib/hsagent/audit",
			protected: "/etc/hsagent/identity.age", plain: "/etc/hsagent/identity.txt"}},
		{"system service", 995, map[string]string{"STATE_DIRECTORY": "/var/lib/hsagent", "CREDENTIALS_DIRECTORY": "/run/c"},
			paths{system: true, config: "/etc/hsagent/config.toml", socket: "/run/hsagent/agent.sock",
				store: "/var/lib/hsagent/store.age", audit: "/var/lib/hsagent/audit", credential: "/run/c/identity", handedKey: "/run/c/audit-key",
				protected: "/etc/hsagent/identity.age", plain: "/etc/hsagent/identity.txt"}},
		{"user", 1000, map[string]string{"HOME": "/home/a", "XDG_DATA_HOME": "relative"},
			paths{config: "/home/a/.config/hsagent/config.toml", socket: "/run/user/1000/hsagent/agent.sock",
				store: "/home/a/.local/share/hsagent/store.age", audit: "/home/a/.local/state/hsagent/audit",
				protected: "/home/a/.config/hsagent/identity.age", plain: "/home/a/.config/hsagent/identity.txt"}},
		{"user with XDG", 1000, map[string]string{"XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r"},
			paths{config: "/c/hsagent/config.toml", socket: "/r/hsagent/agent.sock", store: "/d/hsagent/store.age",
				audit: "/s/hsagent/audit", protected: "/c/hsagent/identity.age", plain: "/c/hsagent/identity.txt"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := defaultPaths(&env{uid: tt.uid, getenv: func(k string) string { return tt.vars[k] }})
			require.Equal(t, tt.want, got)
		})
	}
}
