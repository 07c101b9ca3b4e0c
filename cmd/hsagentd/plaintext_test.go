package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/wire"
)

// Onboarding and rotating leaves no token and no passphrase in any file, not
// even a temporary one that was removed too late.
func TestThreat56NothingPlainIsLeft(t *testing.T) {
	s := newSite(t, 2)
	tmp := shortDir(t)
	s.wrap = []string{"env", "TMPDIR=" + tmp}
	cmd := s.start()
	slug, err := wire.ParseSlug("newcomer")
	require.NoError(t, err)
	first, second := sandbox.NewToken("na1"), sandbox.NewToken("na1")
	require.NoError(t, s.hub.AddPortal(sandbox.Portal{ID: 4242, Slug: "newcomer", Token: first}))
	_, err = s.client.Onboard(t.Context(), slug, first, 4242, "", false)
	require.NoError(t, err)
	require.NoError(t, s.hub.AddToken(4242, second))
	csv := s.path("new.csv")
	require.NoError(t, os.WriteFile(csv, []byte("newcomer,"+second.Reveal()+",4242\n"), 0o600))
	out, err := hsctl(s, tmp, "rotate", "--csv", csv).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.Remove(csv))
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait())
	for _, token := range []wire.Token{first, second} {
		for _, dir := range []string{s.home, tmp} {
			require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
				if err != nil || !e.Type().IsRegular() {
					return err
				}
				b, err := os.ReadFile(path)
				require.False(t, bytes.Contains(b, []byte(token.Reveal()[8:])), "%s has a token in it", path)
				return err
			}))
		}
		require.NotContains(t, string(out), token.Reveal())
	}
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left, "temporary files are left")
}

func hsctl(s *site, tmp string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(binaries, "hsctl"), append([]string{"--socket", s.path("s/a.sock")}, args...)...)
	cmd.Env = []string{"HOME=" + s.home, "TMPDIR=" + tmp, "PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader("")
	return cmd
}
