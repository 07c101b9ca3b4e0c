package credstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.age")
	j := OpenJournal(path)
	r, err := j.Read(t.Context())
	require.NoError(t, err)
	require.Empty(t, r.Staged)
	require.Empty(t, r.Latest)
	require.NoError(t, j.Update(t.Context(), func(*Rotations) {}))
	_, err = os.Stat(path + ".rotations")
	require.ErrorIs(t, err, fs.ErrNotExist, "nothing to note makes no file")

	now := wire.At(time.Now())
	staged := Rotation{PortalID: 7, OldFingerprint: "aaaaaaaaaaaa", NewFingerprint: "bbbbbbbbbbbb", StartedAt: now, GraceEndsAt: now, Note: "a note"}
	require.NoError(t, j.Update(t.Context(), func(r *Rotations) { r.Staged["acme"] = staged }))
	info, err := os.Stat(path + ".rotations")
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())
	r, err = OpenJournal(path).Read(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]Rotation{"acme": staged}, r.Staged)

	require.NoError(t, j.Update(t.Context(), func(r *Rotations) {
		require.False(t, r.Switch("acme", "cccccccccccc", now.Time), "another token's")
		require.False(t, r.Switch("beta", "bbbbbbbbbbbb", now.Time), "another slug's")
		require.True(t, r.Switch("acme", "bbbbbbbbbbbb", now.Time))
		require.False(t, r.Switch("acme", "bbbbbbbbbbbb", now.Time), "once")
	}))
	r, err = j.Read(t.Context())
	require.NoError(t, err)
	require.Empty(t, r.Staged)
	staged.State, staged.SwitchedAt = wire.RotationSwitched, now
	require.Equal(t, map[string]Rotation{"acme": staged}, r.Latest)

	before := signatureAt(path + ".rotations")
	require.NoError(t, j.Update(t.Context(), func(*Rotations) {}))
	require.Equal(t, before, signatureAt(path+".rotations"), "no change writes nothing")
}

func TestJournalLosesNoUpdate(t *testing.T) {
	j := OpenJournal(filepath.Join(t.TempDir(), "store.age"))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			err := j.Update(t.Context(), func(r *Rotations) { r.Latest[string(rune('a'+i))] = Rotation{PortalID: int64(i)} })
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r, err := j.Read(t.Context())
	require.NoError(t, err)
	require.Len(t, r.Latest, 20)
}

func TestJournalRefusesWhatItCannotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.age")
	j, file := OpenJournal(path), path+".rotations"
	update := func() error { return j.Update(t.Context(), func(r *Rotations) { r.Latest["a"] = Rotation{} }) }
	for _, text := range []string{"", "{", "[]", `{"staged": 7}`} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		require.ErrorContains(t, update(), "move it away", text)
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, text, string(b), "what cannot be read is not written over")
	}
	require.NoError(t, os.WriteFile(file, []byte("{}"), 0o600))
	require.NoError(t, os.Chmod(file, 0o666))
	require.ErrorContains(t, update(), "others may write it")
	require.NoError(t, os.Remove(file))
	require.NoError(t, os.Mkdir(file, 0o700))
	require.ErrorContains(t, update(), "not a regular file")
}

// FuzzJournal: whatever stands in the file, it is refused and left alone, or
// read and kept by an update.
func FuzzJournal(f *testing.F) {
	for _, s := range []string{"{}", `{"staged":null,"rotations":{"a":{"state":"switched","startedAt":"2026-11-24T00:00:00Z","confirmed":{"x":""}}}}`, "[]", `{"rotations":{"":{}}}`} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "store.age")
	f.Fuzz(func(t *testing.T, b []byte) {
		require.NoError(t, os.WriteFile(path+".rotations", b, 0o600))
		j := OpenJournal(path)
		before, err := j.Read(t.Context())
		if err != nil {
			require.Error(t, j.Update(t.Context(), func(*Rotations) {}))
			require.False(t, errors.Is(err, fs.ErrNotExist))
			return
		}
		require.NoError(t, j.Update(t.Context(), func(r *Rotations) { r.Staged["fuzz"] = Rotation{PortalID: 1} }))
		after, err := j.Read(t.Context())
		require.NoError(t, err)
		before.Staged["fuzz"] = Rotation{PortalID: 1}
		require.Equal(t, before, after)
	})
}
