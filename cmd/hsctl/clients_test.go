package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

// token returns the made-up token that ends with c.
func token(c string) string { return madeUpToken[:len(madeUpToken)-1] + c }

func TestParseClients(t *testing.T) {
	acme, beta := "acme,"+token("a")+",1", "beta,"+token("b")+",2"
	both := []client{
		{row: 1, line: 1, slug: "acme", Token: wire.NewToken(token("a")), portalID: 1},
		{row: 2, line: 2, slug: "beta", Token: wire.NewToken(token("b")), portalID: 2},
	}
	below := func(n int) []client { // the same, n lines further down
		list := append([]client{}, both...)
		for i := range list {
			list[i].line += n
		}
		return list
	}
	semicolons := strings.NewReplacer(",", ";")
	tests := []struct {
		name, in string
		want     []client
	}{
		{"plain", acme + "\n" + beta + "\n", both},
		{"no line end", acme + "\n" + beta, both},
		{"CR LF", acme + "\r\n" + beta + "\r\n", both},
		{"CR alone", acme + "\r" + beta + "\r", both},
		{"BOM", "\ufeff" + acme + "\n" + beta, both},
		{"semicolons", semicolons.Replace(acme + "\n" + beta), both},
		{"TABs", strings.ReplaceAll(acme+"\n"+beta, ",", "\t"), both},
		{"named delimiter", "sep=;\n" + semicolons.Replace(acme+"\n"+beta), below(1)},
		{"quotes", `"acme","` + token("a") + `","1"` + "\n" + `beta , "` + token("b") + `" , 2`, both},
		{"spaces", "  acme ,\t" + token("a") + " ,  1\u00a0\n" + beta, both},
		{"comments and empty lines", "# ours\n\n" + acme + "\n  # more\n,,\n \n" + beta, []client{{row: 1, line: 3, slug: "acme", Token: both[0].Token, portalID: 1},
			{row: 2, line: 7, slug: "beta", Token: both[1].Token, portalID: 2}}},
		{"header", "clientSlug,portalToken,expectedPortalId\n" + acme + "\n" + beta, below(1)},
		{"header of other names", "SLUG, Token ,portal_id\n" + acme + "\n" + beta, below(1)},
		{"header after a BOM, quoted", "\ufeff\"Client-Slug\",\"Portal Token\",\"Expected Portal ID\"\n" + acme + "\n" + beta, below(1)},
		{"other order", "portalId;note;token;slug\n1;x;" + token("a") + ";acme\n2;;" + token("b") + ";beta", below(1)},
		{"padded rows", acme + ",,\n" + beta + ",", both},
		{"no portal IDs", "acme," + token("a") + ",\nbeta," + token("b") + ",", []client{{row: 1, line: 1, slug: "acme", Token: both[0].Token},
			{row: 2, line: 2, slug: "beta", Token: both[1].Token}}},
		{"a client called token", "token," + token("a") + ",1", []client{{row: 1, line: 1, slug: "token", Token: both[0].Token, portalID: 1}}},
		{"a token of an odd form", "acme,odd-token-of-our-own,1", []client{{row: 1, line: 1, slug: "acme", Token: wire.NewToken("odd-token-of-our-own"), portalID: 1}}},
		{"kind", "slug,token,portalId,kind\nacme," + token("a") + ",1,private-app",
			[]client{{row: 1, line: 2, slug: "acme", Token: both[0].Token, portalID: 1, kind: "private-app"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseClients([]byte(tt.in))
			require.NoError(t, err)
			require.Equal(t, tt.want, got.clients)
		})
	}
}

// TestThreat48BadRows: a row that is bad is named with its line, keeps no token,
// repeats none, and spoils no other.
func TestThreat48BadRows(t *testing.T) {
	tests := []struct{ name, row, fault string }{
		{"quote not closed", `"acme,` + token("a") + `,1`, "a quote opens a cell, and none closes it"},
		{"text after a quote", `"acme"x,` + token("a") + `,1`, "text follows the quote"},
		{"one column", "acme", "it has 1 columns, want 3"},
		{"four columns", "acme," + token("a") + ",1,2", "it has 4 columns, want 3"},
		{"other delimiter", "acme;" + token("a") + ";1", "it has 1 columns, want 3"},
		{"token as slug", token("a") + ",acme,1", "a token, \"pat-na1-***\", stands in the column clientSlug: are the columns swapped?"},
		{"token as portal", "acme,1," + token("a"), "a token stands in the column expectedPortalId: are the columns swapped?"},
		{"number as token", "acme,12345678,", "a number stands in the column portalToken"},
		{"odd token as slug", "Odd_secret_0000-4000,acme-corp,1", "its slug is not a slug"},
		{"odd token as portal", "acme,123456789," + "odd-secret-0000-4000", "a number stands in the column portalToken"},
		{"slug", "Acme Corp," + token("a") + ",1", `slug "Acme Corp": not a slug`},
		{"no slug", "," + token("a") + ",1", `slug "": not a slug`},
		{"no token", "acme,,1", "the token is empty"},
		{"Bearer", "acme,Bearer " + token("a") + ",1", `starts with "Bearer"`},
		{"two tokens", "acme," + token("a") + " " + token("b") + ",1", "the token has a space"},
		{"portal in words", "acme," + token("a") + ",one", "want digits alone"},
		{"portal 0", "acme," + token("a") + ",0", "want digits alone"},
		{"negative portal", "acme," + token("a") + ",-1", "want digits alone"},
		{"portal with a plus", "acme," + token("a") + ",+1", "want digits alone"},
		{"portal with decimals", "acme," + token("a") + ",1.0", "want digits alone"},
		{"portal shortened", "acme," + token("a") + ",1.23457E+07", "a spreadsheet has shortened"},
		{"portal too long", "acme," + token("a") + ",99999999999999999999", "want digits alone"},
		{"long cell", "acme," + strings.Repeat("x", maxClientCell+1) + ",1", "a cell has more than 16 KiB"},
		{"twin", "good-1," + token("c") + ",9", "the slug stands in row 1 (line 1) too"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := "good-1," + token("d") + ",7\n" + tt.row + "\n\ngood-2," + token("e") + ",8"
			got, err := parseClients([]byte(in))
			require.NoError(t, err)
			require.Len(t, got.clients, 3)
			bad := got.clients[1]
			require.Contains(t, bad.fault, tt.fault)
			require.True(t, strings.HasPrefix(bad.fault, "line 2: "), bad.fault)
			require.Equal(t, 2, bad.row)
			require.True(t, bad.Token.IsZero())
			require.NotContains(t, bad.fault+bad.slug, "0000-4000")
			require.Equal(t, tt.name == "twin", got.clients[0].fault != "")
			require.Empty(t, got.clients[2].fault)
			require.Equal(t, 3, got.clients[2].row)
			require.Equal(t, 4, got.clients[2].line)
		})
	}
	t.Run("kind", func(t *testing.T) {
		got, err := parseClients([]byte("slug,token,portalId,kind\nacme," + token("a") + ",1,secret-0000-4000"))
		require.NoError(t, err)
		require.Contains(t, got.clients[0].fault, "line 2: its kind is none of service-key")
		require.NotContains(t, got.clients[0].fault, "0000-4000")
	})
}

