package credstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/hsagent/hsagentd/wire"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func newIdentity(t testing.TB) *Identity {
	t.Helper()
	id, err := GenerateIdentity(filepath.Join(t.TempDir(), "identity.txt"), nil, false)
	require.NoError(t, err)
	return id
}

// newFile is a fresh empty store.
func newFile(t testing.TB) *File {
	t.Helper()
	id := newIdentity(t)
	path := filepath.Join(t.TempDir(), "store.age")
	require.NoError(t, Create(t.Context(), path, id, nil))
	return Open(path, id)
}

// put writes plaintext as the store at path, as a careful outside writer does.
func put(t testing.TB, f *File, path string, plaintext []byte) {
	t.Helper()
	b, err := encrypt(plaintext, f.id.recipient)
	require.NoError(t, err)
	require.NoError(t, replace(path, b, nil))
}

func plaintextOf(t testing.TB, f *File) string {
	t.Helper()
	b, err := os.ReadFile(f.path)
	require.NoError(t, err)
	plain, err := decrypt(b, f.id.ids...)
	require.NoError(t, err)
	return string(plain)
}

func entryOf(t testing.TB, s string, n int) Entry {
	return Entry{Slug: slug(t, s), Token: wire.NewToken(tok(n)), PortalID: int64(n), Datacenter: "na1",
		AddedAt: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
}

func TestCreateAndLoad(t *testing.T) {
	f := newFile(t)
	s, err := f.Load(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, s.Version)
	require.Empty(t, s.Entries)
	require.WithinDuration(t, time.Now(), s.LastUpdated, time.Minute)
	info, err := os.Stat(f.Path())
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())
	require.ErrorIs(t, Create(t.Context(), f.path, f.id, nil), fs.ErrExist)
}

func TestLoadArmored(t *testing.T) {
	f := newFile(t)
	b, err := os.ReadFile(f.path)
	require.NoError(t, err)
	var out strings.Builder
	w := armor.NewWriter(&out)
	_, err = w.Write(b)
	require.NoError(t, errors.Join(err, w.Close()))
	require.NoError(t, os.WriteFile(f.path, []byte(out.String()), 0o600))
	s, err := f.Update(t.Context(), func(e *Edit) error { return e.Put(entryOf(t, "acme-corp", 1)) })
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Version)
}

func TestUpdate(t *testing.T) {
	f := newFile(t)
	want := entryOf(t, "acme-corp", 1)
	want.Kind, want.BaseURL, want.TimeZone, want.AccountType = "static-app", "https://api-eu1.hubapi.com", "Europe/Berlin", "STANDARD"
	want.Scopes, want.DataHosting = []string{"crm.objects"}, "na1"
	want.LastRotatedAt, want.VerifiedAt = want.AddedAt.Add(time.Hour), want.AddedAt.Add(2*time.Hour)
	want.Previous = &Previous{wire.NewToken(tok(9)), want.AddedAt.Add(3 * time.Hour)}
	s, err := f.Update(t.Context(), func(e *Edit) error {
		require.NoError(t, e.Put(entryOf(t, "beta-inc", 2)))
		require.ErrorIs(t, e.Put(entryOf(t, "gamma", 2)), ErrConflict)
		require.Error(t, e.Put(Entry{Slug: slug(t, "gamma"), Token: wire.NewToken("x y"), PortalID: 3}))
		require.Error(t, e.Put(Entry{Slug: slug(t, "gamma"), Token: wire.NewToken(tok(3))}))
		bad := entryOf(t, "gamma", 3)
		bad.BaseURL = "https://evil.example"
		require.ErrorContains(t, e.Put(bad), "baseUrl must be")
		_, ok := e.Get(slug(t, "gamma"))
		require.False(t, ok)
		return e.Put(want)
	})
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Version)
	loaded, err := f.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, s, loaded)
	require.Equal(t, []Entry{want, entryOf(t, "beta-inc", 2)}, s.Entries)

	// Nothing changed: nothing written.
	before, err := os.ReadFile(f.path)
	require.NoError(t, err)
	s, err = f.Update(t.Context(), func(e *Edit) error {
		got, ok := e.Get(want.Slug)
		require.True(t, ok)
		require.False(t, e.Remove(slug(t, "gamma")))
		return e.Put(got)
	})
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Version)
	boom := errors.New("boom")
	_, err = f.Update(t.Context(), func(e *Edit) error { e.Remove(want.Slug); return boom })
	require.ErrorIs(t, err, boom)
	after, err := os.ReadFile(f.path)
	require.NoError(t, err)
	require.Equal(t, before, after)

	s, err = f.Update(t.Context(), func(e *Edit) error {
		require.EqualValues(t, 2, e.Store().Version)
		require.True(t, e.Remove(want.Slug))
		require.ErrorIs(t, e.SetVerified(want.Slug, time.Now(), Account{}), ErrNoEntry)
		require.NoError(t, e.Put(entryOf(t, "gamma", 1)), "what a removed slug had is free")
		return e.SetVerified(slug(t, "beta-inc"), want.VerifiedAt, Account{TimeZone: "UTC"})
	})
	require.NoError(t, err)
	require.EqualValues(t, 3, s.Version)
	require.Len(t, s.Entries, 2)
	require.Equal(t, want.VerifiedAt, s.Entries[0].VerifiedAt)
	require.Equal(t, "UTC", s.Entries[0].TimeZone)
	left, err := os.ReadDir(filepath.Dir(f.path))
	require.NoError(t, err)
	require.Len(t, left, 2, "the store and its lock, no temporary file")
}

