package credstore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// version is a store of version v with n portals, the first of them left out.
func version(t testing.TB, v, n, without int) *Store {
	t.Helper()
	var entries []string
	for i := range n {
		if i >= without {
			entries = append(entries, good(fmt.Sprintf("slug-%d", i), i+1))
		}
	}
	s, err := Parse(fmt.Appendf(nil, `{"version": %d, "portals": {%s}}`, v, strings.Join(entries, ",")))
	require.NoError(t, err)
	return s
}

// An older store is refused, in one process and after a restart.
func TestThreat41(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.age")
	g := NewGuard(path, nil)
	var prev *Store
	for v := 1; v <= 50; v++ {
		next := version(t, v, 3, 0)
		require.NoError(t, g.Admit(prev, next, false))
		require.NoError(t, g.Admit(next, next, false), "the same again is fine")
		prev = next
	}
	for v := range 50 {
		old := version(t, v, 3, 0)
		err := g.Admit(prev, old, false)
		require.ErrorIs(t, err, ErrRollback)
		require.ErrorContains(t, err, fmt.Sprintf("it is version %d, and version 50 was seen", v))
		require.ErrorContains(t, err, "hsctl reload --force")
		require.ErrorIs(t, NewGuard(path, nil).Admit(nil, old, false), ErrRollback, "after a restart")
	}
	require.NoError(t, NewGuard(path, nil).Admit(nil, prev, false))

	other, err := Parse([]byte(`{"version": 50, "portals": {` + good("slug-0", 99) + `}}`))
	require.NoError(t, err)
	require.NoError(t, g.Admit(version(t, 50, 1, 0), other, false), "a writer that forgot to count the version up")

	require.NoError(t, g.Admit(prev, version(t, 10, 3, 0), true), "an operator's word")
	require.NoError(t, g.Admit(version(t, 10, 3, 0), version(t, 11, 3, 0), false), "from there it counts again")
	require.ErrorIs(t, NewGuard(path, nil).Admit(nil, version(t, 10, 3, 0), false), ErrRollback)
}

func TestThreat41DamagedNote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.age")
	for _, text := range []string{"", "x", "-1", strings.Repeat("9", 70)} {
		require.NoError(t, os.WriteFile(path+".seen", []byte(text), 0o600))
		g := NewGuard(path, nil)
		require.ErrorIs(t, g.Admit(nil, version(t, 3, 1, 0), false), ErrRollback, text)
		require.NoError(t, g.Admit(nil, version(t, 3, 1, 0), true), text)
		require.NoError(t, g.Admit(nil, version(t, 3, 1, 0), false), "mended")
	}
}

// Where the note cannot be written, the guard still holds in this process.
func TestThreat41NoRoomForNote(t *testing.T) {
	g := NewGuard(filepath.Join(t.TempDir(), "gone", "store.age"), nil)
	require.NoError(t, g.Admit(nil, version(t, 3, 1, 0), false))
	require.ErrorIs(t, g.Admit(version(t, 3, 1, 0), version(t, 2, 1, 0), false), ErrRollback)
}

func TestThreat42(t *testing.T) {
	tests := []struct {
		portals, gone int
		refused       bool
	}{
		{0, 0, false}, {1, 1, true}, {3, 1, true}, {4, 1, false}, {4, 2, true}, {4, 4, true},
		{100, 25, false}, {100, 26, true}, {100, 99, true}, {100, 100, true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d of %d", tt.gone, tt.portals), func(t *testing.T) {
			g := NewGuard(filepath.Join(t.TempDir(), "store.age"), nil)
			prev, next := version(t, 1, tt.portals, 0), version(t, 2, tt.portals, tt.gone)
			require.NoError(t, g.Admit(nil, prev, false))
			err := g.Admit(prev, next, false)
			if !tt.refused {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrMassRemoval)
			require.ErrorContains(t, err, fmt.Sprintf("version 2 lacks %d of the %d portals of version 1", tt.gone, tt.portals))
			require.ErrorContains(t, err, "hsctl reload --force")
			require.NoError(t, g.Admit(prev, prev, false), "a refused version is not noted")
			require.NoError(t, g.Admit(prev, next, true))
		})
	}
	// Rejected entries are there: they are refused one by one, not with the store.
	g := NewGuard(filepath.Join(t.TempDir(), "store.age"), nil)
	next, err := Parse([]byte(`{"version": 2, "portals": {"slug-0": {}, "slug-1": {}, ` + good("slug-2", 3) + `}}`))
	require.NoError(t, err)
	require.NoError(t, g.Admit(version(t, 1, 3, 0), next, false))
}
