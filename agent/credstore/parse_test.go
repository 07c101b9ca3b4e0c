package credstore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hsagent/hsagentd/wire"
	"github.com/stretchr/testify/require"
)

// tok is the made-up token number n.
func tok(n int) string { return fmt.Sprintf("pat-na1-00000000-0000-4000-8000-%012x", n) }

func slug(t testing.TB, s string) wire.Slug {
	t.Helper()
	v, err := wire.ParseSlug(s)
	require.NoError(t, err)
	return v
}

// good is a complete entry for slug s with token and portal ID n, and more
// members in JSON if there are any.
func good(s string, n int, more ...string) string {
	return fmt.Sprintf(`%q: {"token": %q, "portalId": %d, "clientSlug": %q, "addedAt": "2026-11-23T10:00:00Z", "datacenter": "na1"%s}`,
		s, tok(n), n, s, strings.Join(append([]string{""}, more...), ", "))
}

func storeOf(entries ...string) []byte {
	return []byte(`{"version": 7, "portals": {` + strings.Join(entries, ", ") + `}}`)
}

func TestParse(t *testing.T) {
	s, err := Parse([]byte(`{"version": 7, "lastUpdated": "2026-11-23T11:00:00Z", "owner": {"x": [1]}, "portals": {` +
		good("beta-inc", 2, `"kind": "service-key"`, `"baseUrl": "https://api-eu1.hubapi.com/"`, `"timeZone": "Europe/Berlin"`,
			`"accountType": "STANDARD"`, `"scopes": ["a", "b"]`, `"verifiedAt": "2026-11-23T10:00:00.5+01:00"`, `"note": null`,
			fmt.Sprintf(`"previous": {"token": %q, "until": "2026-11-30T10:00:00Z"}`, tok(9))) + `,` + good("acme-corp", 1) + `}}`))
	require.NoError(t, err)
	require.EqualValues(t, 7, s.Version)
	require.Equal(t, time.Date(2026, 11, 23, 11, 0, 0, 0, time.UTC), s.LastUpdated)
	require.Empty(t, s.Rejected)
	require.Equal(t, []Entry{
		{Slug: slug(t, "acme-corp"), Token: wire.NewToken(tok(1)), PortalID: 1, Datacenter: "na1",
			AddedAt: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)},
		{Slug: slug(t, "beta-inc"), Token: wire.NewToken(tok(2)), PortalID: 2, Datacenter: "na1",
			AddedAt:    time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC),
			VerifiedAt: time.Date(2026, 11, 23, 9, 0, 0, 5e8, time.UTC),
			Kind:       "service-key", BaseURL: "https://api-eu1.hubapi.com", TimeZone: "Europe/Berlin", AccountType: "STANDARD",
			Scopes: []string{"a", "b"}, Previous: &Previous{wire.NewToken(tok(9)), time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC)}},
	}, s.Entries)
	e, ok := s.Get(slug(t, "beta-inc"))
	require.True(t, ok)
	require.EqualValues(t, 2, e.PortalID)
	_, ok = s.Get(slug(t, "gamma"))
	require.False(t, ok)
}

