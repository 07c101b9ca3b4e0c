package credstore

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestLoadRefusesUnsafeFiles(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, path string) error
		want string
	}{
		{"missing", func(_ *testing.T, p string) error { return os.Remove(p) }, "no such file"},
		{"group-writable", func(_ *testing.T, p string) error { return os.Chmod(p, 0o660) }, "run chmod go-w '"},
		{"world-writable", func(_ *testing.T, p string) error { return os.Chmod(p, 0o602) }, "mode 0602"},
		{"directory", func(_ *testing.T, p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }, "not a regular file"},
		{"fifo", func(_ *testing.T, p string) error { return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o600)) }, "not a regular file"},
		{"device", func(_ *testing.T, p string) error { return errors.Join(os.Remove(p), os.Symlink("/dev/zero", p)) }, "not a regular file"},
		{"link to itself", func(_ *testing.T, p string) error { return errors.Join(os.Remove(p), os.Symlink(p, p)) }, "symbolic links"},
		{"empty", func(_ *testing.T, p string) error { return os.Truncate(p, 0) }, "cannot be decrypted"},
		{"too large", func(_ *testing.T, p string) error { return os.Truncate(p, MaxFile+1) }, "more than 16777216 are not taken"},
		{"not age", func(_ *testing.T, p string) error { return os.WriteFile(p, storeOf(good("a", 1)), 0o600) }, "cannot be decrypted"},
		{"another's", func(t *testing.T, p string) error {
			put(t, &File{id: newIdentity(t)}, p, storeOf())
			return nil
		}, "is not encrypted to this agent's identity (age1"},
		{"passphrase of great cost", func(_ *testing.T, p string) error {
			head := "age-encryption.org/v1\n-> scrypt bBjlhJVYZeE4aqUdmtRHfw 30\nkR6Zgk2aZFvz7d7xOAyQBk6tVpPuAiMm2GwxzKrxZ8E\n--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
			return os.WriteFile(p, []byte(head+strings.Repeat("x", 100)), 0o600)
		}, "not encrypted to this agent's identity"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFile(t)
			require.NoError(t, tt.make(t, f.path))
			s, err := f.Load(t.Context())
			require.Nil(t, s)
			require.ErrorContains(t, err, tt.want)
			_, err = f.Update(t.Context(), func(*Edit) error { t.Error("nothing to edit"); return nil })
			require.Error(t, err)
		})
	}
}

// What did not change is not read again; what did is, by whatever byte.
func TestLoadReadsWhatChanged(t *testing.T) {
	f := newFile(t)
	id := f.id
	load := func(plain []byte) *Store {
		put(t, f, f.path, plain)
		got, err := f.Load(t.Context())
		require.NoError(t, err)
		want, err := (&File{path: f.path, id: id}).Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, got, "as if it were read for the first time")
		again, err := f.Load(t.Context())
		require.NoError(t, err)
		require.Same(t, got, again)
		return got
	}
	a, b, c := good("a", 1), good("b", 2), good("c", 3)
	load(storeOf(a, b, c))
	require.Len(t, load(storeOf(c, a)).Entries, 2, "one has gone")
	require.Len(t, load(storeOf(a, good("b", 4), c)).Entries, 3, "and comes back with another token")
	require.Len(t, load(storeOf(a, strings.ReplaceAll(b, "000000000002", "000000000005"), c)).Entries, 3)
	require.Len(t, load(storeOf(a, good("b", 3), c)).Rejected, 2, "two claim a token")
	require.Len(t, load(storeOf(a, b, c)).Entries, 3)
	require.Len(t, load(storeOf(a, b, b, c)).Rejected, 1, "one stands twice")
	require.Len(t, load(storeOf(a, b, c)).Entries, 3)
	require.Len(t, load(storeOf(a, strings.Replace(b, `"b":`, `"c":`, 1), c)).Rejected, 1)
	require.Len(t, load(storeOf(a, strings.Replace(b, `"portalId": 2`, `"portalId": 1`, 1), c)).Rejected, 2)
	require.Equal(t, "UTC", load(storeOf(a, good("b", 2, `"timeZone": "UTC"`), c)).Entries[1].TimeZone)

	// An update that is not written leaves no trace.
	_, err := f.Update(t.Context(), func(e *Edit) error {
		require.True(t, e.Remove(slug(t, "a")))
		return errors.New("no")
	})
	require.Error(t, err)
	require.Len(t, load(storeOf(a, b, c)).Entries, 3)
	next, err := f.Update(t.Context(), func(e *Edit) error {
		e.Remove(slug(t, "a"))
		return nil
	})
	require.NoError(t, err)
	got, err := f.Load(t.Context())
	require.NoError(t, err)
	require.Same(t, next, got)
}

// ownedBy is a file of another user.
type ownedBy struct {
	fs.FileInfo
	uid uint32
}

func (o ownedBy) Sys() any { return &syscall.Stat_t{Uid: o.uid} }

func TestOwner(t *testing.T) {
	path := newFile(t).path
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, checkSafe(path, info))
	require.NoError(t, checkSafe(path, ownedBy{info, 0}), "root's is as good as ours")
	require.ErrorContains(t, checkSafe(path, ownedBy{info, 4242}), "belongs to uid 4242")
}

