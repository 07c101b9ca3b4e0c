package hubspot

import (
	"iter"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// hopByHop are the headers that belong to one connection (RFC 9110, 7.6.1),
// and those that frame or switch it.
var hopByHop = names(
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding",
	"Upgrade", "Http2-Settings", "Expect",
)

// notForwarded are what else a client may not tell HubSpot: credentials, who
// and where the client is, how the body is framed or the answer encoded, which
// part of the answer to send (an echoed token could be had in halves, neither of
// which is masked), that a request may be sent twice, and that its method or path
// is another one than the record says.
var notForwarded = names(
	"Authorization", "Cookie", "Cookie2",
	"Host", "Forwarded", "X-Forwarded", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Via",
	"Origin", "Referer",
	"Accept-Encoding", "Content-Length", "Range", "If-Range",
	"Idempotency-Key", "X-Idempotency-Key",
	"X-Http-Method-Override", "X-Http-Method", "X-Method-Override",
	"X-Original-Url", "X-Rewrite-Url", "X-Original-Host", "X-Host",
)

// notForwardedPrefixes are families of such headers.
var notForwardedPrefixes = []string{"Proxy-", "X-Forwarded-", "Sec-Fetch-", "Hsagent-"}

// notReturned are what HubSpot may not tell a client: cookies, and other
// addresses to use in its place.
var notReturned = names("Set-Cookie", "Set-Cookie2", "Alt-Svc", "Proxy-Authenticate", "Proxy-Authentication-Info")

func names(ss ...string) map[string]bool {
	m := make(map[string]bool, len(ss))
	for _, s := range ss {
		m[s] = true
	}
	return m
}

// RequestHeaders is the set of a client's headers that goes on to HubSpot, in
// a map of its own. It has no Authorization: the token joins later. A header
// that goes on and has anything of a token's form is refused, as a
// [*wire.Problem] of bad_request: a token belongs to no other place.
func RequestHeaders(in http.Header) (http.Header, error) {
	named := connectionNamed(in)
	out := make(http.Header, len(in))
	for k, vv := range in {
		name := textproto.CanonicalMIMEHeaderKey(k)
		if hopByHop[name] || notForwarded[name] || named[name] || hasAnyPrefix(name, notForwardedPrefixes) {
			continue
		}
		if hasToken(name) || slices.ContainsFunc(vv, hasToken) {
			return nil, wire.Errorf(wire.CodeBadRequest, "header %s: a token stands in it: the agent adds the token itself; rotate this one if it is real", shown(name))
		}
		out[name] = append(out[name], vv...)
	}
	return out, nil
}

// ResponseHeaders are those of HubSpot's headers that go on to the client, with
// their values in their order. Names must be canonical, as those of an answer
// of [Conn.Send] are. Trailers never go on.
func ResponseHeaders(in http.Header) iter.Seq2[string, []string] {
	named := connectionNamed(in)
	return func(yield func(string, []string) bool) {
		for name, values := range in {
			switch {
			case hopByHop[name], notReturned[name], named[name], strings.HasPrefix(name, "Hsagent-"), strings.HasPrefix(name, http.TrailerPrefix):
			case !yield(name, values):
				return
			}
		}
	}
}

// connectionNamed are the headers that Connection declares to be hop-by-hop.
func connectionNamed(in http.Header) map[string]bool {
	var named map[string]bool
	for k, vv := range in {
		if !strings.EqualFold(k, "Connection") {
			continue
		}
		for _, v := range vv {
			for token := range strings.SplitSeq(v, ",") {
				if named == nil {
					named = map[string]bool{}
				}
				named[textproto.CanonicalMIMEHeaderKey(strings.Trim(token, " \t"))] = true
			}
		}
	}
	return named
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
