package leak

import (
	"bytes"
	"io"
	"runtime"
)

// maxEmptyReads is how often in a row the source may answer neither bytes nor
// an error.
const maxEmptyReads = 100

// A Reader passes a stream on with every occurrence of the token masked,
// wherever the stream is cut into reads. It holds back no more than the bytes
// at the end that could still become an occurrence. It is not safe for
// concurrent use.
type Reader struct {
	n   *forms // nil: nothing is searched for
	src io.Reader
	err error // of src, passed on when all bytes are out

	held    []byte // read and not yet passed on, as it came
	covered int    // bytes of held that belong to an occurrence begun before it
	spans   []span // reused
	leaked  bool

	small []byte // takes the reads for a p too small to search in
	ready []byte // of small: searched, not yet passed on
}

// Reader returns a [Reader] that masks what it reads from src.
func (n *Needles) Reader(src io.Reader) *Reader {
	return &Reader{n: n.forms(), src: src}
}

// Leaked reports whether an occurrence was found so far.
func (r *Reader) Leaked() bool { return r.leaked }

// Read reads into p. It returns the source's error after the last byte,
// whatever the error is; bytes held back come out before it.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.ready) == 0 {
		room := 512
		if r.n != nil {
			room += 2 * r.n.maxHold
		}
		if len(p) >= room {
			return r.fill(p)
		}
		if r.small == nil {
			r.small = make([]byte, room)
		}
		n, err := r.fill(r.small)
		if n == 0 {
			return 0, err
		}
		r.ready = r.small[:n] // fill repeats its error
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// fill reads from the source until there is something to pass on, or an error.
// It returns bytes or an error, never both. d is longer than what can be held.
func (r *Reader) fill(d []byte) (int, error) {
	for empty := 0; ; {
		if r.err != nil && len(r.held) == 0 {
			return 0, r.err
		}
		have := copy(d, r.held)
		if r.err == nil {
			k, err := r.src.Read(d[have:])
			if k == 0 && err == nil {
				if empty++; empty == maxEmptyReads {
					err = io.ErrNoProgress
				} else {
					continue
				}
			}
			have += k
			r.err = err
		}
		if n := r.search(d[:have]); n > 0 {
			return n, nil
		}
		empty = 0
	}
}

// search masks the occurrences in d, keeps the end of it that may still become
// one, and returns how many bytes are ready.
func (r *Reader) search(d []byte) int {
	r.spans = r.n.find(d, r.spans[:0])
	r.leaked = r.leaked || len(r.spans) > 0
	ready := len(d)
	if r.err == nil {
		ready = r.n.undecided(d)
	}
	r.held = append(r.held[:0], d[ready:]...)

	// Occurrences that begin in what is held will be found again; those that
	// only reach into it will not, and are remembered by how far.
	star(d[:r.covered])
	r.covered = max(r.covered-ready, 0)
	for _, s := range r.spans {
		if s.start < ready {
			star(d[s.start:s.end])
			r.covered = max(r.covered, s.end-ready)
		}
	}
	return ready
}

// undecided is where the end of d begins that more data could turn into an
// occurrence; len(d) if there is no such end.
func (n *forms) undecided(d []byte) int {
	if n == nil {
		return len(d)
	}
	defer runtime.KeepAlive(n.mem)
	from := max(len(d)-n.maxHold, 0)
	if plain := max(len(d)-n.longest+1, from); !n.escapes || !bytes.ContainsAny(d[from:], `%\`) {
		from = plain
	}
	for p := from; p < len(d); p++ {
		if n.first[d[p]] && n.couldBegin(d[p:]) {
			return p
		}
	}
	return len(d)
}

// couldBegin reports whether d is the beginning of an occurrence, and not yet
// all of it.
func (n *forms) couldBegin(d []byte) bool {
	for _, s := range n.plain {
		if len(d) < len(s) && string(d) == string(s[:len(d)]) {
			return true
		}
	}
	for _, s := range n.mixed {
		if _, m := matchMixed(d, 0, s); m == partial {
			return true
		}
	}
	return false
}
