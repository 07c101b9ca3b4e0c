package hubspot

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/hsagent/hsagentd/wire"
)

// Limits of a call's target, in bytes.
const (
	MaxPath   = 2048     // the path alone
	MaxTarget = 16 << 10 // path and query
)

// CallPrefix starts the request target of every call.
const CallPrefix = "/v1/call/"

// A Target is a checked path and query, as they go to HubSpot. Its path starts
// with exactly one slash and names nothing outside itself: no dot segment, no
// encoded separator, no host. The zero value is no target; [ParseTarget] makes
// valid ones.
type Target struct {
	Path     string // as it came, escapes and all, with runs of slashes folded
	RawQuery string // as it came, without the "?"
}

// String is the target exactly as it is sent.
func (t Target) String() string {
	if t.RawQuery == "" {
		return t.Path
	}
	return t.Path + "?" + t.RawQuery
}

// SplitCall takes the slug and what follows it out of the raw request target
// of a call, "/v1/call/acme-corp/crm/v3/objects/contacts?limit=10". The rest
// is for [ParseTarget]. It decodes nothing, so an escape cannot move the
// border between the two. The error is a [*wire.Problem].
func SplitCall(requestURI string) (slug wire.Slug, rest string, err error) {
	after, ok := strings.CutPrefix(requestURI, CallPrefix)
	if !ok {
		return wire.Slug{}, "", wire.Errorf(wire.CodeBadRequest, "request target %s: want %s{slug}/{path}", shown(requestURI), CallPrefix)
	}
	end := strings.IndexAny(after, "/?")
	name := after
	if end >= 0 {
		name = after[:end]
	}
	slug, err = wire.ParseSlug(name)
	if err != nil {
		return wire.Slug{}, "", wire.Errorf(wire.CodeBadRequest, "slug %s: %v", shown(name), wire.ErrBadSlug)
	}
	if end < 0 || after[end] == '?' {
		return wire.Slug{}, "", wire.Errorf(wire.CodeBadRequest, "the call for %s names no path: want %s%s/{path}, such as /crm/v3/objects/contacts", slug, CallPrefix, slug)
	}
	return slug, after[end:], nil
}

// ParseTarget checks raw, a path and query as the client wrote them, and
// returns what is sent. Runs of slashes in the path are folded; nothing else
// changes. Whatever could name another resource to a server that decodes once
// more than we do is refused, however deep it is encoded. The error is a
// [*wire.Problem]: bad_request, or denied for paths and parameters that move
// credentials.
func ParseTarget(raw string) (Target, error) {
	if len(raw) > MaxTarget {
		return Target{}, badTarget("the path and query have %d bytes, more than %d: put long filters into the body of a search", len(raw), MaxTarget)
	}
	if raw == "" || raw[0] != '/' {
		return Target{}, badTarget(`path %s: want a path that starts with "/": the agent chooses the host itself`, shown(raw))
	}
	if err := checkBytes(raw); err != nil {
		return Target{}, err
	}
	path, query, _ := strings.Cut(raw, "?")
	if len(path) > MaxPath {
		return Target{}, badTarget("the path has %d bytes, more than %d", len(path), MaxPath)
	}
	if err := checkPath(path); err != nil {
		return Target{}, err
	}
	path = fold(path)
	if path == "/" {
		return Target{}, badTarget("the call names no path: want one such as /crm/v3/objects/contacts")
	}
	if err := checkForbidden(path); err != nil {
		return Target{}, err
	}
	if err := checkQuery(query); err != nil {
		return Target{}, err
	}
	if hasToken(path) {
		return Target{}, badTarget("a token stands in the path: the agent adds the token itself; rotate this one if it is real")
	}
	return Target{Path: path, RawQuery: query}, nil
}

// checkBytes refuses what no part of a target may have.
func checkBytes(raw string) error {
	for i := range len(raw) {
		switch c := raw[i]; {
		case c <= ' ' || c == 0x7f:
			return badTarget("path %s: byte %d is a space or a control byte: write it as an escape such as %%20", shown(raw), i)
		case c >= 0x80:
			return badTarget("path %s: byte %d is not ASCII: write it as percent escapes", shown(raw), i)
		case c == '\\':
			return badTarget("path %s: a backslash may not stand in a path", shown(raw))
		case c == '#':
			return badTarget("path %s: a fragment is not sent to HubSpot: write # as %%23 if it belongs to a value", shown(raw))
		case c == '%' && (i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2])):
			return badTarget("path %s: byte %d starts no percent escape: write %% itself as %%25", shown(raw), i)
		}
	}
	return nil
}