// TestThreat48GeneratedRows puts everything that people and spreadsheets write
// into every column, with every delimiter: a row is taken as it stands or named
// with its line, its own text cut and escaped, and the rows around it are taken.
func TestThreat48GeneratedRows(t *testing.T) {
	const secret = "0000-4000"
	cells := []string{
		"", " ", "-", "''", "=1+1", "=HYPERLINK(\"http://evil\")", "+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", "\uff1d1+1", "\x1b[2J", "\x1b]52;c;eA==\a", "\u202eacme", "a\u200bb", "\u0130stanbul",
		"ａｃｍｅ", "\u0430cme", "e\u0301", "😀", "\x00", "\x7f", "\xff", "a\x0bb", "ACME", "Acme Corp", "acme_corp", "-acme", "acme-", "acme--corp", ".", "..", "*", "a/b", `a\b`, "a%00b", "v1",
		"1", "0", "-1", "1.0", "1e5", "1.23457E+07", "99999999999999999999", "0x1f", "NaN", "null", "true", "1 000", "'12345678", "１２",
		token("c"), "Bearer " + token("c"), token("c") + " ", " " + token("c"), token("c") + token("d"), strings.ToUpper(token("c")), "pat-na1-" + secret, "\u201c" + token("c") + "\u201d", token("c")[:20], "“" + token("c"),
		strings.Repeat("x", 81), strings.Repeat("é", 100), strings.Repeat("x", maxClientCell), strings.Repeat("x", maxClientCell+1),
	}
	n, taken := 0, 0
	for _, delim := range []string{",", ";", "\t"} {
		for _, quoted := range []bool{false, true} {
			for column := range 3 {
				for _, cell := range cells {
					row := []string{"acme", token("a"), "7"}
					row[column] = cell
					if quoted {
						row[column] = `"` + strings.ReplaceAll(cell, `"`, `""`) + `"`
					}
					join := func(cells ...string) string { return strings.Join(cells, delim) }
					in := strings.Join([]string{join("slug", "token", "portalId"), join("good-1", token("e"), "8"), join(row...), join("good-2", token("f"), "9")}, "\r\n")
					if strings.Contains(in, "\x00") {
						continue // that is UTF-16 of some kind, and refused whole
					}
					n++
					got, err := parseClients([]byte(in))
					require.NoError(t, err, "%.200q", in)
					require.Len(t, got.clients, 3, "%.200q", in)
					first, odd, last := got.clients[0], got.clients[1], got.clients[2]
					require.Equal(t, []string{"good-1", "good-2", "", ""}, []string{first.slug, last.slug, first.fault, last.fault}, "%.200q", in)
					require.Equal(t, 3, odd.line)
					if odd.fault == "" {
						taken++
						require.NoError(t, odd.Token.Check())
						_, err := wire.ParseSlug(odd.slug)
						require.NoError(t, err)
						continue
					}
					require.True(t, odd.Token.IsZero())
					require.True(t, strings.HasPrefix(odd.fault, "line 3: "), odd.fault)
					require.Equal(t, wire.Printable(odd.fault+odd.slug), odd.fault+odd.slug, "%.200q", in)
					require.Less(t, len(odd.fault), 600, "%.200q", in)
					require.NotContains(t, strings.ToLower(odd.fault+odd.slug), secret, "%.200q", in)
					if testing.Verbose() && delim == "," && !quoted {
						t.Logf("%d %.40q: %s", column, cell, odd.fault)
					}
				}
			}
		}
	}
	require.GreaterOrEqual(t, n, 400)
	require.Positive(t, taken)
}

