package agent_test

import (
	"bufio"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/wire"
)

// TestThreat17GeneratedSlugs puts everything between the slashes where the slug
// stands. A slug that cannot be is told from one that nobody has, no neighbour
// is taken in its place, and what was asked for is shown escaped and cut.
func TestThreat17GeneratedSlugs(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	slugs := []string{
		"", ".", "..", "*", "-", "--", "v1", "status", "admin", "portals", "client", "client-", "-client-0", "client-0-", "client--0", "CLIENT-0", "Client-0", "client_0", "client.0",
		"client-0%2fclient-1", "client-0/../client-1", "client-0/./client-1", "%63lient-0", "%2563lient-0", "cl%69ent-0", "%2e%2e", "%252e", "client-0%2e", "..%2fclient-0",
		strings.Repeat("a", 62), strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 65), strings.Repeat("a", 10_000), strings.Repeat("a-", 32) + "a",
		sandbox.NewToken("na1").Reveal(), "x" + sandbox.NewToken("eu1").Reveal(),
	}
	for _, odd := range []string{
		"A", "_", ".", "*", "+", "~", "@", ":", "!", "'", `"`, "<", "|", "^", "`", "{", "$(id)", "%", "%zz", "%0", "%00", "%20", "%09", "%0d%0aX:y", "%2f", "%5c", `\`, ";", ";x", "%3b", "=", "&", ",",
		"\x00", "\t", "\x1b[2J", "\x1b]0;x\a", "\x1b]8;;http://evil\a", "\x1b]52;c;eA==\a", "\x7f", "\x0b", "\x85", "\xff", "%c0%ae", "%ff",
		"\u0131", "\uff41", "\u0430", "\u00e9", "e\u0301", "\U0001f600", "\u200d", "\u202e", "\ufeff", "\u2011", "%c3%a9", "%e2%80%ae", "#", "?", "%23", "%3f",
	} {
		slugs = append(slugs, odd+"client-0", "cli"+odd+"ent-0", "client-0"+odd, odd)
	}
	real := map[string]bool{"client-0": true, "client-1": true, "client-2": true}
	for i := range "client-0" { // every neighbour at one letter's distance, of some letters
		for _, c := range []string{"", "a", "z", "0", "9", "-"} {
			for _, neighbour := range []string{"client-0"[:i] + c + "client-0"[i+1:], "client-0"[:i] + c + "client-0"[i:]} {
				if !real[neighbour] {
					slugs = append(slugs, neighbour)
				}
			}
		}
	}
	require.GreaterOrEqual(t, len(slugs), 300)
	valid := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	unknown := 0
	for _, slug := range slugs {
		conn := r.dial()
		_, err := io.WriteString(conn, "GET /v1/call/"+slug+contacts+" HTTP/1.1\r\nHost: hsagent\r\nConnection: close\r\n\r\n")
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err, "%.100q", slug)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		_ = conn.Close()
		got := answer{status: resp.StatusCode, header: resp.Header, body: string(body)}
		r.clean("the answer", got.text())
		if got.code() == "" { // what is no HTTP is net/http's to refuse
			require.Equal(t, 400, got.status, "%.100q", slug)
			require.Less(t, len(body), 100)
			continue
		}
		var p wire.Problem
		if len(slug) <= 63 && valid.MatchString(slug) && !strings.Contains(slug, "pat-") {
			unknown++
			p = got.refused(t, wire.CodeUnknownPortal)
			require.NotContains(t, p.Similar, slug)
		} else {
			require.Equal(t, wire.CodeBadRequest, got.code(), "%.100q", slug)
			p = got.problem(t)
		}
		require.Equal(t, wire.Printable(p.Detail), p.Detail, "%.100q", slug)
		require.Less(t, len(p.Detail), 600, "%.100q", slug)
		require.NotContains(t, p.Detail, "4000", "%.100q", slug)
		if testing.Verbose() {
			t.Logf("%.60q: %s", slug, p.Detail)
		}
	}
	require.Greater(t, unknown, 20)
	require.Empty(t, r.came())
	r.checkLog()
	r.cleanAll()
}
