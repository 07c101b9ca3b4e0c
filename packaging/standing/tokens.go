package standing

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

// Tokens are tokens to look for, in all the forms in which they may come out:
// as they are, in hexadecimal, escaped for URLs and JSON, in base64 at each of
// its three alignments, and in UTF-16. Nil has none.
type Tokens struct {
	needles []needle
	windows map[uint64][]window // by their bytes
	step    int                 // a needle has a whole window at one of so many places in a row
	longest int
}

type needle struct {
	token int
	form  string
	text  []byte
	exact bool // the case of letters matters
}

// A window is eight bytes of a needle.
type window struct{ needle, at int }

const (
	windowSize = 8
	shortest   = 2 * windowSize // of needles
)

// A Hit is a place where a token stands.
type Hit struct {
	Token int // which one, of those given to [NewTokens]
	Form  string
	At    int // where its form begins
	Size  int // of what was found there
}

// NewTokens makes ready to look for tokens.
func NewTokens(tokens ...wire.Token) *Tokens {
	k := &Tokens{windows: map[uint64][]window{}}
	for i, t := range tokens {
		k.add(i, t.Reveal())
	}
	least := 0
	for _, n := range k.needles {
		if least == 0 || len(n.text) < least {
			least = len(n.text)
		}
		k.longest = max(k.longest, len(n.text))
	}
	k.step = max(least-windowSize+1, 1)
	for i, n := range k.needles {
		for at := range k.step {
			key := fold(n.text[at:])
			k.windows[key] = append(k.windows[key], window{i, at})
		}
	}
	return k
}

// add adds the forms of a token.
func (k *Tokens) add(token int, raw string) {
	each := func(format string) string {
		var b strings.Builder
		for i := range len(raw) {
			fmt.Fprintf(&b, format, raw[i])
		}
		return b.String()
	}
	put := func(form, text string, exact bool) {
		if len(text) < shortest {
			panic("too short a token to look for: " + form)
		}
		for _, n := range k.needles {
			if n.token == token && string(n.text) == text {
				return
			}
		}
		k.needles = append(k.needles, needle{token, form, []byte(text), exact})
	}
	put("as it is", raw[min(8, len(raw)-shortest):], false) // what follows pat-na1-, the secret part, is enough
	put("hexadecimal", hex.EncodeToString([]byte(raw)), false)
	put("percent", strings.ReplaceAll(raw, "-", "%2d"), false)
	put("percent of all", each("%%%02x"), false)
	put("JSON", each(`\u%04x`), false)
	put("UTF-16", each("%c\x00"), false)
	for shift := range 3 {
		for form, e := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			text := e.EncodeToString([]byte("xyz"[:shift] + raw))
			put(fmt.Sprintf("%s+%d", form, shift), text[4:len(text)-4], true) // what does not depend on its neighbours
		}
	}
}

// fold reads a window; capital and small letters are the same.
func fold(b []byte) uint64 {
	return binary.LittleEndian.Uint64(b) | 0x2020202020202020
}

// Longest is the length of the longest form: pieces of a text that overlap by
// so much hide none.
func (k *Tokens) Longest() int { return k.longest }

// Find returns where tokens stand in text.
func (k *Tokens) Find(text []byte) []Hit {
	if k == nil {
		return nil
	}
	var hits []Hit
	for i := 0; i+windowSize <= len(text); i += k.step {
		for _, w := range k.windows[fold(text[i:])] {
			n := k.needles[w.needle]
			from, to := i-w.at, i-w.at+len(n.text)
			if from < 0 || to > len(text) {
				continue
			}
			if bytes.Equal(text[from:to], n.text) || !n.exact && bytes.EqualFold(text[from:to], n.text) {
				hits = append(hits, Hit{n.token, n.form, from, len(n.text)})
			}
		}
	}
	return hits
}

// Absent checks that no token stands in what came out (I3).
func (k *Tokens) Absent(t testing.TB, what string, text []byte) {
	t.Helper()
	if hits := k.Find(text); len(hits) > 0 { // the whole text would tell nobody anything
		require.Fail(t, "a token came out", "%s has token %d, %s, at byte %d of %d", what, hits[0].Token, hits[0].Form, hits[0].At, len(text))
	}
}
