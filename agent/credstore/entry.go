package credstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// Keys of an entry.
const (
	keyToken       = "token"
	keyPortalID    = "portalId"
	keyClientSlug  = "clientSlug"
	keyAddedAt     = "addedAt"
	keyRotatedAt   = "lastRotatedAt"
	keyVerifiedAt  = "verifiedAt"
	keyDatacenter  = "datacenter"
	keyDataHosting = "dataHostingLocation"
	keyKind        = "kind"
	keyBaseURL     = "baseUrl"
	keyTimeZone    = "timeZone"
	keyAccountType = "accountType"
	keyScopes      = "scopes"
	keyPrevious    = "previous"
	keyUntil       = "until"
)

var entryKeys = []string{
	keyToken, keyPortalID, keyClientSlug, keyAddedAt, keyRotatedAt, keyVerifiedAt, keyDatacenter, keyDataHosting,
	keyKind, keyBaseURL, keyTimeZone, keyAccountType, keyScopes, keyPrevious,
}

// kinds are the kinds of token; "" is one that nobody named.
var kinds = []string{"", "service-key", "private-app", "static-app"}

// ValidKind reports whether kind is one of service-key, private-app and
// static-app, or "" where nobody named one.
func ValidKind(kind string) bool { return slices.Contains(kinds, kind) }

// baseURL is HubSpot's API or one of its regional hosts, and nothing that only
// looks like one: no port, no user, no path.
var baseURL = regexp.MustCompile(`^https://api(-[a-z]{2,4}[0-9]{1,2})?\.hubapi\.com/?$`)

// maxText is the longest descriptive text that is taken from an entry.
const maxText = 256

// A standing is what stands under one slug: all that it claims, and whether by
// itself it is a good entry. It never changes.
type standing struct {
	slug    string // as spelled
	entry   Entry
	reason  string       // why the entry is rejected, whatever the others are; or ""
	tokens  []wire.Token // every token and portal ID that can be read, good entry or not
	portals []int64

	sum sum // of the bytes that it was read from; the zero sum where that is not known
}

// A sum tells bytes from other bytes, within this process: two hashes with
// seeds that nobody knows, 128 bits in all. Making it copies nothing.
type sum struct {
	hashes [2]uint64
	length int
}

var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func sumOf(b []byte) sum {
	return sum{[2]uint64{maphash.Bytes(seeds[0], b), maphash.Bytes(seeds[1], b)}, len(b)}
}

// reject notes the first reason that an entry is bad.
func (st *standing) reject(format string, args ...any) {
	if st.reason == "" {
		st.reason = fmt.Sprintf(format, args...)
	}
}

// parseEntry reads what stands under slug. It goes on after the first fault,
// so that a token or portal ID is known even where the entry is bad.
func parseEntry(slug string, raw []byte) *standing {
	st := &standing{slug: slug}
	e := &st.entry
	o, err := parseObject(raw)
	if err != nil {
		st.reject("the entry is no JSON object")
		return st
	}
	for _, m := range o {
		switch m.key {
		case keyToken:
			var t wire.Token
			if err := t.UnmarshalJSON(m.raw); err == nil && !t.IsZero() {
				st.tokens = append(st.tokens, t)
			}
		case keyPortalID:
			if id, err := integer(m.raw); err == nil && id > 0 {
				st.portals = append(st.portals, id)
			}
		}
	}

	if e.Slug, err = wire.ParseSlug(slug); err != nil {
		st.reject("the slug is malformed: want lower-case words joined by single hyphens, at most %d bytes", wire.MaxSlug)
	}
	if key := o.ambiguous(entryKeys...); key != "" {
		if slices.Contains(st.tokens, wire.NewToken(key)) {
			key = "[token]"
		}
		st.reject("key %s stands twice in the entry, or in another case", wire.Quote(key))
	}
	switch client := o.get(keyClientSlug); {
	case client == nil:
		st.reject("clientSlug is missing")
	case !isStr(client, slug):
		st.reject("clientSlug differs from the slug that the entry stands under")
	}
	switch raw := o.get(keyToken); {
	case raw == nil:
		st.reject("it has no token")
	case e.Token.UnmarshalJSON(raw) != nil:
		st.reject("the token is no JSON string")
	default:
		if err := e.Token.Check(); err != nil {
			st.reject("%v", err)
		}
		if e.Token.In(slug) {
			st.reject("the slug contains the token, and everybody sees slugs")
		}
	}
	switch id, err := integer(o.get(keyPortalID)); {
	case o.get(keyPortalID) == nil:
		st.reject("portalId is missing")
	case err != nil || id <= 0:
		st.reject("portalId must be a positive integer below 2^53")
	default:
		e.PortalID = id
	}
	if raw := o.get(keyKind); raw != nil {
		kind, ok := str(raw)
		if !ok || kind == "" || !ValidKind(kind) {
			st.reject("kind must be service-key, private-app or static-app")
		}
		e.Kind = kind
	}
	if raw := o.get(keyBaseURL); raw != nil {
		u, ok := str(raw)
		if !ok || !baseURL.MatchString(u) {
			st.reject("baseUrl must be https://api.hubapi.com or a regional host such as https://api-eu1.hubapi.com")
		}
		e.BaseURL = strings.TrimSuffix(u, "/")
	}
	e.parseDetails(o)
	return st
}

