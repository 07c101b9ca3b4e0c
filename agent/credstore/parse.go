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

// A document is a store's plaintext taken apart, ready to be edited.
type document struct {
	top     object
	portals object // slug as spelled -> entry
	fleet   *fleet // the same, read
	store   *Store
}

// Parse reads the plaintext of a store. What makes the whole store doubtful is
// an error that wraps [ErrBadStore]: no JSON object, bytes behind it, a byte
// order mark, invalid UTF-8, nesting deeper than 32, a key of the top level
// twice, no portals map, a version that is no integer from 0 to 2^53-1. What
// concerns one entry rejects that entry alone; see [Store.Rejected]. No error
// and no reason contains a token.
func Parse(plaintext []byte) (*Store, error) {
	d, err := parseDocument(plaintext)
	if err != nil {
		return nil, err
	}
	return d.store, nil
}

func parseDocument(plaintext []byte) (*document, error) {
	bad := func(format string, args ...any) (*document, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrBadStore}, args...)...)
	}
	switch {
	case bytes.HasPrefix(plaintext, []byte("\xef\xbb\xbf")):
		return bad("it starts with a byte order mark: write it as plain UTF-8")
	case !utf8.Valid(plaintext):
		return bad("it is not valid UTF-8")
	case !json.Valid(plaintext):
		return bad("%s", syntaxError(plaintext))
	case tooDeep(plaintext):
		return bad("its JSON nests deeper than %d", maxDepth)
	}
	top, err := parseObject(plaintext)
	if err != nil {
		return bad("%v at the top level", err)
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
	if !json.Valid(plaintext) {
		return bad("%s", syntaxError(plaintext))
	}
	f := readFleet(portals)
	f.fill(s)
	return &document{top, portals, f, s}, nil
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
func integer(raw json.RawMessage) (int64, error) {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n > maxInt || n < -maxInt {
		return 0, errors.New("not an integer below 2^53")
	}
	return n, nil
}

// timestamp reads a JSON string that is an RFC 3339 time; "" is the zero time.
func timestamp(raw json.RawMessage) (time.Time, error) {
	var t wire.Time
	if err := json.Unmarshal(raw, &t); err != nil {
		return time.Time{}, errors.New("not an RFC 3339 time")
	}
	return t.Time, nil
}
