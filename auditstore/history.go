package auditstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
)

// A history is what the write-ahead log says about the log.
type history struct {
	seen     []sighting // in order, never empty; the first is what came before the write-ahead log
	segments []segment  // in order, one or two
}

// A segment is one of the write-ahead log's files as it was read.
type segment struct {
	path  string
	epoch uint64
	base  sighting
	end   int64 // where its last frame ends
	ended bool  // another one continues it
	torn  bool  // behind it stands the beginning of a frame that was never acknowledged
	used  bool  // behind it stands something: that, or what an older segment has left
}

// clean reports whether the write-ahead log has nothing but one head.
func (h *history) clean() bool {
	return len(h.segments) == 1 && len(h.seen) == 1 && h.segments[0].end == segmentHead && !h.segments[0].used
}

func (h *history) base() sighting { return h.seen[0] }
func (h *history) last() sighting { return h.seen[len(h.seen)-1] }
func (h *history) torn() bool     { return h.segments[len(h.segments)-1].torn }

// readWAL reads all of the write-ahead log; nil means that there is none. The error
// wraps ErrDamaged if it is not what was written; what could be read is
// returned all the same.
func readWAL(paths [2]string) (*history, error) {
	h := &history{}
	var bad []error
	var parts [][]sighting
	empty := ""
	for _, path := range paths {
		seg, seen, err := readSegment(path, math.MaxInt64, nil)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, ErrDamaged):
			bad = append(bad, err)
		case err != nil:
			return nil, fmt.Errorf("read the write-ahead log: %w", err)
		}
		if seen == nil {
			empty = path
			continue
		}
		h.segments = append(h.segments, seg)
		parts = append(parts, seen)
	}
	if parts == nil && bad == nil && empty != "" {
		bad = append(bad, fmt.Errorf("%w: %s has no head", ErrDamaged, empty))
	}
	if len(h.segments) == 2 && h.segments[0].base.size > h.segments[1].base.size {
		slices.Reverse(h.segments)
		slices.Reverse(parts)
	}
	for i, seen := range parts {
		if i > 0 && seen[0] != h.last() {
			bad = append(bad, fmt.Errorf("%w: %s does not continue %s", ErrDamaged, h.segments[1].path, h.segments[0].path))
		}
		h.seen = append(h.seen, seen[min(i, 1):]...)
	}
	if n := len(h.segments); n > 0 && bad == nil && h.segments[n-1].ended {
		bad = append(bad, fmt.Errorf("%w: what continues %s is missing", ErrDamaged, h.segments[n-1].path))
	}
	if h.seen == nil {
		h = nil
	}
	return h, errors.Join(bad...)
}

// readSegment reads a file of the write-ahead log up to limit, and calls each, unless it
// is nil, with every frame. seen is nil if the file is not in use.
func readSegment(path string, limit int64, each func(*frame) error) (seg segment, seen []sighting, err error) {
	f, err := os.Open(path)
	if err != nil {
		return seg, nil, err
	}
	defer f.Close()
	r, blank, err := newSegmentReader(io.LimitReader(f, limit))
	if errors.Is(err, errTorn) {
		if blank {
			return seg, nil, nil // made for what comes, and not used yet
		}
		return seg, nil, fmt.Errorf("%w: %s has no head", ErrDamaged, path)
	}
	if err != nil {
		return seg, nil, err
	}
	seg = segment{path: path, epoch: r.epoch, base: r.base}
	seen = []sighting{r.base}
	for {
		seg.end = r.end
		fr, err := r.next()
		if errors.Is(err, errTorn) {
			break
		}
		if err == nil && fr.before != seen[len(seen)-1].size {
			err = fmt.Errorf("%w: %s: a batch begins at record %d, and the one before ends at %d", ErrDamaged, path, fr.before, seen[len(seen)-1].size)
		}
		if err == nil && each != nil {
			err = each(fr)
		}
		if err != nil {
			return seg, seen, err
		}
		if fr.size > fr.before {
			seen = append(seen, fr.sighting)
		}
	}
	seg.used = slices.ContainsFunc(r.tried, func(b byte) bool { return b != 0 })
	damaged, err := r.rest(&seg)
	if err == nil && damaged {
		err = fmt.Errorf("%w: %s: the batch behind record %d cannot be read", ErrDamaged, path, seen[len(seen)-1].size)
	}
	return seg, seen, err
}

// frames calls each with every frame, in order.
func (h *history) frames(each func(*frame) error) error {
	for _, seg := range h.segments {
		if _, _, err := readSegment(seg.path, seg.end, each); err != nil {
			return err
		}
	}
	return nil
}

// readLive reads the active file of a write-ahead log that goes on being written,
// up to what is durable now.
func readLive(now func() segment) (*history, error) {
	for {
		want := now()
		seg, seen, err := readSegment(want.path, want.end, nil)
		switch {
		case err != nil && !errors.Is(err, ErrDamaged):
			return nil, fmt.Errorf("read the write-ahead log: %w", err)
		case err == nil && seg.epoch == want.epoch && seg.end == want.end:
			return &history{seen: seen}, nil
		case now().epoch == want.epoch:
			return nil, fmt.Errorf("%w: %s is not what was written to it", ErrDamaged, want.path)
		}
		// It was used anew meanwhile: the log goes on in the other file.
	}
}