// parseDetails reads what describes the portal but opens nothing: a fault
// there is a warning, for the portal serves without it.
func (e *Entry) parseDetails(o object) {
	e.AddedAt = e.time(o, keyAddedAt)
	e.LastRotatedAt = e.time(o, keyRotatedAt)
	e.VerifiedAt = e.time(o, keyVerifiedAt)
	e.DataHosting = e.text(o, keyDataHosting)
	e.TimeZone = e.text(o, keyTimeZone)
	e.AccountType = e.text(o, keyAccountType)

	e.Datacenter = e.text(o, keyDatacenter)
	if dc := e.Token.Datacenter(); dc != "" && dc != e.Datacenter {
		if e.Datacenter != "" {
			e.warn("datacenter says %s, the token's prefix %s: the prefix counts", wire.Quote(e.Datacenter), dc)
		}
		e.Datacenter = dc
	}
	if raw := o.get(keyScopes); raw != nil {
		var scopes []json.RawMessage
		if err := json.Unmarshal(raw, &scopes); err != nil {
			e.warn("scopes is passed over: want a list of strings")
		}
		for _, raw := range scopes {
			s, err := e.plain(raw)
			if err != nil {
				e.Scopes = nil
				e.warn("scopes is passed over: %v", err)
				break
			}
			e.Scopes = append(e.Scopes, s)
		}
	}
	if raw := o.get(keyPrevious); raw != nil {
		p, err := parsePrevious(raw)
		if err != nil {
			e.warn("previous is passed over: %v", err)
		}
		e.Previous = p
	}
}

func parsePrevious(raw []byte) (*Previous, error) {
	o, err := parseObject(raw)
	if err != nil {
		return nil, err
	}
	if o.ambiguous(keyToken, keyUntil) != "" {
		return nil, errors.New("a key of it stands twice, or in another case")
	}
	p := new(Previous)
	if raw := o.get(keyToken); raw != nil {
		if err := p.Token.UnmarshalJSON(raw); err != nil {
			return nil, err
		}
	}
	if err := p.Token.Check(); err != nil {
		return nil, err
	}
	if raw := o.get(keyUntil); raw != nil {
		if p.Until, err = timestamp(raw); err != nil {
			return nil, fmt.Errorf("until is %w", err)
		}
	}
	return p, nil
}

// warn notes what was passed over. The arguments must be free of tokens.
func (e *Entry) warn(format string, args ...any) {
	e.Warnings = append(e.Warnings, fmt.Sprintf(format, args...))
}

func (e *Entry) time(o object, key string) time.Time {
	raw := o.get(key)
	if raw == nil {
		return time.Time{}
	}
	t, err := timestamp(raw)
	if err != nil {
		e.warn("%s is passed over: %v", key, err)
	}
	return t
}

func (e *Entry) text(o object, key string) string {
	raw := o.get(key)
	if raw == nil {
		return ""
	}
	s, err := e.plain(raw)
	if err != nil {
		e.warn("%s is passed over: %v", key, err)
	}
	return s
}

// plain reads a text that clients will see: short, printable, and without a
// token pasted into the wrong field.
func (e *Entry) plain(raw []byte) (string, error) {
	s, ok := str(raw)
	switch {
	case !ok:
		return "", errors.New("want a string")
	case len(s) > maxText || wire.Printable(s) != s:
		return "", fmt.Errorf("want printable text of at most %d bytes", maxText)
	case wire.MaskTokens(s) != s || e.Token.In(s):
		return "", errors.New("a token stands there")
	}
	return s, nil
}
