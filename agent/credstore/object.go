package credstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// maxDepth is how deep the JSON of a store may nest. A store of ours nests
// four deep; the rest is room for keys that this package does not know.
const maxDepth = 32

// A member is one key of a JSON object, with its value as it was written.
type member struct {
	key string
	raw json.RawMessage
}

// An object is a JSON object that remembers the order of its keys and the
// spelling of its values, so that a rewrite changes nothing it need not. It
// may hold a key twice: who reads it decides what that means.
type object []member

// parseObject reads raw, which must be valid JSON, as an object.
func parseObject(raw []byte) (object, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, errors.New("want a JSON object")
	}
	var o object
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := tok.(string)
		if !ok {
			return nil, errors.New("want a string as key")
		}
		m := member{key: key}
		if err := dec.Decode(&m.raw); err != nil {
			return nil, err
		}
		o = append(o, m)
	}
	return o, nil
}

// get returns the first value of key; nil if there is none or it is null.
func (o object) get(key string) json.RawMessage {
	for _, m := range o {
		if m.key == key && string(m.raw) != "null" {
			return m.raw
		}
	}
	return nil
}

// set gives key the value v where the key stands, or at the end; a second
// standing of the key goes.
func (o *object) set(key string, v any) error {
	raw, err := encode(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
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
	return nil
}

// remove drops key and reports whether it was there.
func (o *object) remove(key string) bool {
	out := (*o)[:0]
	for _, m := range *o {
		if m.key != key {
			out = append(out, m)
		}
	}
	gone := len(out) < len(*o)
	*o = out
	return gone
}

// ambiguous returns a key that stands twice, or that differs from one of the
// known keys in case alone; "" if there is none. Programs disagree on what
// such an object means (the last of two wins here, the first there; some
// ignore case), and a store must mean one thing.
func (o object) ambiguous(known ...string) string {
	seen := make(map[string]bool, len(o))
	for _, m := range o {
		if seen[m.key] {
			return m.key
		}
		seen[m.key] = true
		for _, k := range known {
			if m.key != k && strings.EqualFold(m.key, k) {
				return m.key
			}
		}
	}
	return ""
}

// MarshalJSON writes the object with its keys in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := encode(m.key)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(m.raw)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// encode writes v as JSON without escaping <, > and &. An object is written
// directly, so that the spelling of its values stays.
func encode(v any) (json.RawMessage, error) {
	if o, ok := v.(object); ok {
		return o.MarshalJSON()
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// tooDeep reports whether valid JSON nests deeper than maxDepth.
func tooDeep(b []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
