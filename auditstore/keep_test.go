package auditstore_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

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
			require.NoError(t, os.Truncate(filepath.Join(dir, "witness"), 0))
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
