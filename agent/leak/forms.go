package leak

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"

	"github.com/hsagent/hsagentd/wire"
	"github.com/hsagent/hsagentd/wire/secret"
)

// A builder writes a token's forms into secret memory, one behind the other.
// Nothing of them gets into the heap on the way.
type builder struct {
	room  []byte // that is left
	plain [][]byte
	mixed [][]byte
}

// roomFor is enough for all forms of a token of n bytes.
func roomFor(n int) int {
	const (
		cases   = 3                   // as it is, in lower and in upper case
		escapes = cases * (3 + 3 + 6) // percent twice, JSON
		base64  = 6 * (2 + 3)         // the text and what it becomes, rounded up
		hex     = 2 * 2
		rounded = 6 * 16
	)
	return (cases+escapes+base64+hex)*n + rounded
}

// newForms prepares the search for a token that can be sent.
func newForms(token wire.Token) *forms {
	n := &forms{}
	token.Expose(func(t []byte) {
		scratch := secret.New(roomFor(len(t)))
		defer scratch.Erase()
		scratch.Expose(func(room []byte) {
			b := builder{room: room}
			b.build(t)
			n.keep(&b)
		})
	})
	n.prepare()
	return n
}

// keep copies what was built to where it stays.
func (n *forms) keep(b *builder) {
	size := 0
	for _, s := range b.plain {
		size += len(s)
	}
	n.mem = secret.New(size)
	n.mem.Expose(func(room []byte) {
		for _, s := range b.plain {
			k := copy(room, s)
			n.plain = append(n.plain, room[:k:k])
			for _, m := range b.mixed {
				if &m[0] == &s[0] { // those that are mixed are plain too
					n.mixed = append(n.mixed, room[:k:k])
				}
			}
			room = room[k:]
		}
	})
}

// take returns the next n bytes of the room.
func (b *builder) take(n int) []byte {
	s := b.room[:n:n]
	b.room = b.room[n:]
	return s
}

// add notes a form unless it is there already, and reports whether it was new.
func (b *builder) add(s []byte) bool {
	for _, p := range b.plain {
		if bytes.Equal(p, s) {
			return false
		}
	}
	b.plain = append(b.plain, s)
	return true
}

func (b *builder) build(t []byte) {
	for _, change := range []func(c byte) byte{same, lower, upper} {
		f := b.take(len(t))
		for i, c := range t {
			f[i] = change(c)
		}
		fresh := b.add(f)
		if bytes.ContainsAny(f, `%\`) {
			// Escapes inside this one cannot be told from its own
			// characters: take the forms that encoders really write.
			b.each(f, url.QueryEscape)
			b.each(f, url.PathEscape)
			b.each(f, inJSON)
		} else if fresh {
			b.mixed = append(b.mixed, f)
		}
	}
	for before := range 3 {
		b.addBase64(base64.StdEncoding, before, t)
		b.addBase64(base64.URLEncoding, before, t)
	}
	x := b.take(hex.EncodedLen(len(t)))
	hex.Encode(x, t)
	b.add(x)
	big := b.take(len(x))
	for i, c := range x {
		big[i] = upper(c)
	}
	b.add(big)
}

// each adds the form in which an encoder writes each character by itself.
func (b *builder) each(f []byte, encode func(string) string) {
	start := b.room
	n := 0
	for _, c := range f {
		n += copy(b.room[n:], encode(string(rune(c))))
	}
	b.take(n)
	b.add(start[:n:n])
}

// addBase64 adds what stands for t, and for t alone, in the encoding of a text
// that has t after a number of other bytes: characters that also encode a bit
// of a neighbour are left out.
func (b *builder) addBase64(enc *base64.Encoding, before int, t []byte) {
	text := b.take(before + len(t))
	copy(text[before:], t)
	e := b.take(enc.EncodedLen(len(text)))
	enc.Encode(e, text)
	b.add(e[(before*8+5)/6 : (before+len(t))*8/6])
}

func inJSON(c string) string {
	quoted, _ := json.Marshal(c) // a string always marshals
	return string(quoted[1 : len(quoted)-1])
}

func same(c byte) byte { return c }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}
