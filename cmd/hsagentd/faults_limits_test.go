//go:build faults

package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/packaging/faults"
	"github.com/hsagent/hsagentd/wire"
)

// flawless makes calls with so many workers until ctx ends, and counts those
// that fail.
func (s *site) flawless(ctx context.Context, workers int) (*sync.WaitGroup, *atomic.Int64) {
	wg, failed := new(sync.WaitGroup), new(atomic.Int64)
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := s.call(); err != nil {
					failed.Add(1)
					s.t.Logf("a call failed: %v", err)
				}
			}
		})
	}
	return wg, failed
}

// Whatever is put in the store's place under load: no call fails, the status
// says what is wrong, and the store that is put back is taken.
func TestFaultStore(t *testing.T) {
	s := newSite(t, 3)
	cmd := s.start()
	ctx, cancel := context.WithCancel(t.Context())
	wg, failed := s.flawless(ctx, 8)
	path := s.path("store.age")
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	put := func(b []byte) {
		require.NoError(t, os.RemoveAll(path))
		require.NoError(t, os.WriteFile(path+".new", b, 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	type harm struct {
		name string
		do   func()
	}
	harms := []harm{
		{"removed", func() { require.NoError(t, os.Remove(path)) }},
		{"a directory", func() { require.NoError(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o700))) }},
		{"a FIFO", func() { require.NoError(t, errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600))) }},
		{"a link to nothing", func() { require.NoError(t, errors.Join(os.Remove(path), os.Symlink("nothing", path))) }},
		{"a link to itself", func() { require.NoError(t, errors.Join(os.Remove(path), os.Symlink(path, path))) }},
		{"/dev/zero", func() { require.NoError(t, errors.Join(os.Remove(path), os.Symlink("/dev/zero", path))) }},
		{"1 GiB", func() { require.NoError(t, os.Truncate(path, 1<<30)) }},
		{"for all to write", func() { require.NoError(t, os.Chmod(path, 0o666)) }},
		{"another user's", func() { require.NoError(t, os.Chown(path, 65534, 65534)) }},
		{"in words", func() { put([]byte("age-encryption.org/v1\n-> X25519 nonsense")) }},
	}
	for n := 0; n < len(good); n += 64 {
		harms = append(harms, harm{"cut short", func() { put(good[:n]) }})
	}
	lastError := func() string {
		st, err := s.client.Status(t.Context())
		require.NoError(t, err)
		return string(st.Store.LastError)
	}
	var slowest time.Duration
	for _, h := range harms {
		h.do()
		begin := time.Now()
		require.Eventually(t, func() bool { return lastError() != "" }, time.Minute, 5*time.Millisecond, h.name)
		slowest = max(slowest, time.Since(begin))
		put(good)
		require.Eventually(t, func() bool { return lastError() == "" }, time.Minute, 5*time.Millisecond, h.name)
	}
	cancel()
	wg.Wait()
	require.LessOrEqual(t, failed.Load(), int64(8), "calls failed, and not only those that the test's end broke off")
	t.Logf("%d harms, %d calls, the slowest harm was seen after %v", len(harms), s.calls.Load(), slowest)
	s.end(cmd)
	s.requireWhole()
}

// A store that another file is mounted over is the one that is mounted, as where
// a container's volume is replaced: no event tells of that.
func TestFaultMountedStore(t *testing.T) {
	const mounts = 100
	s := newSite(t, 3)
	cmd := s.start()
	id, err := credstore.LoadIdentity(s.path("identity.txt"), nil)
	require.NoError(t, err)
	path := s.path("store.age")
	var slowest time.Duration
	for i := range mounts {
		next := filepath.Join(t.TempDir(), "store.age")
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(next, b, 0o600))
		version, err := credstore.Open(next, id).Update(t.Context(), func(e *credstore.Edit) error {
			return e.Put(credstore.Entry{Slug: s.slugs[0], Token: s.hub.ActiveToken(1000), PortalID: 1000, TimeZone: fmt.Sprintf("Etc/GMT-%d", i%14)})
		})
		require.NoError(t, err)
		begin := time.Now()
		require.NoError(t, unix.Mount(next, path, "", unix.MS_BIND, ""))
		t.Cleanup(func() { require.NoError(t, unix.Unmount(path, 0)) })
		require.Eventually(t, func() bool {
			st, err := s.client.Status(t.Context())
			return err == nil && st.Store.Version == version.Version
		}, time.Minute, 5*time.Millisecond, s.logs())
		slowest = max(slowest, time.Since(begin))
		require.NoError(t, s.call())
	}
	t.Logf("%d stores mounted, the slowest was taken after %v", mounts, slowest)
	s.end(cmd)
	s.requireWhole()
}

// The log's file system has no room for another file.
func TestFaultInodes(t *testing.T) {
	s := newSite(t, 3)
	d := faults.NewInodes(t, 200)
	s.audit = filepath.Join(d.Path, "audit")
	cmd := s.start()
	ctx, cancel := context.WithCancel(t.Context())
	wg := s.load(ctx, 16)
	require.Eventually(t, func() bool { return s.hub.Count().Total.Arrivals > 100 }, time.Minute, time.Millisecond)
	free := d.FillInodes(t)
	before := s.calls.Load()
	shut := false
	require.Eventually(t, func() bool { // files are made now and then only
		shut = codeOf(s.call()) == wire.CodeAuditUnavailable
		return shut || s.calls.Load() > before+40_000
	}, 3*time.Minute, time.Millisecond, s.logs())
	if shut {
		arrived := s.hub.Count().Total.Arrivals
		for range 50 {
			require.Equal(t, wire.CodeAuditUnavailable, codeOf(s.call()))
		}
		require.LessOrEqual(t, s.hub.Count().Total.Arrivals, arrived+16, "something left without a record")
	}
	t.Logf("after %d calls without a free inode the log is shut: %t; status answered in %v", s.calls.Load()-before, shut, s.status())
	cancel()
	wg.Wait()
	free()
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait() // a log that is shut is no clean end
	cmd = s.start()
	require.NoError(t, s.call())
	s.end(cmd)
	s.requireWhole()
}

// 96 MiB are all the memory that the kernel gives, and 200 callers have bodies
// of 64 MiB under way.
func TestFaultMemoryLimit(t *testing.T) {
	const clients, size = 200, 64 << 20
	s := newSite(t, 8)
	limit := faults.NewMemoryLimit(t, 96)
	s.wrap = limit.Wrap()
	cmd := s.start()
	begin := time.Now()
	s.bodies(clients, size)
	require.Zero(t, limit.Kills(t))
	t.Logf("%d bodies of %d MiB at once in 96 MiB of memory, in %v: %v", clients, size>>20, time.Since(begin), s.process(cmd).Holds(t))
	s.end(cmd)
	s.requireWhole()
}
