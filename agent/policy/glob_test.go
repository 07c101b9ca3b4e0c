package policy

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestGlob(t *testing.T) {
	tests := []struct {
		pattern, s string
		want       bool
	}{
		{"/crm/v3/objects/contacts", "/crm/v3/objects/contacts", true},
		{"/crm/v3/objects/contacts", "/crm/v3/objects/contacts/", true},
		{"/crm/v3/objects/contacts/", "/crm/v3/objects/contacts", true},
		{"/crm/v3/objects/contacts", "/crm/v3/objects/contacts/7", false},
		{"/crm/v3/objects/*", "/crm/v3/objects/contacts", true},
		{"/crm/v3/objects/*", "/crm/v3/objects", false},
		{"/crm/v3/objects/*", "/crm/v3/objects/contacts/7", false},
		{"/crm/v3/objects/**", "/crm/v3/objects", true},
		{"/crm/v3/objects/**", "/crm/v3/objects/contacts/7/a/b", true},
		{"/crm/v3/objects/**", "/crm/v3/objectsx", false},
		{"/**/contacts/**", "/crm/v3/objects/contacts/7", true},
		{"/**/contacts/**", "/contacts", true},
		{"/**/contacts", "/contacts/x/contacts", true},
		{"/**/a/**/b", "/a/x/b/y/b", true},
		{"/**/a/**/b", "/a/x/b/y", false},
		{"/*/objects", "/crm/v3/objects", false},
		{"/v*/x", "/v3/x", true},
		{"/v*/x", "/w3/x", false},
		{"/**", "/anything/at/all", true},
		{"acme-*", "acme-corp", true},
		{"acme-*", "acme-", true},
		{"acme-*", "acme", false},
		{"*-*-x", "a-b-c-x", true},
		{"*", "x", true},
	}
	for _, tt := range tests {
		t.Run(tt.pattern+" "+tt.s, func(t *testing.T) {
			g, err := parseGlob(tt.pattern)
			require.NoError(t, err)
			require.Equal(t, tt.want, g.match(segments(tt.s)))
		})
	}
}

// Patterns match what the regular expression that says the same matches, and
// take no time that matters.
func FuzzGlob(f *testing.F) {
	f.Add("/crm/**/contacts/*", "/crm/v3/objects/contacts/7")
	f.Add("/**/a/**/b*c/**", "/a/b/a/bxc/y/bc")
	f.Add("/**/**/x", "/x")
	f.Add("*a*a*a*a*b", strings.Repeat("a", 60))
	f.Add("/a/**", "/a/")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		g, err := parseGlob(pattern)
		if err != nil || !utf8.ValidString(pattern) { // TOML is UTF-8
			return
		}
		segs := segments(s)
		require.Equal(t, expression(g).MatchString("/"+strings.Join(segs, "/")), g.match(segs), "%q %q", g, segs)
	})
}

// expression says in a regular expression what a glob says, over a text in
// which a slash stands before each segment.
func expression(g glob) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for _, seg := range g {
		if seg.pattern == "**" {
			b.WriteString(`(?:/[^/]*)*`)
			continue
		}
		b.WriteString("/")
		for i, part := range strings.Split(seg.pattern, "*") {
			if i > 0 {
				b.WriteString(`[^/]*`)
			}
			b.WriteString(regexp.QuoteMeta(part))
		}
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}
