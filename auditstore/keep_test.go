package auditstore_test

import (
	"os"
	"path/filepath"
	"testing"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/fsnotify/fsnotify"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// A manifest that lost its end names none of the tables, and Badger deletes
// tables that the manifest does not name. A refusal must leave them there.
func TestRefusalChangesNothing(t *testing.T) {
	for _, crashed := range []bool{false, true} {
		source := written(t)
		if crashed {
			source = killed(t)
		}
		dir := copyDir(t, source)
		manifest := filepath.Join(dir, "badger", "MANIFEST")
		whole, err := os.ReadFile(manifest)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(manifest, 8))
		if crashed {
			require.NoError(t, os.Truncate(walOf(t, dir), 0))
		}
		before := filesOf(t, dir)
		for range 2 {
			_, err = auditstore.Check(t.Context(), dir, nil)
			require.ErrorIs(t, err, auditstore.ErrDamaged)
			require.Equal(t, before, filesOf(t, dir))
			_, err = auditstore.Open(t.Context(), auditstore.Config{Dir: dir, MinFree: 1})
			require.ErrorIs(t, err, auditstore.ErrDamaged)
			require.Equal(t, before, filesOf(t, dir))
		}
		require.NoError(t, os.WriteFile(manifest, whole, 0o600))
		if !crashed {
			verified(t, open(t, dir))
		}
	}
}

// A loss that cannot be accepted, since what is left is not sound, changes
// nothing either, even where nothing tells what the log was.
func TestRefusedLossChangesNothing(t *testing.T) {
	source := copyDir(t, written(t))
	db, err := badger.Open(auditstore.BadgerOptions(filepath.Join(source, "badger")))
	require.NoError(t, err)
	require.NoError(t, db.Update(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: append(key("a/", 0), 'r')})
		it.Rewind()
		k := it.Item().KeyCopy(nil)
		it.Close()
		return change(txn, k, func(v []byte) []byte { v[0] ^= 1; return v })
	}))
	require.NoError(t, db.Close()) // while it is open, tables come and go
	dir := source
	require.NoError(t, os.WriteFile(walOf(t, dir), []byte("nonsense\n"), 0o600))
	before := filesOf(t, dir)
	_, err = auditstore.AcceptLoss(t.Context(), auditstore.Config{Dir: dir, MinFree: 1})
	require.ErrorIs(t, err, auditstore.ErrDamaged)
	require.ErrorContains(t, err, "cannot be gone on with")
	require.Equal(t, before, filesOf(t, dir))
}

// A start that was broken off in the middle begins again from the copy.
func TestBrokenOffStart(t *testing.T) {
	source := killed(t)
	for _, also := range []bool{false, true} {
		dir := copyDir(t, source)
		database := filepath.Join(dir, "badger")
		require.NoError(t, os.CopyFS(database+".before", os.DirFS(database)))
		require.NoError(t, os.RemoveAll(database))
		if also {
			require.NoError(t, os.Mkdir(database, 0o700))
		}
		s := open(t, dir)
		requireStanding(t, s)
		require.NotEmpty(t, all(t, s, chain.Filter{}))
		require.NoError(t, s.Close())
		require.NoDirExists(t, database+".before")
	}
}

// A start that fails after the log was found sound, here because a new write-ahead log
// cannot be written, leaves the database where it is.
func TestStartFailsBehindTheCheck(t *testing.T) {
	dir := copyDir(t, killed(t))
	for _, name := range []string{"wal.0.new", "wal.1.new"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	for range 2 {
		_, err := auditstore.Open(t.Context(), auditstore.Config{Dir: dir, MinFree: 1})
		require.ErrorIs(t, err, unix.EISDIR)
		require.NotErrorIs(t, err, auditstore.ErrDamaged)
	}
	for _, name := range []string{"wal.0.new", "wal.1.new"} {
		require.NoError(t, os.Remove(filepath.Join(dir, name)))
	}
	s := open(t, dir)
	requireStanding(t, s)
	require.NotEmpty(t, all(t, s, chain.Filter{}))
	require.NoError(t, s.Close())
}

// walOf is the write-ahead log of a log that has one file of it.
func walOf(t testing.TB, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "wal.*"))
	require.NoError(t, err)
	require.Len(t, names, 1)
	return names[0]
}

// A copy that lacks files is never under the name from which a start puts it
// back: killed at any moment of the removal, a start has lost nothing.
func TestCopyGoesWhole(t *testing.T) {
	dir := copyDir(t, killed(t))
	w, err := fsnotify.NewBufferedWatcher(1000)
	require.NoError(t, err)
	require.NoError(t, w.Add(dir))
	s := open(t, dir)
	requireStanding(t, s)
	require.NoError(t, s.Close())
	require.NoError(t, w.Close())
	copied := filepath.Join(dir, "badger.before")
	made := false
	for e := range w.Events {
		made = made || e.Name == copied && e.Has(fsnotify.Create)
		require.False(t, e.Name == copied && e.Has(fsnotify.Remove), "removed under its name")
	}
	require.True(t, made, "there was no copy")
	left, err := filepath.Glob(copied + "*")
	require.NoError(t, err)
	require.Empty(t, left)

	require.NoError(t, os.Mkdir(copied+".new", 0o700)) // what a kill leaves
	s = open(t, dir)
	requireStanding(t, s)
	require.NoError(t, s.Close())
	require.NoDirExists(t, copied+".new")
}

// filesOf are the files below dir, with their bytes; locks have none of
// interest.
func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	inner, err := filepath.Glob(filepath.Join(dir, "badger", "*"))
	require.NoError(t, err)
	for _, name := range append(names, inner...) {
		base := filepath.Base(name)
		if info, err := os.Stat(name); err != nil || info.IsDir() || base == "lock" || base == "LOCK" {
			require.NoError(t, err)
			continue
		}
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		out[name] = string(b)
	}
	return out
}