// checkPath refuses a path that means more than its segments say.
func checkPath(path string) error {
	if strings.Contains(path, "://") {
		return badTarget("path %s: want the path alone, without scheme and host", shown(path))
	}
	for seg := range strings.SplitSeq(path, "/") {
		d := decodeAll(seg)
		switch {
		case d == "." || d == "..":
			return badTarget("path %s: %q and %q segments are refused in every encoding", shown(path), ".", "..")
		case strings.ContainsAny(d, `/\`):
			return badTarget("path %s: an encoded slash or backslash is refused: HubSpot's paths need none", shown(path))
		case strings.Contains(d, ";"):
			return badTarget("path %s: a semicolon may not stand in a path", shown(path))
		case strings.ContainsFunc(d, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return badTarget("path %s: an encoded control byte is refused", shown(path))
		case !utf8.ValidString(d):
			return badTarget("path %s: the escapes do not decode to UTF-8", shown(path))
		}
	}
	return nil
}

// checkForbidden denies HubSpot's token endpoints, which put tokens into paths
// and bodies.
func checkForbidden(path string) error {
	for i, seg := range strings.Split(path[1:], "/") {
		d := strings.TrimSpace(decodeAll(seg))
		if i == 0 && strings.EqualFold(d, "oauth") || hasPrefixFold(d, "access-token") || hasPrefixFold(d, "refresh-token") {
			return wire.Errorf(wire.CodeDenied, "path %s: HubSpot's token endpoints are not reachable through the agent; for the portal's identity use hsctl verify", shown(path))
		}
	}
	return nil
}

// checkQuery denies parameters that carry credentials.
func checkQuery(query string) error {
	if query == "" {
		return nil
	}
	for pair := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		switch d := strings.TrimSpace(strings.ReplaceAll(decodeAll(name), "+", " ")); {
		case strings.EqualFold(d, "hapikey"), strings.EqualFold(d, "access_token"):
			return wire.Errorf(wire.CodeDenied, "query parameter %q: credentials do not travel in the query; the agent adds the token itself", strings.ToLower(d))
		}
	}
	if hasToken(query) {
		return badTarget("a token stands in the query: the agent adds the token itself; rotate this one if it is real")
	}
	return nil
}

// fold turns every run of slashes into one.
func fold(path string) string {
	if !strings.Contains(path, "//") {
		return path
	}
	b := make([]byte, 0, len(path))
	for i := range len(path) {
		if path[i] != '/' || len(b) == 0 || b[len(b)-1] != '/' {
			b = append(b, path[i])
		}
	}
	return string(b)
}

// decodeAll undoes percent escapes, and the %uXXXX of some old servers, until
// none is left: what the most eager chain of servers could make of s. It looks
// at the end of what it has written after each byte, so that even deeply
// nested escapes take linear time.
func decodeAll(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		out = append(out, s[i])
		for {
			n := len(out)
			if n >= 3 && out[n-3] == '%' && isHex(out[n-2]) && isHex(out[n-1]) {
				out = append(out[:n-3], unhex(out[n-2])<<4|unhex(out[n-1]))
				continue
			}
			if n >= 6 && out[n-6] == '%' && out[n-5]|0x20 == 'u' && isHex(out[n-4]) && isHex(out[n-3]) && isHex(out[n-2]) && isHex(out[n-1]) {
				r := rune(unhex(out[n-4]))<<12 | rune(unhex(out[n-3]))<<8 | rune(unhex(out[n-2]))<<4 | rune(unhex(out[n-1]))
				out = utf8.AppendRune(out[:n-6], r)
				continue
			}
			break
		}
	}
	return string(out)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// hasToken reports whether anything in s, however often it is percent-encoded,
// has a token's form.
func hasToken(s string) bool {
	d := decodeAll(s)
	return wire.MaskTokens(d) != d
}

// unescape decodes one segment once, or leaves it as it is.
func unescape(seg string) string {
	if d, err := url.PathUnescape(seg); err == nil {
		return d
	}
	return seg
}

// shown is input for a message: masked even where a token is percent-encoded.
func shown(raw string) string {
	if len(raw) > MaxTarget {
		raw = raw[:MaxTarget]
	}
	if hasToken(raw) {
		raw = decodeAll(raw)
	}
	return wire.Quote(raw)
}

func badTarget(format string, args ...any) error {
	return wire.Errorf(wire.CodeBadRequest, format, args...)
}
