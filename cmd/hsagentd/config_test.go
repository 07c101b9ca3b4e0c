package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
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

// What has a unit and is written without one: the text says where, and what to
// write.
func TestConfigWithoutUnits(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a number", "drain_timeout = 10", `:1: drain_timeout: "10" is no duration: write it as "10s" or "1m30s"`},
		{"the second of two keys with one value", "max_in_flight = 10\n\n# so\n lock_after = 10 # or so\nconfirm_timeout = 10", `:4: lock_after: "10" is no duration`},
		{"a fraction", "log_level = \"info\"\nconfirm_timeout = 1.5\n", `:2: confirm_timeout: "1.5" is no duration`},
		{"a truth", "lock_after = true", `:1: lock_after: "true" is no duration`},
		{"a text", "drain_timeout = \"10\"", `:1:17: drain_timeout: "10" is no duration`},
		{"in a table", "[[consumer]]\nname = \"a\"\n\n[audit]\nretention = 400\n[quota]\nwarn_below = 400", `:5: audit.retention: "400" is no age: write it as "400d"`},
		{"with a dotted key", "audit.retention = 400", `:1: audit.retention: "400" is no age`},
		{"a size", "[upstream]\nmax_request_bytes = 1.5", `:2: upstream.max_request_bytes: "1.5" is no size`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, err := configOf(t, tt.text, nil)
			require.ErrorContains(t, err, path+tt.want)
			require.Equal(t, exitConfig, exitCode(err))
		})
	}
}