// 2,000 damaged files: each is refused whole or, where the damage is in JSON
// that stays valid, read as a valid store; nothing panics.
func TestThreat37(t *testing.T) {
	f := newFile(t)
	rnd := rand.New(rand.NewPCG(37, 2))
	plain := storeOf(good("acme-corp", 1), good("beta-inc", 2), good("gamma-gmbh", 3))
	whole, err := encrypt(plain, f.id.recipient)
	require.NoError(t, err)
	mutate := func(b []byte) []byte {
		b = append([]byte(nil), b...)
		switch i := rnd.IntN(len(b)); rnd.IntN(4) {
		case 0:
			b[i] ^= 1 << rnd.IntN(8)
		case 1:
			b = b[:i]
		case 2:
			b = append(b[:i:i], b[min(len(b), i+1+rnd.IntN(8)):]...)
		default:
			b = append(append(b[:i:i], byte(rnd.Uint32())), b[i:]...)
		}
		return b
	}
	for i := range 2000 {
		damaged, inside := mutate(whole), i%2 == 1
		if inside {
			damaged, err = encrypt(mutate(plain), f.id.recipient)
			require.NoError(t, err)
		}
		require.NoError(t, os.WriteFile(f.path, damaged, 0o600))
		s, err := f.Load(t.Context())
		if err != nil {
			require.Nil(t, s)
			require.NotContains(t, err.Error(), "4000")
			continue
		}
		require.True(t, inside, "a damaged age file was taken (%d)", i)
		for _, e := range s.Entries {
			require.NoError(t, e.check())
		}
	}
}

// A store that grows in small steps is never taken before it is whole.
func TestThreat40(t *testing.T) {
	f := newFile(t)
	whole, err := encrypt(storeOf(good("acme-corp", 1)), f.id.recipient)
	require.NoError(t, err)
	w, err := os.OpenFile(f.path, os.O_WRONLY|os.O_TRUNC, 0o600)
	require.NoError(t, err)
	for i := range whole {
		s, err := f.Load(t.Context())
		require.Error(t, err, "taken at byte %d of %d", i, len(whole))
		require.Nil(t, s)
		_, err = w.Write(whole[i : i+1])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	s, err := f.Load(t.Context())
	require.NoError(t, err)
	require.Len(t, s.Entries, 1)
}

// A file that never stands still is not read, and that is said.
func TestThreat40RestlessFile(t *testing.T) {
	f := newFile(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			now := time.Now()
			_ = os.Chtimes(f.path, now, now) // the reader's error is what counts
		}
	})
	defer wg.Wait()
	defer cancel()
	require.Eventually(t, func() bool {
		_, err := f.Load(t.Context())
		return errors.Is(err, errUnstable)
	}, 30*time.Second, time.Millisecond)
}

func TestRecipients(t *testing.T) {
	other := newIdentity(t)
	hybrid, err := GenerateIdentity(filepath.Join(t.TempDir(), "pq.txt"), nil, true)
	require.NoError(t, err)
	id := newIdentity(t)
	path := filepath.Join(t.TempDir(), "store.age")
	require.ErrorContains(t, Create(t.Context(), path, id, []string{hybrid.Recipient()}), "cannot be mixed")
	require.ErrorContains(t, Create(t.Context(), path, id, []string{"age1yubikey1qwerty"}), "plug-ins are not taken")
	require.ErrorContains(t, Create(t.Context(), path, id, []string{"AGE-SECRET-KEY-1QQ"}), "is a private key")
	require.NoFileExists(t, path)

	require.NoError(t, Create(t.Context(), path, id, []string{other.Recipient()}))
	f := Open(path, id)
	add := func(s string, n int) error {
		_, err := f.Update(t.Context(), func(e *Edit) error { return e.Put(entryOf(t, s, n)) })
		return err
	}
	require.NoError(t, add("acme-corp", 1))
	s, err := Open(path, other).Load(t.Context())
	require.NoError(t, err, "the other reads later versions too")
	require.Len(t, s.Entries, 1)

	require.NoError(t, os.Chmod(path+".recipients", 0o666))
	require.ErrorContains(t, add("beta", 2), "others may write it")
	require.NoError(t, os.Remove(path+".recipients"))
	require.ErrorContains(t, add("beta", 2), "encrypted to 2 recipients")
	require.NoError(t, os.WriteFile(path+".recipients", []byte("# nobody else\n"), 0o600))
	require.NoError(t, add("beta", 2))
	_, err = Open(path, other).Load(t.Context())
	require.ErrorContains(t, err, "not encrypted to this agent's identity")
}

func TestNoPlaintextOnDisk(t *testing.T) {
	f := newFile(t)
	var seen int
	f.hooks.beforeRename = func() {
		require.NoError(t, filepath.WalkDir(filepath.Dir(f.path), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(p)
			require.NotContains(t, string(b), "4000")
			seen++
			return err
		}))
	}
	_, err := f.Update(t.Context(), func(e *Edit) error { return e.Put(entryOf(t, "acme-corp", 1)) })
	require.NoError(t, err)
	require.Equal(t, 3, seen, "the store, its lock and the temporary file")
}

func TestEncryptedStoreIsPlainAge(t *testing.T) {
	f := newFile(t)
	file, err := os.Open(f.path)
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	r, err := age.Decrypt(file, f.id.ids...)
	require.NoError(t, err)
	var v map[string]any
	require.NoError(t, json.NewDecoder(r).Decode(&v))
	require.Equal(t, float64(1), v["version"])
}