func TestUpdateKeepsWhatItDoesNotKnow(t *testing.T) {
	f := newFile(t)
	put(t, f, f.path, []byte(`{"owner": {"b": 1.50, "a": "<é>"}, "version": 7, "portals": {`+
		`"zeta": {"note": 1e2, "token": "`+tok(1)+`",  "portalId": 1, "clientSlug": "zeta"}, "Bad Slug": {"x":  [ ]}, `+
		`"acme": {"team": {"x": 1.0}, "token": "`+tok(2)+`", "portalId": 2, "clientSlug": "acme", "addedAt": "2026-11-23T10:00:00.123456+01:00"}}, "end": null}`))
	_, err := f.Update(t.Context(), func(e *Edit) error {
		n, ok := e.Get(slug(t, "acme"))
		require.True(t, ok)
		n.Token = wire.NewToken(tok(3))
		return e.Put(n)
	})
	require.NoError(t, err)
	got := plaintextOf(t, f)
	require.Regexp(t, `^\{"owner":\{"b": 1.50, "a": "<é>"\},"version":8,"portals":\{`+
		`"zeta":\{"note": 1e2, "token": "`+tok(1)+`",  "portalId": 1, "clientSlug": "zeta"\},"Bad Slug":\{"x":  \[ \]\},`+
		`"acme":\{"team":\{"x": 1.0\},"token":"`+tok(3)+`","portalId":2,"clientSlug":"acme","addedAt":"2026-11-23T10:00:00.123456\+01:00"\}\},`+
		`"end":null,"lastUpdated":"[-0-9T:.]+Z"\}$`, got)
}

func TestUpdateMendsRejectedEntries(t *testing.T) {
	f := newFile(t)
	put(t, f, f.path, storeOf(`"acme": {"x": 1, "token": "a", "token": "b"}`, good("beta", 2), good("beta", 3)))
	s, err := f.Update(t.Context(), func(e *Edit) error {
		return errors.Join(e.Put(entryOf(t, "acme", 1)), e.Put(entryOf(t, "beta", 2)))
	})
	require.NoError(t, err)
	require.Empty(t, s.Rejected)
	require.Len(t, s.Entries, 2)
	require.Contains(t, plaintextOf(t, f), `"x":1`)
}

