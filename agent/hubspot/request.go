package hubspot

import (
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// A Request is one upstream request, without its token.
type Request struct {
	Method string
	Target Target
	Header http.Header // from RequestHeaders; it is not changed
	Body   io.Reader   // nil for none
	Length int64       // of Body; -1: not known
}

// asksGzip reports whether the agent asks for gzip, which it decodes itself.
func (r *Request) asksGzip() bool {
	return r.Method != http.MethodHead
}

// appendHead appends the request's head up to where the token belongs. Scheme
// and host are the pool's: nothing of the target can change them. Headers with
// bytes that could end them are refused; [RequestHeaders] lets none through.
func (r *Request) appendHead(b []byte, host string) ([]byte, error) {
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Target.Path...) // as it came, escapes and all: it starts with one "/"
	if r.Target.RawQuery != "" {
		b = append(b, '?')
		b = append(b, r.Target.RawQuery...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\n"...)
	for name, values := range r.Header {
		for _, v := range values {
			if !isToken(name) || !isFieldValue(v) {
				return nil, wire.Errorf(wire.CodeBadRequest, "header %s: it has bytes that no header may have", shown(name))
			}
			b = appendField(b, name, v)
		}
	}
	if r.asksGzip() {
		b = appendField(b, "Accept-Encoding", "gzip")
	}
	switch {
	case r.Body != nil && r.Length < 0:
		b = appendField(b, "Transfer-Encoding", "chunked")
	case r.Body != nil:
		b = appendLength(b, r.Length)
	case r.Method == http.MethodPost, r.Method == http.MethodPut, r.Method == http.MethodPatch:
		b = appendLength(b, 0)
	}
	return append(b, "Authorization: Bearer "...), nil
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// isToken reports whether s may be a header's name (RFC 9110, 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// isFieldValue reports whether s may be a header's value: no control byte but
// a tab (RFC 9110, 5.5).
func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
