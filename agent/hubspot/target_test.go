package hubspot_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/wire"
)

const token = "pat-na1-00000000-0000-4000-8000-00000000000a"

// requireCode asserts that err is a problem of the code that shows no token.
func requireCode(t *testing.T, code wire.Code, err error) {
	t.Helper()
	var p *wire.Problem
	require.ErrorAs(t, err, &p)
	require.Equal(t, code, p.Code, p.Detail)
	require.NotContains(t, p.Detail, "00000000-0000")
	require.Less(t, len(p.Detail), 500)
}

func TestSplitCall(t *testing.T) {
	slug, rest, err := hubspot.SplitCall("/v1/call/acme-corp/crm/v3/objects/contacts?limit=10")
	require.NoError(t, err)
	require.Equal(t, "acme-corp", slug.String())
	require.Equal(t, "/crm/v3/objects/contacts?limit=10", rest)

	_, rest, err = hubspot.SplitCall("/v1/call/acme-corp//crm//x")
	require.NoError(t, err)
	require.Equal(t, "//crm//x", rest)

	for _, bad := range []string{
		"", "/", "*", "/v1/call", "/v1/call/", "/v1/call/acme-corp", "/v1/call/acme-corp?x=1", "/v1/call//crm/v3", "//v1/call/acme-corp/x",
		"/v1/call/Acme/crm", "/v1/call/acme%2dcorp/crm", "/v1/call/%61cme/crm", "/v1/call/acme;x/crm", "/v1/call/acme%2fbeta/crm",
		"/v1/call/../crm", "/v1/call/./crm", "/v1/call/acme\x00/crm", "/v1/call/-a/crm", "/v1/call/" + strings.Repeat("a", 64) + "/crm",
		"http://hsagent/v1/call/acme-corp/crm", "acme:443", "/v1/call/" + token + "/crm", "/v1/call/" + strings.ReplaceAll(token, "-", "%2d") + "/crm", "/V1/call/acme/crm",
	} {
		_, _, err := hubspot.SplitCall(bad)
		requireCode(t, wire.CodeBadRequest, err)
	}
}

func TestParseTarget(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", "/crm/v3/objects/contacts", "/crm/v3/objects/contacts"},
		{"query", "/crm/v3/objects/contacts?limit=10&after=a%3D", "/crm/v3/objects/contacts?limit=10&after=a%3D"},
		{"slashes folded", "//crm///v3//objects/", "/crm/v3/objects/"},
		{"slashes in the query stay", "/a?u=//b//c/../d", "/a?u=//b//c/../d"},
		{"empty query", "/a?", "/a"},
		{"question marks", "/a??b?c", "/a??b?c"},
		{"escapes stay", "/crm/v3/objects/contacts/jo%40example.com", "/crm/v3/objects/contacts/jo%40example.com"},
		{"escaped space and umlaut", "/cms/a%20b/%C3%A9", "/cms/a%20b/%C3%A9"},
		{"dots in names", "/cms/v3/.hidden/a..b/...", "/cms/v3/.hidden/a..b/..."},
		{"an escaped percent", "/a/100%25", "/a/100%25"},
		{"colons and at signs", "/a:b/@hubspot/x@y", "/a:b/@hubspot/x@y"},
		{"escaped slash in the query", "/a?path=%2Fx%2F..%5C", "/a?path=%2Fx%2F..%5C"},
		{"the longest path", "/" + strings.Repeat("a", hubspot.MaxPath-1), "/" + strings.Repeat("a", hubspot.MaxPath-1)},
		{"many parameters", "/a?" + strings.Repeat("p=1&", 4000), "/a?" + strings.Repeat("p=1&", 4000)},
		{"quota stays allowed", hubspot.UsagePath, hubspot.UsagePath},
		{"oauth further on", "/crm/v3/oauth/x", "/crm/v3/oauth/x"},
		{"oauth as a beginning", "/oauthx/y", "/oauthx/y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := hubspot.ParseTarget(tt.in)
			require.NoError(t, err)
			require.Equal(t, tt.want, got.String())
		})
	}
}

