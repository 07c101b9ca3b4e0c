package credstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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
		require.NoError(t, e.Put(entryOf(t, "gamma", 1)), "what a removed slug had is free")
		beta, ok := e.Get(slug(t, "beta-inc"))
		require.True(t, ok)
		beta.VerifiedAt, beta.TimeZone = want.VerifiedAt, "UTC"
		return e.Put(beta)
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
