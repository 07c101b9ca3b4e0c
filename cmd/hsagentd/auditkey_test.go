package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Where the identity comes from a place that cannot be written, the log still
// gets a key, and finds it again.
func TestKeyBesideStore(t *testing.T) {
	dir := t.TempDir()
	credential := filepath.Join(dir, "credentials", "identity")
	require.NoError(t, os.MkdirAll(filepath.Dir(credential), 0o700))
	require.NoError(t, os.WriteFile(credential, nil, 0o600))
	c := &config{Store: filepath.Join(dir, "store.age"), paths: paths{
		credential: credential, handedKey: filepath.Join(filepath.Dir(credential), "audit-key"), plain: filepath.Join(dir, "nowhere", "identity.txt"),
	}}
	load := c.loadKeys(slog.New(slog.DiscardHandler))
	made, err := load("")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "audit.key"), c.findKey())
	again, err := load("")
	require.NoError(t, err)
	require.Equal(t, made.Verifiers(), again.Verifiers())

	// systemd's goes before it, and a configured place is the only one.
	require.NoError(t, os.WriteFile(c.paths.handedKey, []byte(made[0].Secret()), 0o400))
	require.Equal(t, c.paths.handedKey, c.findKey())
	c.Audit.Key = filepath.Join(dir, "nowhere", "audit.key")
	_, err = load("")
	require.ErrorContains(t, err, "audit.key")
}