func TestThreat17RefusedTargets(t *testing.T) {
	for _, bad := range []string{
		"", "/", "//", "/?x", "?x=1", "*", "crm/v3", `\crm`, "/a\\b", "/a b", "/a\tb", "/a\r\nb", "/a\x00", "/a\x7f", "/é", "/a?q=é", "/a?q=a b", "/a#b", "/a?b#c",
		"/..", "/.", "/a/..", "/a/./b", "/a/../b", "/%2e%2e/a", "/%2E./a", "/a/.%2e", "/%252e%252e/a", "/%25252e./a", "/%u002e%u002e/a", "/%25u002e./a",
		"/%c0%ae%c0%ae/a", "/%25c0%25ae/a", "/%e0%80%ae/a", "/%c0%af", "/a%2fb", "/a%2Fb", "/a%252fb", "/a%25252Fb", "/a%5cb", "/a%5Cb", "/a%255cb", "/%2e%2e%2fa",
		"/a%00", "/a%2500", "/a%0d%0aX:y", "/a%250a", "/a%7f", "/a;b", "/a;/b", "/..;/a", "/a%3bb", "/%", "/a%2", "/a%zz", "/a%%", "/a?b=%", "/a?b=%g1", "/%ff", "/a%e9",
		"http://evil.example/a", "//evil.example:443@", "/http://evil.example/a", "evil.example:443", "https:/a",
		"/" + strings.Repeat("a", hubspot.MaxPath), "/a?" + strings.Repeat("x", hubspot.MaxTarget), "/%" + strings.Repeat("25", 600) + "2e.",
		"/crm/" + token, "/crm/" + strings.ReplaceAll(token, "-", "%2D"), "/crm/%70at" + token[3:] + "/x", "/crm/%2570at" + token[3:],
		"/a?x=" + token, "/a?x=" + strings.ReplaceAll(token, "-", "%252d"), "/a?" + token, "/a?x=" + strings.ToUpper(token), "/%2e%2e/%70at" + token[3:],
	} {
		got, err := hubspot.ParseTarget(bad)
		if bad == "//evil.example:443@" { // folded, it is a path like any other
			require.NoError(t, err)
			require.Equal(t, "/evil.example:443@", got.String())
			continue
		}
		require.Error(t, err, "%q", bad)
		requireCode(t, wire.CodeBadRequest, err)
		require.Zero(t, got)
	}
}

func TestThreat11CredentialsAreDenied(t *testing.T) {
	denied := []string{
		"/a/access-tokens/x", "/x/access-token-info", "/a/Access-Token/x", "/a/%61ccess-token-info", "/a/refresh-tokens/x", hubspot.TokenInfoPath,
	}
	for _, oauth := range []string{"oauth", "OAuth", "OAUTH", "%6fauth", "%6F%41uth", "oaut%68", "%6f%61%75%74%68", "%256fauth", "%25256fauth", "%20oauth", "oauth%20"} {
		for _, lead := range []string{"/", "//", "///"} {
			for _, tail := range []string{"", "/", "/v1/token", "/v1/access-tokens/abc", "/v2/private-apps/get/access-token-info", "?x=1"} {
				denied = append(denied, lead+oauth+tail)
			}
		}
	}
	for _, name := range []string{
		"hapikey", "HAPIKEY", "hapiKey", "%68apikey", "hapi%6bey", "hapi%6Bey", "%2568apikey", "+hapikey", "hapikey+", "%20hapikey",
		"access_token", "Access_Token", "ACCESS_TOKEN", "access%5ftoken", "access%5Ftoken", "%61ccess_token", "access%255ftoken", "acce%C5%BF%C5%BF_token",
	} {
		for _, form := range []string{"%s=x", "%s", "%s=", "a=1&%s=x", "a=1;%s=x", "&&%s=x&b"} {
			denied = append(denied, "/crm/v3/objects/contacts?"+fmt.Sprintf(form, name))
		}
	}
	require.Greater(t, len(denied), 250)
	for _, in := range denied {
		_, err := hubspot.ParseTarget(in)
		require.Error(t, err, "%q", in)
		requireCode(t, wire.CodeDenied, err)
	}
}

func TestThreat09NoTargetChoosesTheHost(t *testing.T) {
	base := url.URL{Scheme: "https", Host: "api.hubapi.com"}
	accepted, n := 0, 0
	for _, lead := range []string{"", "/", "//", "///", "http:", "https://", "//user@", "//user:pw@", "/\\", "\\\\", "@", ":443", "/@", "/:80", "/http:/", "/http://"} {
		for _, host := range []string{"evil.example", "evil.example:443", "[::1]", "[fe80::1%25lo]", "127.0.0.1", "user@evil.example", "api.hubapi.com.evil.example", "api.hubapi.com@evil.example"} {
			for _, tail := range []string{"", "/", "/crm", "?x=1", "#x"} {
				n++
				in := lead + host + tail
				got, err := hubspot.ParseTarget(in)
				if err != nil {
					continue
				}
				accepted++
				u := base
				u.Opaque, u.RawQuery = got.Path, got.RawQuery
				require.True(t, strings.HasPrefix(u.RequestURI(), "/"), in)
				require.False(t, strings.HasPrefix(u.RequestURI(), "//"), in)
				require.Equal(t, got.String(), u.RequestURI(), in)
			}
		}
	}
	require.GreaterOrEqual(t, n, 400)
	require.Positive(t, accepted)
}

