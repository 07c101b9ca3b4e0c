package credstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxDepth is how deep the JSON of a store may nest. A store of ours nests
// four deep; the rest is room for keys that this package does not know.
const maxDepth = 32

// A member is one key of a JSON object, with its value as it was written. The
// value may be a part of the store's plaintext, which is erased.
type member struct {
	key string
	raw []byte
}

// An object is a JSON object that remembers the order of its keys and the
// spelling of its values, so that a rewrite changes nothing it need not. It
// may hold a key twice: who reads it decides what that means.
type object []member

// entrySize is about what an entry takes, to guess how many there are.
const entrySize = 150

var errNoObject = errors.New("want a JSON object")

// parseObject reads raw, and nothing behind it, as an object.
func parseObject(raw []byte) (object, error) {
	i := skipSpace(raw, 0)
	if i >= len(raw) || raw[i] != '{' {
		return nil, errNoObject
	}
	o := make(object, 0, len(raw)/entrySize+8)
	end, err := skipMembers(raw, i, maxDepth, func(key, value []byte) {
		o = append(o, member{keyOf(key), value})
	})
	if err != nil {
		return nil, err
	}
	if skipSpace(raw, end) != len(raw) {
		return nil, errSyntax
	}
	return o, nil
}

// keyOf reads a key. Those that are known need no string of their own.
func keyOf(raw []byte) string {
	if inside, ok := plainInside(raw); ok {
		if i, ok := knownKeys[string(inside)]; ok {
			return i
		}
	}
	key, _ := str(raw) // a valid string can be read
	return key
}

var knownKeys = func() map[string]string {
	m := make(map[string]string)
	for _, key := range append([]string{keyVersion, keyPortals, keyLastUpdated, keyUntil}, entryKeys...) {
		m[key] = key
	}
	return m
}()

// get returns the first value of key; nil if there is none or it is null.
func (o object) get(key string) []byte {
	for _, m := range o {
		if m.key == key && string(m.raw) != "null" {
			return m.raw
		}
	}
	return nil
}

// set gives key the value v where the key stands, or at the end; a second
// standing of the key goes. v is no secret.
func (o *object) set(key string, v any) error {
	raw, err := encode(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	o.setRaw(key, raw)
	return nil
}

// setRaw is set with the value as it is to be written.
func (o *object) setRaw(key string, raw []byte) {
	out, done := (*o)[:0], false
	for _, m := range *o {
		if m.key == key {
			if done {
				continue
			}
			m.raw, done = raw, true
		}
		out = append(out, m)
	}
	if !done {
		out = append(out, member{key, raw})
	}
	*o = out
}

// remove drops key and reports whether it was there.
func (o *object) remove(key string) bool {
	before := len(*o)
	*o = slices.DeleteFunc(*o, func(m member) bool { return m.key == key })
	return len(*o) < before
}

// ambiguous returns a key that stands twice, or that differs from one of the
// known keys in case alone; "" if there is none. Programs disagree on what
// such an object means (the last of two wins here, the first there; some
// ignore case), and a store must mean one thing.
func (o object) ambiguous(known ...string) string {
	twice := o.twice()
	for i, m := range o {
		if twice[m.key] && slices.ContainsFunc(o[:i], func(before member) bool { return before.key == m.key }) {
			return m.key
		}
		if slices.Contains(known, m.key) {
			continue
		}
		for _, k := range known {
			if strings.EqualFold(m.key, k) {
				return m.key
			}
		}
	}
	return ""
}

// twice returns the keys that stand more than once; nil for none.
func (o object) twice() map[string]bool {
	const few = 32
	var out map[string]bool
	note := func(key string) {
		if out == nil {
			out = make(map[string]bool)
		}
		out[key] = true
	}
	if len(o) <= few {
		for i := range o {
			for j := range i {
				if o[i].key == o[j].key {
					note(o[i].key)
				}
			}
		}
		return out
	}
	seen := make(map[string]bool, len(o))
	for _, m := range o {
		if seen[m.key] {
			note(m.key)
		}
		seen[m.key] = true
	}
	return out
}

// size is how many bytes appendTo appends.
func (o object) size() int {
	n := len("{}") + max(len(o)-1, 0)
	for _, m := range o {
		n += len(appendKey(nil, m.key)) + len(":") + len(m.raw)
	}
	return n
}

// appendTo appends the object as JSON, its keys in their order. b has room for
// it: growing would leave a copy behind.
func (o object) appendTo(b []byte) []byte {
	b = append(b, '{')
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendKey(b, m.key)
		b = append(b, ':')
		b = append(b, m.raw...)
	}
	return append(b, '}')
}

func appendKey(b []byte, key string) []byte {
	for i := range len(key) {
		if c := key[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			raw, _ := encode(key) // a string always encodes
			return append(b, raw...)
		}
	}
	b = append(b, '"')
	b = append(b, key...)
	return append(b, '"')
}

// encode writes v, which is no secret, as JSON without escaping <, > and &.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
