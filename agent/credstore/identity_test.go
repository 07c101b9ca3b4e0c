package credstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/stretchr/testify/require"
)

// cheapScrypt makes passphrases cost next to nothing in this test.
func cheapScrypt(t *testing.T) {
	t.Helper()
	scryptWorkFactor = 4
	t.Cleanup(func() { scryptWorkFactor = workFactor })
}

func TestIdentityRoundTrip(t *testing.T) {
	cheapScrypt(t)
	tests := []struct {
		name   string
		pass   []byte
		pq     bool
		prefix string
	}{
		{"classic", nil, false, "age1"},
		{"classic with passphrase", []byte("open sesame"), false, "age1"},
		{"post-quantum", nil, true, "age1pq1"},
		{"post-quantum with passphrase", []byte("open sesame\n"), true, "age1pq1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "identity")
			id, err := GenerateIdentity(path, tt.pass, tt.pq)
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(id.Recipient(), tt.prefix))
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, fs.FileMode(0o600), info.Mode())
			_, err = GenerateIdentity(path, tt.pass, tt.pq)
			require.ErrorIs(t, err, fs.ErrExist)

			needs, err := NeedsPassphrase(path)
			require.NoError(t, err)
			require.Equal(t, tt.pass != nil, needs)
			typed := []byte("open sesame\n")
			asked := 0
			again, err := LoadIdentity(path, func() ([]byte, error) { asked++; return typed, nil })
			require.NoError(t, err)
			require.Equal(t, id.Recipient(), again.Recipient())
			if needs {
				require.Equal(t, 1, asked)
				require.Equal(t, make([]byte, len(typed)), typed, "the passphrase is cleared")
				for _, wrong := range []string{"open sesam", "", "\n"} {
					_, err = LoadIdentity(path, func() ([]byte, error) { return []byte(wrong), nil })
					require.ErrorIs(t, err, ErrPassphrase)
				}
				_, err = LoadIdentity(path, nil)
				require.ErrorIs(t, err, ErrPassphrase)
				gone := errors.New("nobody at the terminal")
				_, err = LoadIdentity(path, func() ([]byte, error) { return nil, gone })
				require.ErrorIs(t, err, gone)
			} else {
				require.Zero(t, asked)
			}

			store := filepath.Join(dir, "store.age")
			require.NoError(t, Create(t.Context(), store, id, nil))
			f := Open(store, again)
			_, err = f.Update(t.Context(), func(e *Edit) error { return e.Put(entryOf(t, "acme-corp", 1)) })
			require.NoError(t, err)
			s, err := Open(store, id).Load(t.Context())
			require.NoError(t, err)
			require.Len(t, s.Entries, 1)
		})
	}
}

func TestIdentityArmored(t *testing.T) {
	cheapScrypt(t)
	path := filepath.Join(t.TempDir(), "identity.age")
	id, err := GenerateIdentity(path, []byte("open sesame"), false)
	require.NoError(t, err)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var out strings.Builder
	w := armor.NewWriter(&out)
	_, err = w.Write(b)
	require.NoError(t, errors.Join(err, w.Close()))
	require.NoError(t, os.WriteFile(path, []byte(out.String()), 0o600))
	again, err := LoadIdentity(path, func() ([]byte, error) { return []byte("open sesame"), nil })
	require.NoError(t, err)
	require.Equal(t, id.Recipient(), again.Recipient())
}

// An old identity may follow the new one: it reads, the new one writes.
func TestIdentitySeveral(t *testing.T) {
	dir := t.TempDir()
	old, err := GenerateIdentity(filepath.Join(dir, "old"), nil, false)
	require.NoError(t, err)
	_, err = GenerateIdentity(filepath.Join(dir, "new"), nil, true)
	require.NoError(t, err)
	store := filepath.Join(dir, "store.age")
	require.NoError(t, Create(t.Context(), store, old, nil))
	a, err := os.ReadFile(filepath.Join(dir, "new"))
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(dir, "old"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "both"), append(a, b...), 0o600))
	both, err := LoadIdentity(filepath.Join(dir, "both"), nil)
	require.NoError(t, err)
	_, err = Open(store, both).Update(t.Context(), func(e *Edit) error { return e.Put(entryOf(t, "acme-corp", 1)) })
	require.NoError(t, err)
	_, err = Open(store, old).Load(t.Context())
	require.ErrorContains(t, err, "not encrypted to this agent's identity")
}

func TestThreat33PluginIdentityRefused(t *testing.T) {
	for _, text := range []string{"AGE-PLUGIN-YUBIKEY-1QQQQ\n", "# key\n  age-plugin-tpm-1qqqq\n"} {
		path := filepath.Join(t.TempDir(), "identity")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := LoadIdentity(path, nil)
		require.ErrorContains(t, err, "runs no other programs")
	}
}

func TestLoadIdentityRefuses(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	sealed, err := encrypt([]byte(key.String()), key.Recipient())
	require.NoError(t, err)
	costly := "age-encryption.org/v1\n-> scrypt bBjlhJVYZeE4aqUdmtRHfw 30\nkR6Zgk2aZFvz7d7xOAyQBk6tVpPuAiMm2GwxzKrxZ8E\n--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n0123456789abcdef"
	tests := []struct {
		name, text string
		mode       fs.FileMode
		want       string
	}{
		{"group-readable", key.String(), 0o640, "run chmod 600 '"},
		{"world-readable", key.String(), 0o604, "others may read it"},
		{"world-writable", key.String(), 0o602, "others may write it"},
		{"empty", "", 0o600, "no identity"},
		{"comments only", "# nothing\n", 0o600, "no identity"},
		{"a recipient", key.Recipient().String(), 0o600, "no identity"},
		{"an SSH key", "-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o600, "no identity"},
		{"cut key", key.String()[:40], 0o600, "no identity"},
		{"encrypted to a key", string(sealed), 0o600, "not protected with a passphrase"},
		{"cost beyond reason", costly, 0o600, "work factor too large"},
		{"too large", strings.Repeat("#", maxIdentity+1), 0o600, "are not taken"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "identity")
			require.NoError(t, os.WriteFile(path, []byte(tt.text), 0o600))
			require.NoError(t, os.Chmod(path, tt.mode))
			id, err := LoadIdentity(path, func() ([]byte, error) { return []byte("open sesame"), nil })
			require.Nil(t, id)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "AGE-SECRET-KEY-1")
		})
	}
	_, err = LoadIdentity(filepath.Join(t.TempDir(), "none"), nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = GenerateIdentity(filepath.Join(t.TempDir(), "id"), []byte{}, false)
	require.ErrorContains(t, err, "passphrase is empty")
}

func TestIdentityShowsNoSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity")
	id, err := GenerateIdentity(path, nil, false)
	require.NoError(t, err)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		require.Equal(t, "identity of "+id.Recipient(), fmt.Sprintf(verb, id))
	}
	_, err = id.MarshalText()
	require.Error(t, err)
}
