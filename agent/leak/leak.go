package leak

import (
	"bytes"
	"runtime"
	"strings"
	"sync"

	"github.com/hsagent/hsagentd/wire"
	"github.com/hsagent/hsagentd/wire/secret"
)

// Sizes of the skip table.
const (
	block     = 3 // bytes that choose a skip
	tableBits = 12
	maxSkip   = 255
)

// maxEscape is the most bytes that one escaped character takes (\uXXXX).
const maxEscape = 6

// Needles finds one token in all its forms. It is safe for concurrent use; make
// one per token and keep it beside the token. It is made ready at its first use,
// so that a portal without calls costs nothing. The nil *Needles finds nothing.
type Needles struct {
	token wire.Token
	once  sync.Once
	ready *forms
}

// New returns the search for token. One that [wire.Token.Check] refuses, and
// that no store may hold, is not searched for: a short one would mask half of
// every answer.
func New(token wire.Token) *Needles { return &Needles{token: token} }

// forms returns the token's forms, nil where nothing is searched for.
func (n *Needles) forms() *forms {
	if n == nil {
		return nil
	}
	n.once.Do(func() {
		if n.token.Check() == nil {
			n.ready = newForms(n.token)
		}
	})
	return n.ready
}

// forms are all that a token is searched as. They stand in secret memory, for
// as long as somebody holds them. They are immutable.
type forms struct {
	mem   *secret.Bytes
	plain [][]byte // forms that are found byte by byte
	mixed [][]byte // forms whose characters may each be escaped

	shortest int  // of plain
	longest  int  // of plain
	maxHold  int  // the longest beginning of an occurrence that is none yet
	escapes  bool // len(mixed) > 0

	first [256]bool // bytes that can begin an occurrence
	inner [256]bool // bytes that an escape must stand for
	skip  [1 << tableBits]uint8
}

// prepare fills the tables.
func (n *forms) prepare() {
	n.shortest = len(n.plain[0])
	for _, s := range n.plain {
		n.shortest = min(n.shortest, len(s))
		n.longest = max(n.longest, len(s))
		n.first[s[0]] = true
	}
	n.maxHold = n.longest - 1
	n.escapes = len(n.mixed) > 0
	for _, s := range n.mixed {
		n.maxHold = max(n.maxHold, maxEscape*len(s)-1)
		for i := range len(s) {
			n.inner[s[i]] = true
		}
	}
	if n.escapes {
		n.first['%'], n.first['\\'] = true, true
	}
	// The skip of a block is how far the window may move on when the block
	// ends it: as far as until the block's last place in any needle's first
	// n.shortest bytes comes to lie under it.
	free := min(n.shortest-block+1, maxSkip)
	for i := range n.skip {
		n.skip[i] = uint8(free) //nolint:gosec // at most maxSkip
	}
	for _, s := range n.plain {
		for i := 0; i+block <= n.shortest; i++ {
			h := hash(s[i], s[i+1], s[i+2])
			n.skip[h] = uint8(min(int(n.skip[h]), n.shortest-block-i)) //nolint:gosec // at most maxSkip
		}
	}
}

func hash(a, b, c byte) uint32 {
	return (uint32(a) | uint32(b)<<8 | uint32(c)<<16) * 0x9e3779b1 >> (32 - tableBits)
}

// A span is where an occurrence stands: [start, end).
type span struct{ start, end int }

// find appends every occurrence in d to spans, in no particular order.
func (n *forms) find(d []byte, spans []span) []span {
	if n == nil {
		return spans
	}
	defer runtime.KeepAlive(n.mem)
	// Wu and Manber's search for several needles: look at the block that ends
	// a window as long as the shortest needle, and move on by what it allows.
	for i := n.shortest - block; i+block <= len(d); {
		skip := n.skip[hash(d[i], d[i+1], d[i+2])]
		if skip > 0 {
			i += int(skip)
			continue
		}
		start := i - (n.shortest - block)
		for _, s := range n.plain {
			if start+len(s) <= len(d) && string(d[start:start+len(s)]) == string(s) {
				spans = append(spans, span{start, start + len(s)})
			}
		}
		i++
	}
	if n.escapes {
		spans = n.findEscaped(d, '%', spans)
		spans = n.findEscaped(d, '\\', spans)
	}
	return spans
}

// Mask masks every occurrence in b in place and returns how many it found.
func (n *Needles) Mask(b []byte) int {
	var few [8]span
	spans := n.forms().find(b, few[:0])
	for _, s := range spans {
		star(b[s.start:s.end])
	}
	return len(spans)
}

// MaskString is Mask for a string, such as the value of a header. It reports
// whether anything was masked.
func (n *Needles) MaskString(s string) (string, bool) {
	if f := n.forms(); f == nil || len(s) < f.shortest {
		return s, false
	}
	b := []byte(s)
	if n.Mask(b) == 0 {
		return s, false
	}
	return string(b), true
}

// InName reports whether an occurrence stands in a header's name, of which
// nobody keeps the case.
func (n *Needles) InName(name string) bool {
	f := n.forms()
	if f == nil || len(name) < f.shortest {
		return false
	}
	defer runtime.KeepAlive(f.mem)
	b := []byte(strings.ToLower(name))
	for _, s := range f.plain {
		for i := 0; i+len(s) <= len(b); i++ {
			if bytes.EqualFold(b[i:i+len(s)], s) {
				return true
			}
		}
	}
	return n.Mask(b) > 0
}

func star(b []byte) {
	for i := range b {
		b[i] = '*'
	}
}
