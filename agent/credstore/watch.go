package credstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// maxDebounce is how many debounce times a change may wait while more events
// come in.
const maxDebounce = 10

// Watch calls changed, from one goroutine, whenever the file may have changed
// since the last Load, until ctx ends; then it returns nil. It returns an error
// only where the path itself cannot be made absolute.
//
// A watch on a file goes deaf when the file is replaced. So the directories are
// watched, the path's own and that of each symbolic link on the way, and an
// event means no more than: look again. A slow poll stands behind that, for
// file systems without events. An error of the watcher, such as a queue that
// ran over, may hide anything: then the watch is made anew and changed called.
func (f *File) Watch(ctx context.Context, log *slog.Logger, changed func()) error {
	path, err := filepath.Abs(f.path)
	if err != nil {
		return fmt.Errorf("watch the store: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	w := &watch{path: path, log: log, off: f.hooks.noEvents}
	defer w.close()
	w.sync(ctx)

	// What Load saw is the base: a change between it and now must not be lost.
	f.mu.Lock()
	base := f.last
	f.mu.Unlock()
	if base == (signature{}) {
		base = signatureAt(path)
	}
	look := func() {
		w.sync(ctx)
		if now := signatureAt(path); now != base {
			base = now
			changed()
		}
	}
	look()

	poll := time.NewTicker(f.hooks.poll)
	defer poll.Stop()
	settle := time.NewTimer(0)
	settle.Stop()
	var first time.Time // of the events that wait for settle
	for {
		var broken error
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.events():
			if !ok {
				broken = errors.New("the watcher ended")
				break
			}
			if first.IsZero() {
				first = time.Now()
			}
			settle.Reset(max(0, min(f.hooks.debounce, maxDebounce*f.hooks.debounce-time.Since(first))))
		case <-settle.C:
			first = time.Time{}
			look()
		case <-poll.C:
			look()
		case broken = <-w.errors():
		case broken = <-f.hooks.watchErrors:
		}
		if broken != nil {
			log.LogAttrs(ctx, slog.LevelWarn, "the store's watch broke: it is made anew and the store read again", slog.Any("err", broken))
			w.close()
			w.sync(ctx)
			base = signatureAt(path)
			changed()
		}
	}
}

// A watch is the set of directories whose events concern path.
type watch struct {
	path   string
	log    *slog.Logger
	off    bool
	w      *fsnotify.Watcher    // nil: polling only, until sync makes one
	dirs   map[string]signature // those watched
	warned bool
}

func (w *watch) events() chan fsnotify.Event {
	if w.w == nil {
		return nil
	}
	return w.w.Events
}

func (w *watch) errors() chan error {
	if w.w == nil {
		return nil
	}
	return w.w.Errors
}

func (w *watch) close() {
	if w.w != nil {
		_ = w.w.Close() // it is given up either way
	}
	w.w, w.dirs = nil, nil
}

// sync watches the directories that now lie on the way to the file, and no
// others. What cannot be watched is polled.
func (w *watch) sync(ctx context.Context) {
	if w.off {
		return
	}
	if w.w == nil {
		fw, err := fsnotify.NewWatcher()
		if err != nil {
			w.warn(ctx, err)
			return
		}
		w.w, w.dirs = fw, make(map[string]signature)
	}
	want := make(map[string]signature)
	for _, dir := range watchDirs(w.path) {
		s := signatureAt(dir)
		// Of a directory only its identity counts: another of the same name
		// has to be watched anew.
		want[dir] = signature{dev: s.dev, ino: s.ino}
	}
	alive := make(map[string]bool)
	for _, dir := range w.w.WatchList() {
		alive[dir] = true
	}
	for dir, is := range w.dirs {
		if want[dir] == is && alive[dir] {
			continue
		}
		delete(w.dirs, dir)
		_ = w.w.Remove(dir) // it may have gone by itself
	}
	for dir, is := range want {
		if _, ok := w.dirs[dir]; ok {
			continue
		}
		if err := w.w.Add(dir); err != nil {
			w.warn(ctx, fmt.Errorf("%s: %w", dir, err))
			continue
		}
		w.dirs[dir] = is
	}
}

// warn says once that events are missing.
func (w *watch) warn(ctx context.Context, err error) {
	if w.warned {
		return
	}
	w.warned = true
	w.log.LogAttrs(ctx, slog.LevelWarn, "the store cannot be watched in full: changes are found by polling",
		slog.String("file", w.path), slog.Any("err", err))
}

// watchDirs returns the directories in which something can change what the
// absolute path leads to: the one that holds the file, and each that holds a
// symbolic link on the way there. Where the way ends early, it is the deepest
// directory that exists.
func watchDirs(path string) []string {
	const maxLinks = 40 // as the kernel
	var dirs []string
	at, rest, links := "/", strings.Split(filepath.Clean(path), "/"), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		if err != nil {
			return append(dirs, at)
		}
		if info.Mode()&os.ModeSymlink == 0 {
			if len(rest) == 0 {
				return append(dirs, at)
			}
			at = next
			continue
		}
		dirs = append(dirs, at)
		target, err := os.Readlink(next)
		if links++; err != nil || links > maxLinks {
			return dirs
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return append(dirs, at)
}