// Two files on one path, as two processes have them, lose no change.
func TestUpdateConcurrently(t *testing.T) {
	f := newFile(t)
	g := Open(f.path, f.id)
	const each = 100
	var wg sync.WaitGroup
	errs := make(chan error, 2*each)
	for i := range 2 * each {
		wg.Go(func() {
			_, err := []*File{f, g}[i%2].Update(t.Context(), func(e *Edit) error {
				return e.Put(entryOf(t, fmt.Sprintf("slug-%03d", i), i+1))
			})
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	s, err := f.Load(t.Context())
	require.NoError(t, err)
	require.Len(t, s.Entries, 2*each)
	require.EqualValues(t, 2*each+1, s.Version)
}

func TestUpdateHeedsOutsideLock(t *testing.T) {
	f := newFile(t)
	l, err := os.OpenFile(f.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	require.NoError(t, unix.Flock(int(l.Fd()), unix.LOCK_EX))

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = f.Update(ctx, func(*Edit) error { t.Error("ran without the lock"); return nil })
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, f.path+".lock")

	// What the outside writer did under the lock is there when ours comes.
	done := make(chan *Store)
	go func() {
		s, err := f.Update(t.Context(), func(e *Edit) error { return e.Put(entryOf(t, "beta-inc", 2)) })
		if err != nil {
			t.Error(err)
		}
		done <- s
	}()
	put(t, f, f.path, storeOf(good("acme-corp", 1)))
	require.NoError(t, unix.Flock(int(l.Fd()), unix.LOCK_UN))
	s := <-done
	require.EqualValues(t, 8, s.Version)
	require.Len(t, s.Entries, 2)
}

// A writer that takes no lock is noticed up to the last moment.
func TestUpdateNoticesUnlockedWriter(t *testing.T) {
	f := newFile(t)
	var once sync.Once
	f.hooks.beforeRename = func() {
		once.Do(func() { put(t, f, f.path, storeOf(good("acme-corp", 1))) })
	}
	s, err := f.Update(t.Context(), func(e *Edit) error { return e.Put(entryOf(t, "beta-inc", 2)) })
	require.NoError(t, err)
	require.EqualValues(t, 8, s.Version)
	require.Len(t, s.Entries, 2)
}

func TestUpdateThroughSymlink(t *testing.T) {
	f := newFile(t)
	link := filepath.Join(t.TempDir(), "store.age")
	require.NoError(t, os.Symlink(f.path, link))
	_, err := Open(link, f.id).Update(t.Context(), func(e *Edit) error { return e.Put(entryOf(t, "beta-inc", 2)) })
	require.NoError(t, err)
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&os.ModeSymlink, "the link is still one")
	s, err := f.Load(t.Context())
	require.NoError(t, err)
	require.Len(t, s.Entries, 1)
}

// TestKilledBeforeRename runs itself again as a writer that dies between the
// temporary file and the rename.
func TestKilledBeforeRename(t *testing.T) {
	if path := os.Getenv("CREDSTORE_TEST_KILL"); path != "" {
		id, err := LoadIdentity(filepath.Join(filepath.Dir(path), "identity.txt"), nil)
		require.NoError(t, err)
		f := Open(path, id)
		f.hooks.beforeRename = func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL); select {} }
		_, err = f.Update(t.Context(), func(e *Edit) error { return e.Put(entryOf(t, "beta-inc", 2)) })
		require.NoError(t, err)
	}
	dir := t.TempDir()
	id, err := GenerateIdentity(filepath.Join(dir, "identity.txt"), nil, false)
	require.NoError(t, err)
	f := Open(filepath.Join(dir, "store.age"), id)
	require.NoError(t, Create(t.Context(), f.path, id, nil))
	before, err := os.ReadFile(f.path)
	require.NoError(t, err)

	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledBeforeRename$")
	cmd.Env = append(os.Environ(), "CREDSTORE_TEST_KILL="+f.path)
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Run(), &exit)
	require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())

	after, err := os.ReadFile(f.path)
	require.NoError(t, err)
	require.Equal(t, before, after)
	left, err := filepath.Glob(filepath.Join(dir, ".store.age.*.tmp"))
	require.NoError(t, err)
	require.Len(t, left, 1)
	old := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(left[0], old, old))
	s, err := f.Update(t.Context(), func(e *Edit) error { return e.Put(entryOf(t, "beta-inc", 2)) })
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Version)
	require.NoFileExists(t, left[0])
}

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
