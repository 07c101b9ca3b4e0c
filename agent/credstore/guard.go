package credstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Refusals of [Guard.Admit].
var (
	ErrRollback    = errors.New("the store went back")
	ErrMassRemoval = errors.New("the store suddenly lacks many portals")
)

const forceHint = "if that is meant, run hsctl reload --force"

// A Guard refuses a store that is older than one seen before, or that lost many
// portals at once. It keeps the highest version seen beside the store, in
// <store>.seen, so that an older store is refused after a restart too.
//
// It guards against mistakes: a backup played back, a script that wrote half a
// fleet. Whoever may write the store's directory can remove the .seen file.
type Guard struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	seen int64 // highest version of this process; -1 before the first
}

// NewGuard returns the guard of the store at path. What it cannot keep on disk
// it logs and keeps in memory. A nil log drops that.
func NewGuard(path string, log *slog.Logger) *Guard {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Guard{path: path + ".seen", log: log, seen: -1}
}

// Admit returns nil if next may take the place of prev (nil at start), and
// notes its version. Else the error wraps [ErrRollback] (a lower version than
// any seen) or [ErrMassRemoval] (more than a quarter of prev's portals are
// gone, or all). An entry that is in next but rejected is not gone. The same
// version with other contents is admitted: a script that forgets to count the
// version up loses nothing by it.
//
// With force, next is admitted whatever it is and its version is the highest
// from then on: for an operator's word, and for a removal of our own that
// [File.Update] has just written.
func (g *Guard) Admit(prev, next *Store, force bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	ctx := context.Background()
	kept, err := g.read(ctx)
	if err != nil && !force {
		return err
	}
	if !force {
		if err := admit(prev, next, max(kept, g.seen)); err != nil {
			return err
		}
	}
	g.seen = next.Version
	if err == nil && kept == next.Version {
		return nil
	}
	if err := replace(g.path, strconv.AppendInt(nil, next.Version, 10), nil); err != nil {
		g.log.LogAttrs(ctx, slog.LevelWarn, "the highest store version is kept in memory only: after a restart an older store would be taken",
			slog.String("file", g.path), slog.Int64("version", next.Version), slog.Any("err", err))
	}
	return nil
}

func admit(prev, next *Store, seen int64) error {
	if next.Version < seen {
		return fmt.Errorf("%w: it is version %d, and version %d was seen before: %s", ErrRollback, next.Version, seen, forceHint)
	}
	if prev == nil {
		return nil
	}
	missing := 0
	rest := next.Entries // sorted, as prev's are
	for _, e := range prev.Entries {
		slug := e.Slug.String()
		for len(rest) > 0 && rest[0].Slug.String() < slug {
			rest = rest[1:]
		}
		if len(rest) > 0 && rest[0].Slug == e.Slug {
			continue
		}
		if _, rejected := slices.BinarySearchFunc(next.Rejected, slug, func(r Rejected, s string) int { return strings.Compare(r.Slug, s) }); !rejected {
			missing++
		}
	}
	if missing*4 > len(prev.Entries) {
		return fmt.Errorf("%w: version %d lacks %d of the %d portals of version %d: %s",
			ErrMassRemoval, next.Version, missing, len(prev.Entries), prev.Version, forceHint)
	}
	return nil
}

// read returns the version that the .seen file names; -1 if there is none.
func (g *Guard) read(ctx context.Context) (int64, error) {
	b, _, err := readStable(ctx, g.path, 64)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("%w, or it cannot be told: read the highest version seen: %w", ErrRollback, err)
	}
	v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || v < 0 {
		return -1, fmt.Errorf("%w, or it cannot be told: %s holds no version: %s", ErrRollback, g.path, forceHint)
	}
	return v, nil
}