// TestThreat17GeneratedPaths tries the cross product of everything that has
// made one path mean another somewhere.
func TestThreat17GeneratedPaths(t *testing.T) {
	prefixes := []string{"/", "//", "/./", "/../", "http://evil.example/", "evil.example:443", "*", "/crm/"}
	dots := []string{"", "v3", "..", ".", "%2e%2e", "%2E.", "%252e%252e", "%u002e%u002e", "%c0%ae%c0%ae", "...", "a.."}
	seps := []string{"/", "%2f", "%252f", `\`, "%5c", ";", "//", "%2F"}
	tails := []string{"", "x", "x?y=/../z", "x#y", "x@y", "x:y", "x y", "x%20y", "x%0d%0ay", "x%00", "x\xff", "oauth/..", "x?hapikey=1", "x?Access%5fToken=1", "%"}
	fills := []int{0, 1, 2047, 8193}

	n, accepted := 0, 0
	try := func(in string) {
		n++
		got, err := hubspot.ParseTarget(in)
		if err != nil {
			var p *wire.Problem
			require.ErrorAs(t, err, &p)
			require.Contains(t, []wire.Code{wire.CodeBadRequest, wire.CodeDenied}, p.Code)
			require.Zero(t, got)
			return
		}
		accepted++
		requireSafe(t, in, got)
	}
	for _, p := range prefixes {
		for _, d := range dots {
			for _, s := range seps {
				for _, e := range tails {
					for _, f := range fills {
						try(p + d + s + strings.Repeat("a", f) + e)
					}
				}
			}
		}
	}
	try("/" + strings.Repeat("a", 1<<20))
	require.GreaterOrEqual(t, n, 5000)
	require.Positive(t, accepted)
}

// requireSafe asserts what must hold of every accepted target.
func requireSafe(t *testing.T, in string, got hubspot.Target) {
	t.Helper()
	path, query, _ := strings.Cut(in, "?")
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	require.Equal(t, path, got.Path, "only runs of slashes may change")
	require.Equal(t, query, got.RawQuery)
	require.LessOrEqual(t, len(got.Path), hubspot.MaxPath)

	again, err := hubspot.ParseTarget(got.String())
	require.NoError(t, err)
	require.Equal(t, got, again)

	// However often a server decodes, it must see the same segments.
	segments := strings.Count(got.Path, "/")
	for p, depth := got.Path, 0; depth < 5; depth++ {
		require.Equal(t, segments, strings.Count(p, "/"), "%q", in)
		require.NotContains(t, p, `\`)
		require.NotContains(t, p, "\x00")
		for seg := range strings.SplitSeq(p, "/") {
			require.NotContains(t, []string{".", ".."}, seg, "%q", in)
		}
		require.False(t, strings.EqualFold(strings.SplitN(p, "/", 3)[1], "oauth"), "%q", in)
		next, err := url.PathUnescape(p)
		if err != nil {
			break
		}
		p = next
	}
	u, err := url.ParseRequestURI(got.String())
	require.NoError(t, err)
	require.Empty(t, u.Host)
	require.Equal(t, wire.MaskTokens(got.String()), got.String())
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{
		"/crm/v3/objects/contacts?limit=10", "//a//b", "/%2e%2e/x", "/a%252fb", "/oauth/v1/token", "/a?hapikey=x", "/a?", "/%u002e", "/a/" + token,
		"/crm/objects/2026-03/contacts/jo%40example.com?properties=a,b&q=c%40d", "/a;b", "http://x/", "/\x00", "/100%25", "/%2525252525",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		rec := hubspot.RecordRaw(in)
		require.LessOrEqual(t, len(rec), hubspot.MaxRecordPath)
		require.Equal(t, wire.Printable(rec), rec)
		require.Equal(t, wire.MaskTokens(rec), rec)
		got, err := hubspot.ParseTarget(in)
		if err != nil {
			require.Zero(t, got)
			return
		}
		requireSafe(t, in, got)
		for _, m := range []string{"GET", "POST", "DELETE"} {
			op := hubspot.Classify(m, got)
			require.Equal(t, m == "GET", op.Read && m != "POST")
		}
		require.NotEmpty(t, hubspot.RecordPath(got))
	})
}