// Configs that cannot be, by the cross product of keys and values: each ends
// with 78 and a text of a few short lines that names the file, and shows
// neither control bytes nor a password.
func TestBadConfigs(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	bad := map[string][]string{}
	for _, key := range []string{"socket", "socket_readonly", "store", "identity", "audit_dir", "upstream.ca_file", "audit.key", "audit.checkpoint_sink"} {
		bad[key] = []string{`"relative"`, `"./a"`, `"~/a"`, `"/"`, `"/a/../.."`, `"/a\u0000b"`, `"a\u001b[2J"`, `"\u202ea"`, `"` + long + `"`, "7", "true", "[]", "{}", `["/a"]`, "1979-05-27"}
	}
	for _, key := range []string{"socket", "socket_readonly"} {
		bad[key] = append(bad[key], `"@hsagent"`, `"@"`, `"/`+strings.Repeat("s", 107)+`"`, `"/`+long+`"`, `"/tmp/\u001b]52;c;x\u0007/"`)
	}
	for _, key := range []string{"drain_timeout", "confirm_timeout"} {
		bad[key] = []string{`"-1s"`, `"0s"`, `"0"`, `"10"`, `""`, `"10 s"`, `"1d"`, `"9999999h"`, `"99999999999999999999h"`, `"ten\u001b[2J"`, `"` + long + `"`, "10", "-1", "0.5", "true", "[]", "{Duration = 5000000000}", "inf", "nan"}
	}
	bad["lock_after"] = []string{`"-1s"`, `"1ns"`, `"999ms"`, `"9999999h"`, `"never"`, "10", "[]"}
	bad["max_in_flight"] = []string{"0", "-1", "1000000000", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1e3", "1.5", `"10"`, "true", "[]", "{}", "inf"}
	bad["quota.warn_below"] = []string{"-1", "-9223372036854775808", "9223372036854775808", "0.1", `"5"`, "[]", "false"}
	bad["upstream.max_request_bytes"] = []string{"0", "-1", `"0"`, `"-1KiB"`, `"1TiB"`, `"2GB"`, `"9999999999GiB"`, `"9223372036854775807"`, `"9223372036854775808KiB"`, `"1 KiB KiB"`, `""`, "1.5", "[]", "{}", `"\u001b[2J"`}
	bad["upstream.base_url"] = []string{`"http://api.hubapi.com"`, `"https://api.hubapi.com/x"`, `"https://api.hubapi.com?x"`, `"https://u:hunter2@api.hubapi.com"`, `"ftp://api.hubapi.com"`,
		`"api.hubapi.com"`, `"//api.hubapi.com"`, `"https://"`, `"https://api.hubapi.com:99999"`, `"https://api.hubapi.com\u0000"`, `"https://\u001b[2J"`, `"https://[::1"`, `"%"`, "7", "[]"}
	bad["upstream.proxy"] = []string{`"socks5://127.0.0.1:1"`, `"ftp://u:hunter2@127.0.0.1"`, `"127.0.0.1:3128"`, `"http://"`, `"http://u:hunter2@"`, `"http://u:hunter2@[::1"`, `"http://\u001b[2J"`, `"://u:hunter2@h"`, `"http://u:hunter2@h:port"`, "7", "[]"}
	bad["audit.retention"] = []string{`"-1d"`, `"1h"`, `"23h"`, `"d"`, `"1.5d"`, `"99999d"`, `"400 d"`, `"1y"`, "400", "[]"}
	bad["audit.legal_hold"] = []string{`["Acme"]`, `[""]`, `["a b"]`, `["a\u001b[2J"]`, `["*"]`, `["` + long + `"]`, `"acme"`, "[1]", "{}", `["` + madeUpToken + `"]`}
	bad["log_level"] = []string{`"loud"`, `"DEBUG"`, `""`, `"info+1"`, `"\u001b[2J"`, `"` + long + `"`, "0", "-4", "[]"}
	bad["log_format"] = []string{`"xml"`, `"JSON"`, `" json"`, `"\u001b[2J"`, `"` + long + `"`, "0", "[]", "true"}
	for _, key := range []string{"token", "passphrase", "upstream.token", "upstream.insecure", "Socket", "SOCKET", "socket ", "a.b.c", "hapikey", `"\u001b[2J"`, "audit", "upstream", "consumer", "rule"} {
		bad[key] = append(bad[key], `"x"`, "7", "[7]", `"`+madeUpToken+`"`, `"`+long+`"`)
	}
	bad["x"] = []string{strings.Repeat("[", 20_000), strings.Repeat("[", 2000) + strings.Repeat("]", 2000), strings.Repeat("{a=", 2000), `"`, `"""`, "\x00", "\xff", "", "=", "1\nx = 1", "<<: *a", "&a [*a, *a]", "'\n'", "\"\\q\"", "0x", "\ufeff"}

	n := 0
	for key, values := range bad {
		for _, value := range values {
			n++
			text := key + " = " + value + "\n"
			path, err := configOf(t, text, nil)
			if !assert.Error(t, err, "%.200q", text) {
				continue
			}
			assert.Equal(t, exitConfig, exitCode(err), "%.200q", text)
			for line := range strings.Lines(err.Error()) {
				line = strings.TrimSuffix(line, "\n")
				assert.Equal(t, wire.Printable(line), line, "%.200q", text)
				assert.Less(t, len(line), len(path)+500, "%.200q", text)
				assert.Contains(t, line, path, "%.200q", text)
			}
			assert.NotContains(t, err.Error(), "hunter2", text)
			assert.NotContains(t, wire.MaskTokens(err.Error()), "0000-4000", text) // as stderr masks it
			if testing.Verbose() {
				t.Logf("%.60q: %s", text, strings.ReplaceAll(err.Error(), path, "FILE"))
			}
		}
	}
	require.GreaterOrEqual(t, n, 250)
}

// Two things in one place, by every pair of paths.
func TestBadConfigPairs(t *testing.T) {
	keys := []string{"socket", "socket_readonly", "store", "identity", "audit_dir", "audit.key", "audit.checkpoint_sink"}
	for i, a := range keys {
		for _, b := range keys[i+1:] {
			_, err := configOf(t, fmt.Sprintf("%s = %q\n%s = %q\n", a, "/srv/x", b, "/srv//x"), nil)
			require.Error(t, err, "%s %s", a, b)
			require.Equal(t, exitConfig, exitCode(err))
			require.ErrorContains(t, err, " already")
		}
	}
}

// A variable of the environment that is wrong is the caller's mistake, and no
// other variable changes what is set.
func TestBadEnvironment(t *testing.T) {
	for _, v := range []string{"relative", "@x", "/", "/a\x00b", "\x1b[2J", "/" + strings.Repeat("s", 200)} {
		_, err := configOf(t, "", map[string]string{"HSAGENT_SOCK": v})
		require.Error(t, err, "%q", v)
		require.Equal(t, exitUsage, exitCode(err), "%q", v)
		require.Equal(t, wire.Printable(err.Error()), err.Error())
		require.ErrorContains(t, err, "HSAGENT_SOCK: ")
	}
	_, err := configOf(t, "", map[string]string{"HTTPS_PROXY": "http://u:p@h:1", "HSAGENT_TOKEN": madeUpToken, "HSAGENT_UPSTREAM": "http://x", "HSAGENT_STORE": "y", "HSAGENT_IDENTITY": "z"})
	require.NoError(t, err)
}

// configOf loads a config of the text.
func configOf(t *testing.T, text string, vars map[string]string) (path string, err error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "config.toml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	flags := newFlags("test")
	require.NoError(t, flags.set.Parse([]string{"--config", path}))
	c, err := loadConfig(&env{getenv: func(k string) string { return vars[k] }, uid: os.Getuid()}, flags)
	if err != nil {
		require.Nil(t, c)
	}
	return path, err
}

// The decoder takes a key in capitals for ours. Such a key must not replace
// one that is spelled as it should be, and with it a restriction.
func TestThreat34KeysInCapitals(t *testing.T) {
	const rule = "[[rule]]\nname = \"r\"\neffect = \"deny\"\nportals = [\"acme-*\"]\n"
	_, err := configOf(t, rule, nil)
	require.NoError(t, err)
	for _, tt := range []struct {
		text string
		line int
		key  string
	}{
		{rule + "[[Rule]]\nname = \"a\"\neffect = \"allow\"\nportals = [\"*\"]\n", 5, "Rule"},
		{rule + "Effect = \"allow\"\n", 5, "Effect"},
		{rule + "\"PORTALS\" = [\"*\"]\n", 5, "PORTALS"},
		{rule + "exes = [\n{ path = \"/bin/sh\", Path = \"/none\" }]\n", 6, "Path"},
		{"Socket = \"/run/x\"\n" + rule, 1, "Socket"},
		{"UPSTREAM.proxy = \"http://h:1\"\n" + rule, 1, "UPSTREAM"},
		{"soc\u212aet = \"/run/x\"\n", 1, ""}, // no TOML without quotes
		{"\"soc\u212aet\" = \"/run/x\"\n", 1, "soc\u212aet"},
	} {
		path, err := configOf(t, tt.text, nil)
		require.ErrorContains(t, err, fmt.Sprintf("%s:%d:", path, tt.line), tt.text)
		if tt.key != "" {
			require.ErrorContains(t, err, "unknown key "+wire.Quote(tt.key), tt.text)
		}
	}
}

// The kernel names a program by where it is, not by the link it was run by.
func TestRulesFollowLinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o700))
	require.NoError(t, os.Symlink("usr/bin", filepath.Join(dir, "bin")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "usr/bin/tool3"), nil, 0o600))
	require.NoError(t, os.Symlink("tool3", filepath.Join(dir, "usr/bin/tool")))
	for pattern, want := range map[string]string{
		"/bin/tool": "/usr/bin/tool3", "/bin/tool*": "/usr/bin/tool*", "/bin/**": "/usr/bin/**", "/*/tool": "/*/tool",
		"/usr/bin/tool3": "/usr/bin/tool3", "/bin/missing": "/usr/bin/missing", "/none/at/all": "/none/at/all",
	} {
		require.Equal(t, dir+want, followLinks(dir+pattern), pattern)
	}
	for _, pattern := range []string{"/**", "/*"} {
		require.Equal(t, pattern, followLinks(pattern))
	}
}
