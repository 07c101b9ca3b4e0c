package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var accounts = regexp.MustCompile(`(?m)^((?:socket|admin)_group|users|groups)( *= *\[?)"[^"]+"`)

// The configs that the documentation shows are taken as they stand there, but
// for users and groups, which this machine need not have.
func TestConfigExamples(t *testing.T) {
	var rules strings.Builder
	for line := range strings.Lines(read(t, "policy.md")) {
		code, ok := strings.CutPrefix(line, "    ")
		if strings.HasPrefix(line, "##") {
			break
		}
		if ok {
			rules.WriteString(code)
		}
	}
	_, after, _ := strings.Cut(read(t, "../packaging/man/hsagentd.toml.5"), ".Sh EXAMPLES\n.Bd -literal\n")
	manual, _, _ := strings.Cut(after, ".Ed\n")
	tests := []struct {
		name, text string
	}{
		{"policy.md", rules.String()},
		{"hsagentd.toml.5", manual},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.Contains(t, tt.text, "[[rule]]")
			config := filepath.Join(t.TempDir(), "config.toml")
			require.NoError(t, os.WriteFile(config, []byte(accounts.ReplaceAllString(tt.text, `$1$2"0"`)), 0o600))
			out, err := exec.Command(filepath.Join(programs, "hsagentd"), "check", "--config", config).CombinedOutput()
			require.Error(t, err, "there is no identity")
			require.Contains(t, string(out), "ok       config    "+config)
		})
	}
}
