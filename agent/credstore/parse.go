package credstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/hsagent/hsagentd/wire"
)

// maxInt is the largest integer that every JSON program reads alike: 2^53-1.
const maxInt = 1<<53 - 1

// Keys of the store's top level.
const (
	keyVersion     = "version"
	keyPortals     = "portals"
	keyLastUpdated = "lastUpdated"
)

// A document is a store's plaintext taken apart, ready to be edited. It is good
// until it is erased; its store stays.
type document struct {
	top     object
	portals object // slug as spelled -> entry
	fleet   *fleet // the same, read
	store   *Store

	buffers [][]byte // all that has a token in it
}

// room returns an empty buffer for n bytes, which is erased with the document.
func (d *document) room(n int) []byte {
	b := make([]byte, 0, n)
	d.buffers = append(d.buffers, b[:n])
	return b
}

// erase overwrites everything that has a token in it, the plaintext that the
// document was read from included.
func (d *document) erase() {
	for _, b := range d.buffers {
		clear(b)
	}
}

// Parse reads the plaintext of a store. What makes the whole store doubtful is
// an error that wraps [ErrBadStore]: no JSON object, bytes behind it, a byte
// order mark, invalid UTF-8, nesting deeper than 32, a key of the top level
// twice, no portals map, a version that is no integer from 0 to 2^53-1. What
// concerns one entry rejects that entry alone; see [Store.Rejected]. No error
// and no reason contains a token.
func Parse(plaintext []byte) (*Store, error) {
	d, err := parseDocument(plaintext, nil)
	if err != nil {
		return nil, err
	}
	return d.store, nil
}

// parseDocument takes a store's plaintext apart. The plaintext is the
// document's from then on. What stands in known, by its slug, with the same
// bytes is not read again.
func parseDocument(plaintext []byte, known map[string]*standing) (*document, error) {
	bad := func(format string, args ...any) (*document, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrBadStore}, args...)...)
	}
	switch {
	case bytes.HasPrefix(plaintext, []byte("\xef\xbb\xbf")):
		return bad("it starts with a byte order mark: write it as plain UTF-8")
	case !utf8.Valid(plaintext):
		return bad("it is not valid UTF-8")
	}
	top, err := parseObject(plaintext)
	switch {
	case errors.Is(err, errNoObject) && json.Valid(plaintext):
		return bad("%v at the top level", err)
	case errors.Is(err, errDeep) && json.Valid(plaintext):
		return bad("its JSON nests deeper than %d", maxDepth)
	case err != nil:
		return bad("%s", syntaxError(plaintext))
	}
	if key := top.ambiguous(keyVersion, keyPortals, keyLastUpdated); key != "" {
		return bad("key %s stands twice at the top level, or in another case", wire.Quote(key))
	}
	version, err := integer(top.get(keyVersion))
	if err != nil || version < 0 {
		return bad(`"version" must be an integer from 0 to 2^53-1`)
	}
	rawPortals := top.get(keyPortals)
	if rawPortals == nil {
		return bad(`it has no "portals" map`)
	}
	portals, err := parseObject(rawPortals)
	if err != nil {
		return bad(`"portals": %v of slugs`, err)
	}

	s := &Store{Version: version}
	if raw := top.get(keyLastUpdated); raw != nil {
		// The time is for people: a bad one is worth no refusal.
		s.LastUpdated, _ = timestamp(raw)
	}
	f, all := readFleet(portals, known)
	f.fill(s, all)
	return &document{top: top, portals: portals, fleet: f, store: s, buffers: [][]byte{plaintext}}, nil
}

// syntaxError says where JSON breaks off, without showing any of it.
func syntaxError(b []byte) string {
	var v json.RawMessage
	err := json.Unmarshal(b, &v)
	var se *json.SyntaxError
	if errors.As(err, &se) {
		return fmt.Sprintf("its JSON breaks off at byte %d of %d", se.Offset, len(b))
	}
	return "it is no JSON"
}

// integer reads a JSON number that is written as an integer.
func integer(raw []byte) (int64, error) {
	n, err := strconv.ParseInt(string(raw[:min(len(raw), maxNumber)]), 10, 64)
	if err != nil || n > maxInt || n < -maxInt || len(raw) > maxNumber {
		return 0, errors.New("not an integer below 2^53")
	}
	return n, nil
}

// Texts that are longer than these are no number and no time: they are not
// even copied.
const (
	maxNumber = 20
	maxTime   = 40
)

// timestamp reads a JSON string that is an RFC 3339 time; "" is the zero time.
func timestamp(raw []byte) (time.Time, error) {
	bad := errors.New("not an RFC 3339 time")
	if len(raw) > maxTime {
		return time.Time{}, bad
	}
	s, ok := str(raw)
	if !ok || s == "" {
		if !ok {
			return time.Time{}, bad
		}
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, bad
	}
	return wire.At(t).Time, nil
}
