package main_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Two builds in different folders give the same bytes.
func TestThreat63ReproducibleBuild(t *testing.T) {
	var sums []string
	for range 2 {
		dir := filepath.Join(t.TempDir(), "source")
		copySource(t, "../..", dir)
		cmd := exec.Command("make", "build", "VERSION=v0.0.0-test")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		for _, name := range []string{"hsagentd", "hsctl"} {
			b, err := os.ReadFile(filepath.Join(dir, "bin", name))
			require.NoError(t, err)
			require.NotContains(t, string(b), dir, "a path of the build is in %s", name)
			sums = append(sums, fmt.Sprintf("%s %x", name, sha256.Sum256(b)))
		}
	}
	require.Equal(t, sums[:2], sums[2:])
}

// copySource copies what a build reads.
func copySource(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if rel == ".git" || rel == "bin" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		if !e.Type().IsRegular() || rel == ".git" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	}))
}
