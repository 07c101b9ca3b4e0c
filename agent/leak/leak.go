package leak

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// minToken is the shortest token that is searched for. [wire.Token.Check]
// refuses shorter ones, and they would mask half of every answer.
const minToken = 8

// Sizes of the skip table.
const (
	block     = 3 // bytes that choose a skip
	tableBits = 12
	maxSkip   = 255
)

// maxEscape is the most bytes that one escaped character takes (\uXXXX).
const maxEscape = 6

// Needles finds one token in all its forms. It is immutable and safe for
// concurrent use; make one per token and keep it beside the token, for it
// contains the token. The nil *Needles finds nothing.
type Needles struct {
	plain [][]byte // forms that are found byte by byte
	mixed []string // forms whose characters may each be escaped

	shortest int  // of plain
	longest  int  // of plain
	maxHold  int  // the longest beginning of an occurrence that is none yet
	escapes  bool // len(mixed) > 0

	first [256]bool // bytes that can begin an occurrence
	inner [256]bool // bytes that an escape must stand for
	skip  [1 << tableBits]uint8
}

// New prepares the search for token. A token shorter than 8 bytes, which no
// store may hold, is not searched for.
func New(token wire.Token) *Needles {
	n := &Needles{}
	s := token.Reveal()
	if len(s) < minToken {
		return n
	}
	forms := distinct(s, strings.ToLower(s), strings.ToUpper(s))
	plain := forms
	for _, f := range forms {
		if strings.ContainsAny(f, `%\`) {
			// Escapes inside this one cannot be told from its own
			// characters: take the forms that encoders really write.
			quoted, _ := json.Marshal(f) // a string always marshals
			plain = append(plain, url.QueryEscape(f), url.PathEscape(f), string(quoted[1:len(quoted)-1]))
		} else {
			n.mixed = append(n.mixed, f)
		}
	}
	for before := range 3 {
		plain = append(plain, inBase64(base64.StdEncoding, before, s), inBase64(base64.URLEncoding, before, s))
	}
	x := hex.EncodeToString([]byte(s))
	plain = append(plain, x, strings.ToUpper(x))
	n.prepare(distinct(plain...))
	return n
}

// inBase64 is what stands for s, and for s alone, in the encoding of a text
// that has s after a number of other bytes: characters that also encode a bit
// of a neighbour are left out.
func inBase64(enc *base64.Encoding, before int, s string) string {
	e := enc.EncodeToString([]byte(strings.Repeat("\x00", before) + s))
	return e[(before*8+5)/6 : (before+len(s))*8/6]
}

func distinct(ss ...string) []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range ss {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// prepare fills the tables.
func (n *Needles) prepare(plain []string) {
	n.shortest = len(plain[0])
	for _, s := range plain {
		n.plain = append(n.plain, []byte(s))
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
func (n *Needles) find(d []byte, spans []span) []span {
	if n == nil || n.shortest == 0 {
		return spans
	}
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
	spans := n.find(b, few[:0])
	for _, s := range spans {
		star(b[s.start:s.end])
	}
	return len(spans)
}

// MaskString is Mask for a string, such as the value of a header. It reports
// whether anything was masked.
func (n *Needles) MaskString(s string) (string, bool) {
	if n == nil || n.shortest == 0 || len(s) < n.shortest {
		return s, false
	}
	b := []byte(s)
	if n.Mask(b) == 0 {
		return s, false
	}
	return string(b), true
}

func star(b []byte) {
	for i := range b {
		b[i] = '*'
	}
}