func TestParseRefusesWhole(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", ``, "breaks off"},
		{"no JSON", `hello`, "breaks off at byte 1"},
		{"null", `null`, "want a JSON object"},
		{"list", `[]`, "want a JSON object"},
		{"number", `7`, "want a JSON object"},
		{"cut", `{"version": 1, "portals": {}`, "breaks off"},
		{"trailing data", `{"version": 1, "portals": {}} {}`, "breaks off at byte 31"},
		{"byte order mark", "\ufeff" + `{"version": 1, "portals": {}}`, "byte order mark"},
		{"invalid UTF-8", "{\"version\": 1, \"portals\": {}, \"x\": \"\xff\"}", "UTF-8"},
		{"NaN", `{"version": NaN, "portals": {}}`, "breaks off"},
		{"depth bomb", `{"version": 1, "portals": {}, "x": ` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`, "nests deeper than 32"},
		{"deeper than any decoder", strings.Repeat(`{"a":`, 100_000), "not a store"},
		{"no portals", `{"version": 1}`, `no "portals" map`},
		{"portals null", `{"version": 1, "portals": null}`, `no "portals" map`},
		{"portals list", `{"version": 1, "portals": []}`, `"portals": want a JSON object`},
		{"portals in another case", `{"version": 1, "Portals": {}}`, `"Portals" stands twice`},
		{"portals twice", `{"version": 1, "portals": {}, "portals": {}}`, `"portals" stands twice`},
		{"version twice, once escaped", `{"version": 1, "portals": {}, "versio\u006e": 2}`, `"version" stands twice`},
		{"unknown key twice", `{"version": 1, "x": 1, "portals": {}, "x": 1}`, `"x" stands twice`},
		{"no version", `{"portals": {}}`, `"version" must be`},
		{"version null", `{"version": null, "portals": {}}`, `"version" must be`},
		{"version negative", `{"version": -1, "portals": {}}`, `"version" must be`},
		{"version a string", `{"version": "1", "portals": {}}`, `"version" must be`},
		{"version a fraction", `{"version": 1.5, "portals": {}}`, `"version" must be`},
		{"version with exponent", `{"version": 1e3, "portals": {}}`, `"version" must be`},
		{"version 2^53", `{"version": 9007199254740992, "portals": {}}`, `"version" must be`},
		{"version 2^64", `{"version": 18446744073709551616, "portals": {}}`, `"version" must be`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse([]byte(tt.in))
			require.Nil(t, s)
			require.ErrorIs(t, err, ErrBadStore)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// Each bad entry is rejected alone, with its reason and without its token.
func TestParseRejectsEntry(t *testing.T) {
	const secret = "sesame-open-0123"
	entry := func(s, members string) string { return fmt.Sprintf(`%q: {%s}`, s, members) }
	tests := []struct{ name, entry, slug, reason string }{
		{"null", `"bad": null`, "bad", "no JSON object"},
		{"text", `"bad": "` + secret + `"`, "bad", "no JSON object"},
		{"slug upper case", good("Bad", 5), "Bad", "malformed"},
		{"slug empty", good("", 5), `""`, "malformed"},
		{"slug with escape codes", "\"bad\\u001b[2J\": {}", `bad\x1b[2J`, "malformed"},
		{"slug too long", good(strings.Repeat("a", 200), 5), strings.Repeat("a", 80) + "…", "malformed"},
		{"slug is a token", good(tok(8), 5), "pat-na1-***", "malformed"},
		{"slug is its own token", entry(secret, `"token": "`+secret+`", "portalId": 5, "clientSlug": "`+secret+`"`), "[token]", "the slug contains the token"},
		{"slug holds its own token", entry("x "+secret, `"token": "`+secret+`"`), "[token]", "malformed"},
		{"clientSlug missing", entry("bad", `"token": "`+secret+`", "portalId": 5`), "bad", "clientSlug is missing"},
		{"clientSlug null", entry("bad", `"token": "`+secret+`", "portalId": 5, "clientSlug": null`), "bad", "clientSlug is missing"},
		{"clientSlug differs", entry("bad", `"token": "`+secret+`", "portalId": 5, "clientSlug": "Bad"`), "bad", "clientSlug differs"},
		{"clientSlug a number", entry("bad", `"token": "`+secret+`", "portalId": 5, "clientSlug": 5`), "bad", "clientSlug differs"},
		{"token missing", entry("bad", `"portalId": 5, "clientSlug": "bad"`), "bad", "it has no token"},
		{"token null", entry("bad", `"token": null, "portalId": 5, "clientSlug": "bad"`), "bad", "it has no token"},
		{"token empty", entry("bad", `"token": "", "portalId": 5, "clientSlug": "bad"`), "bad", "the token is empty"},
		{"token a number", entry("bad", `"token": 123456789, "portalId": 5, "clientSlug": "bad"`), "bad", "the token is no JSON string"},
		{"token with a space", entry("bad", `"token": "`+secret+` x", "portalId": 5, "clientSlug": "bad"`), "bad", "a space"},
		{"token with a line end", entry("bad", `"token": "`+secret+`\n", "portalId": 5, "clientSlug": "bad"`), "bad", "a control byte"},
		{"token not ASCII", entry("bad", `"token": "`+secret+`é", "portalId": 5, "clientSlug": "bad"`), "bad", "outside ASCII"},
		{"token with Bearer", entry("bad", `"token": "Bearer-`+secret+`", "portalId": 5, "clientSlug": "bad"`), "bad", `starts with "Bearer"`},
		{"token twice", good("bad", 5, `"token": "`+secret+`"`), "bad", `key "token" stands twice`},
		{"token in two cases", good("bad", 5, `"Token": "`+secret+`"`), "bad", `key "Token" stands twice`},
		{"token in another case alone", entry("bad", `"TOKEN": "`+secret+`", "portalId": 5, "clientSlug": "bad"`), "bad", "another case"},
		{"a token as a key, twice", entry("bad", `"`+secret+`": 1, "`+secret+`": 2, "token": "`+secret+`"`), "bad", `key "[token]"`},
		{"unknown key twice", good("bad", 5, `"x": 1, "x": 2`), "bad", `key "x" stands twice`},
		{"portalId missing", entry("bad", `"token": "`+secret+`", "clientSlug": "bad"`), "bad", "portalId is missing"},
		{"portalId a string", entry("bad", `"token": "`+secret+`", "portalId": "5", "clientSlug": "bad"`), "bad", "positive integer"},
		{"portalId a fraction", entry("bad", `"token": "`+secret+`", "portalId": 5.0, "clientSlug": "bad"`), "bad", "positive integer"},
		{"portalId zero", entry("bad", `"token": "`+secret+`", "portalId": 0, "clientSlug": "bad"`), "bad", "positive integer"},
		{"portalId negative", entry("bad", `"token": "`+secret+`", "portalId": -5, "clientSlug": "bad"`), "bad", "positive integer"},
		{"portalId 2^53+1", entry("bad", `"token": "`+secret+`", "portalId": 9007199254740993, "clientSlug": "bad"`), "bad", "positive integer"},
		{"kind unknown", good("bad", 5, `"kind": "oauth"`), "bad", "kind must be"},
		{"kind empty", good("bad", 5, `"kind": ""`), "bad", "kind must be"},
		{"slug twice", good("bad", 5) + "," + good("bad", 6), "bad", "stands twice in the store"},
		{"baseUrl http", good("bad", 5, `"baseUrl": "http://api.hubapi.com"`), "bad", "baseUrl must be"},
		{"baseUrl with port", good("bad", 5, `"baseUrl": "https://api.hubapi.com:444"`), "bad", "baseUrl must be"},
		{"baseUrl with user", good("bad", 5, `"baseUrl": "https://api.hubapi.com@evil.example"`), "bad", "baseUrl must be"},
		{"baseUrl longer host", good("bad", 5, `"baseUrl": "https://api.hubapi.com.evil.example"`), "bad", "baseUrl must be"},
		{"baseUrl other dot", good("bad", 5, `"baseUrl": "https://api-hubapi.com"`), "bad", "baseUrl must be"},
		{"baseUrl with path", good("bad", 5, `"baseUrl": "https://api.hubapi.com/x"`), "bad", "baseUrl must be"},
		{"baseUrl with line end", good("bad", 5, `"baseUrl": "https://api.hubapi.com\n"`), "bad", "baseUrl must be"},
		{"baseUrl null byte", good("bad", 5, `"baseUrl": "https://api.hubapi.com\u0000"`), "bad", "baseUrl must be"},
		{"baseUrl a list", good("bad", 5, `"baseUrl": []`), "bad", "baseUrl must be"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse(storeOf(good("acme-corp", 1), tt.entry, good("beta-inc", 2)))
			require.NoError(t, err)
			_, acme := s.Get(slug(t, "acme-corp"))
			_, beta := s.Get(slug(t, "beta-inc"))
			require.True(t, acme && beta, "the others serve")
			require.Len(t, s.Entries, 2)
			require.Len(t, s.Rejected, 1)
			require.Equal(t, tt.slug, s.Rejected[0].Slug)
			require.Contains(t, s.Rejected[0].Reason, tt.reason)
			require.NotContains(t, fmt.Sprint(s.Rejected), secret)
			require.NotContains(t, fmt.Sprint(s.Rejected), "00000000-0000-4000")
		})
	}
}

// A token or portal ID under two slugs serves neither; a third goes on.
func TestThreat02SwappedTokens(t *testing.T) {
	swap := strings.NewReplacer(`"portalId": 2`, `"portalId": 1`)
	tests := []struct{ name, first, second, reason string }{
		{"same token", good("acme-corp", 1), strings.Replace(good("beta-inc", 2), tok(2), tok(1), 1), "its token stands under"},
		{"same token, escaped", good("acme-corp", 1), strings.Replace(good("beta-inc", 2), tok(2), `\u0070`+tok(1)[1:], 1), "its token stands under"},
		{"same portal ID", good("acme-corp", 1), swap.Replace(good("beta-inc", 2)), "its portalId 1 stands under"},
		{"second value of a key", good("acme-corp", 1), good("beta-inc", 2, fmt.Sprintf(`"token": %q`, tok(1))), "its token stands under beta-inc"},
		{"claimed by a bad entry", good("acme-corp", 1), fmt.Sprintf(`"beta-inc": {"token": %q}`, tok(1)), "its token stands under beta-inc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse(storeOf(tt.first, tt.second, good("gamma-gmbh", 3)))
			require.NoError(t, err)
			require.Len(t, s.Entries, 1)
			require.Equal(t, "gamma-gmbh", s.Entries[0].Slug.String())
			require.Len(t, s.Rejected, 2)
			require.Equal(t, "acme-corp", s.Rejected[0].Slug)
			require.Contains(t, s.Rejected[0].Reason, tt.reason)
			require.NotContains(t, fmt.Sprint(s.Rejected), "4000")
		})
	}
}

// What only describes a portal is passed over with a warning.
func TestParseWarns(t *testing.T) {
	tests := []struct{ name, member, warning string }{
		{"date", `"verifiedAt": "yesterday"`, "verifiedAt is passed over"},
		{"date a number", `"lastRotatedAt": 17`, "lastRotatedAt is passed over"},
		{"time zone a number", `"timeZone": 1`, "timeZone is passed over: want a string"},
		{"time zone with escape codes", `"timeZone": "\u001b[2J"`, "printable"},
		{"token in a text", `"accountType": "` + tok(5) + `"`, "accountType is passed over: a token"},
		{"scopes", `"scopes": "all"`, "scopes is passed over"},
		{"a token among scopes", `"scopes": ["a", "` + tok(1) + `"]`, "scopes is passed over: a token"},
		{"previous", `"previous": {"until": "2026-11-23T10:00:00Z"}`, "previous is passed over"},
		{"previous of another slug", `"previous": {"token": "` + tok(2) + `"}`, "its token stands under another slug"},
		{"previous not an object", `"previous": "x"`, "previous is passed over"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse(storeOf(good("acme-corp", 1, tt.member), good("beta-inc", 2)))
			require.NoError(t, err)
			require.Empty(t, s.Rejected)
			require.Len(t, s.Entries, 2)
			e := s.Entries[0]
			require.Len(t, e.Warnings, 1)
			require.Contains(t, e.Warnings[0], tt.warning)
			require.NotContains(t, fmt.Sprintf("%+v", s), "4000")
			require.Nil(t, e.Previous)
			require.Zero(t, e.TimeZone+e.AccountType)
			require.Empty(t, e.Scopes)
		})
	}
	s, err := Parse(storeOf(strings.Replace(good("acme-corp", 1), `"datacenter": "na1"`, `"datacenter": "eu1"`, 1)))
	require.NoError(t, err)
	require.Equal(t, "na1", s.Entries[0].Datacenter)
	require.Contains(t, s.Entries[0].Warnings[0], "the prefix counts")
}

// A store that one hostile hand has filled to the brim costs seconds, not hours.
func TestParseManyClaimsOfOneToken(t *testing.T) {
	var entries []string
	for i := range 20_000 {
		entries = append(entries, fmt.Sprintf(`"Bad-%d": {"token": %q, "portalId": 7}`, i, tok(1)))
	}
	s, err := Parse(storeOf(entries...))
	require.NoError(t, err)
	require.Len(t, s.Rejected, 20_000)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version": 1, "portals": {}}`))
	f.Add(storeOf(good("acme-corp", 1), good("beta-inc", 2, `"kind": "service-key"`, `"scopes": ["a"]`)))
	f.Add(storeOf(good("acme-corp", 1), good("acme-corp", 1)))
	f.Add(storeOf(good("acme-corp", 1, `"previous": {"token": "`+tok(3)+`", "until": null}`)))
	f.Add([]byte(`{"version":1,"portals":{"a":null,"B":[],"c":{"token":1}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			require.Nil(t, s)
			require.ErrorIs(t, err, ErrBadStore)
			return
		}
		require.GreaterOrEqual(t, s.Version, int64(0))
		slugs, tokens, portals := map[wire.Slug]bool{}, map[wire.Token]bool{}, map[int64]bool{}
		for _, e := range s.Entries {
			require.NoError(t, e.check())
			_, err := wire.ParseSlug(e.Slug.String())
			require.NoError(t, err)
			require.False(t, slugs[e.Slug] || tokens[e.Token] || portals[e.PortalID], "one claim each")
			slugs[e.Slug], tokens[e.Token], portals[e.PortalID] = true, true, true
			require.Contains(t, kinds, e.Kind)
		}
		for _, r := range s.Rejected {
			require.NotEmpty(t, r.Reason)
			require.Equal(t, wire.Printable(r.Slug), r.Slug)
		}
		// What was parsed survives being written.
		d, err := parseDocument(b, nil)
		require.NoError(t, err)
		out, err := (&Edit{doc: d}).bytes(time.Now())
		if s.Version == maxInt {
			require.ErrorIs(t, err, ErrBadStore)
			return
		}
		require.NoError(t, err)
		again, err := Parse(out)
		require.NoError(t, err)
		require.Equal(t, s.Entries, again.Entries)
		require.Equal(t, s.Rejected, again.Rejected)
	})
}
