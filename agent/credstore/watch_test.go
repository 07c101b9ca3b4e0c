package credstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// watching runs f.Watch until the test ends and returns what tells of changes.
func watching(t *testing.T, f *File) chan struct{} {
	t.Helper()
	changed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := f.Watch(ctx, slog.New(slog.DiscardHandler), func() {
			select {
			case changed <- struct{}{}:
			default: // one is waiting already
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return changed
}

// await waits until a change was told and the store has version v.
func await(t *testing.T, f *File, changed chan struct{}, v int64) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case <-changed:
			if s, err := f.Load(t.Context()); err == nil && s.Version == v {
				return
			}
		case <-deadline:
			t.Fatalf("version %d was not seen", v)
		}
	}
}

func storeVersion(v int64) []byte {
	return fmt.Appendf(nil, `{"version": %d, "portals": {%s}}`, v, good("acme-corp", int(v)))
}

// However the store is replaced, the watch hears of it: by events alone, and
// by polling alone.
func TestThreat38(t *testing.T) {
	overwrite := func(t *testing.T, f *File, v int64) {
		b, err := encrypt(storeVersion(v), f.id.recipient)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(f.path, b, 0o600))
	}
	dataDir := func(t *testing.T, f *File, v int64) string {
		dir := filepath.Join(filepath.Dir(f.path), fmt.Sprintf("..%d", v))
		require.NoError(t, os.Mkdir(dir, 0o700))
		put(t, f, filepath.Join(dir, "store.age"), storeVersion(v))
		return dir
	}
	relink := func(t *testing.T, target, link string) {
		require.NoError(t, os.Symlink(target, link+".new"))
		require.NoError(t, os.Rename(link+".new", link))
	}
	tests := []struct {
		name    string
		prepare func(t *testing.T, f *File)
		replace func(t *testing.T, f *File, v int64)
	}{
		{"write in place", nil, overwrite},
		{"rename", nil, func(t *testing.T, f *File, v int64) { put(t, f, f.path, storeVersion(v)) }},
		{"delete and make anew", nil, func(t *testing.T, f *File, v int64) {
			require.NoError(t, os.Remove(f.path))
			overwrite(t, f, v)
		}},
		{"symlink swap", nil, func(t *testing.T, f *File, v int64) {
			relink(t, filepath.Join(dataDir(t, f, v), "store.age"), f.path)
		}},
		{"write behind a symlink", func(t *testing.T, f *File) {
			relink(t, filepath.Join(dataDir(t, f, 1), "store.age"), f.path)
		}, func(t *testing.T, f *File, v int64) {
			target, err := filepath.EvalSymlinks(f.path)
			require.NoError(t, err)
			put(t, f, target, storeVersion(v))
		}},
		{"data directory swap", func(t *testing.T, f *File) {
			data := filepath.Join(filepath.Dir(f.path), "..data")
			relink(t, dataDir(t, f, 1), data)
			relink(t, filepath.Join("..data", "store.age"), f.path)
		}, func(t *testing.T, f *File, v int64) {
			relink(t, dataDir(t, f, v), filepath.Join(filepath.Dir(f.path), "..data"))
		}},
		{"directory made anew", nil, func(t *testing.T, f *File, v int64) {
			dir := filepath.Dir(f.path)
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.Mkdir(dir, 0o700))
			put(t, f, f.path, storeVersion(v))
		}},
	}
	for _, tt := range tests {
		for _, polling := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/polling=%v", tt.name, polling), func(t *testing.T) {
				f := newFile(t)
				f.hooks.debounce, f.hooks.poll, f.hooks.noEvents = 10*time.Millisecond, time.Hour, polling
				if polling || tt.name == "directory made anew" {
					// A directory that goes and comes is found by the poll.
					f.hooks.poll = 20 * time.Millisecond
				}
				if tt.prepare != nil {
					tt.prepare(t, f)
				}
				_, err := f.Load(t.Context())
				require.NoError(t, err)
				changed := watching(t, f)
				for v := int64(2); v < 7; v++ {
					tt.replace(t, f, v)
					await(t, f, changed, v)
				}
			})
		}
	}
}

// What changed between Load and Watch is not lost.
func TestWatchStartsFromLoad(t *testing.T) {
	f := newFile(t)
	_, err := f.Load(t.Context())
	require.NoError(t, err)
	put(t, f, f.path, storeVersion(2))
	f.hooks.poll = time.Hour
	await(t, f, watching(t, f), 2)
}

// Other files in the directory are none of the watch's business.
func TestWatchTellsOnlyOfTheStore(t *testing.T) {
	f := newFile(t)
	f.hooks.debounce, f.hooks.poll = time.Millisecond, 10*time.Millisecond
	_, err := f.Load(t.Context())
	require.NoError(t, err)
	told := 0
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := os.WriteFile(fmt.Sprintf("%s.%d", f.path, i%10), nil, 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	require.NoError(t, f.Watch(ctx, nil, func() { told++ }))
	wg.Wait()
	require.Zero(t, told)
}

// After an error of the watcher the store is read again, and the new watch
// hears of what comes next.
func TestThreat39(t *testing.T) {
	f := newFile(t)
	f.hooks.debounce, f.hooks.poll = 10*time.Millisecond, time.Hour
	f.hooks.watchErrors = make(chan error)
	_, err := f.Load(t.Context())
	require.NoError(t, err)
	changed := watching(t, f)
	for v := int64(2); v < 52; v++ {
		f.hooks.watchErrors <- errors.New("queue ran over")
		select {
		case <-changed:
		case <-time.After(20 * time.Second):
			t.Fatal("the error was not told as a change")
		}
		put(t, f, f.path, storeVersion(v))
		await(t, f, changed, v)
	}
}