func TestParseClientsRefuses(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", "it has no clients"},
		{"comments alone", "# a\n\n", "it has no clients"},
		{"header alone", "slug,token,portalId\n", "it has no clients"},
		{"UTF-16, little end first", "\xff\xfea\x00,\x00", `UTF-16, as Excel's "Unicode Text" is: save it as "CSV UTF-8"`},
		{"UTF-16, big end first", "\xfe\xff\x00a\x00,", "UTF-16"},
		{"UTF-16 without a mark", "a\x00,\x00b\x00", "UTF-16"},
		{"workbook", "PK\x03\x04\x14\x00\x06\x00", "workbook"},
		{"no slugs", "token,portalId\n", "line 1: the header has no column clientSlug"},
		{"no tokens", "\nslug,portalId\n", "line 2: the header has no column portalToken"},
		{"no portals", "slug,token,notes\n", "line 1: the header has no column expectedPortalId: without it"},
		{"a column twice", "slug,token,portalId,portalToken\n", "line 1: the header names the column portalToken twice"},
		{"broken header", `"slug,token,portalId` + "\n", "line 1: a quote opens a cell"},
		{"too many", strings.Repeat("a,b,1\n", maxClients+1), "more than 10000 clients"},
		{"too large", strings.Repeat("\n", maxClientFile+1), "more than 64 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseClients([]byte(tt.in))
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func FuzzParseClients(f *testing.F) {
	f.Add([]byte("clientSlug,portalToken,expectedPortalId\r\nacme," + madeUpToken + ",1\r\n"))
	f.Add([]byte("sep=;\n# x\n\"a\"\"b\";" + madeUpToken + ";2"))
	f.Add([]byte(madeUpToken + ",acme,1\rb,,\n\"c"))
	f.Add([]byte("\ufeffportalId\tslug\ttoken\tnote\n1\ta\tb\t\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseClients(b)
		if err != nil {
			require.Nil(t, list)
			require.False(t, hasToken(err.Error()), err)
			return
		}
		slugs := map[string]bool{}
		for i, c := range list.clients {
			require.Equal(t, i+1, c.row)
			require.Greater(t, c.line, i)
			require.False(t, hasToken(fmt.Sprint(c)), "%v", c)
			if c.fault != "" {
				require.True(t, c.Token.IsZero(), "a bad row has no token to send")
				continue
			}
			_, err := wire.ParseSlug(c.slug)
			require.NoError(t, err)
			require.NoError(t, c.Token.Check())
			require.GreaterOrEqual(t, c.portalID, int64(0))
			require.False(t, slugs[c.slug], "a slug stands twice")
			slugs[c.slug] = true
		}
	})
}

func TestShellQuote(t *testing.T) {
	tests := []struct{ in, want string }{
		{"clients.csv", "clients.csv"}, {"/a/b-c_1", "/a/b-c_1"}, {"my clients.csv", "'my clients.csv'"}, {"it's", `'it'\''s'`},
		{"-f", "./-f"}, {"$(reboot)", "'$(reboot)'"}, {"", "''"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) { require.Equal(t, tt.want, shellQuote(tt.in)) })
	}
}
