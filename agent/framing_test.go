package agent

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// feedAll follows all of b, in pieces of the given size, and returns what is
// wrong with it.
func feedAll(f *framing, b []byte, size int) string {
	for len(b) > 0 {
		n := min(size, len(b))
		if what := f.feed(b[:n]); what != "" {
			return what
		}
		b = b[n:]
	}
	return ""
}

const head = "GET /a HTTP/1.1\r\nHost: hsagent\r\n"

var framed = []struct {
	name, in string
	bad      bool
	state    framingState
}{
	{"one request", head + "\r\n", false, inHead},
	{"two requests", head + "\r\n" + head + "\r\n", false, inHead},
	{"a body", head + "Content-Length: 3\r\n\r\nabc", false, inHead},
	{"half a body", head + "Content-Length: 3\r\n\r\nab", false, inFixed},
	{"no body", head + "Content-Length: 0\r\n\r\n" + head + "\r\n", false, inHead},
	{"a body like a head", head + "Content-Length: 20\r\n\r\nGET /b HTTP/1.1\n\n\n\n\n" + head + "\r\n", false, inHead},
	{"chunks", head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + head + "\r\n", false, inHead},
	{"chunks with extensions", head + "Transfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n0;x\r\n\r\n", false, inHead},
	{"chunks with a trailer", head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n", false, inHead},
	{"in a chunk's size", head + "Transfer-Encoding: chunked\r\n\r\n3", false, inChunkSize},
	{"in a chunk", head + "Transfer-Encoding: chunked\r\n\r\n3\r\nab", false, inChunkData},
	{"after a chunk", head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r", false, inChunkEnd},
	{"in a trailer", head + "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n", false, inTrailer},

	{"length and chunks", head + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", true, 0},
	{"chunks and length", head + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", true, 0},
	{"two lengths", head + "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", true, 0},
	{"a list of lengths", head + "Content-Length: 3, 3\r\n\r\n", true, 0},
	{"a signed length", head + "Content-Length: +3\r\n\r\n", true, 0},
	{"a negative length", head + "Content-Length: -1\r\n\r\n", true, 0},
	{"a length beyond all", head + "Content-Length: 9223372036854775808\r\n\r\n", true, 0},
	{"a hexadecimal length", head + "Content-Length: 0x3\r\n\r\n", true, 0},
	{"an empty length", head + "Content-Length:\r\n\r\n", true, 0},
	{"chunked twice", head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", true, 0},
	{"another coding", head + "Transfer-Encoding: gzip, chunked\r\n\r\n", true, 0},
	{"identity", head + "Transfer-Encoding: identity\r\n\r\n", true, 0},
	{"a vertical tab", head + "Transfer-Encoding: \x0bchunked\r\n\r\n", true, 0},
	{"chunks of HTTP/1.0", "POST /a HTTP/1.0\r\nHost: hsagent\r\nTransfer-Encoding: chunked\r\n\r\n", true, 0},
	{"a folded header", head + "A: b\r\n c: d\r\n\r\n", true, 0},
	{"a header folded at once", "GET /a HTTP/1.1\r\n Host: hsagent\r\n\r\n", true, 0},
	{"a space before the colon", head + "Content-Length : 3\r\n\r\n", true, 0},
	{"a header without a name", head + ": 3\r\n\r\n", true, 0},
	{"a header without a colon", head + "abc\r\n\r\n", true, 0},
	{"a bare line feed", head + "A: b\n\r\n", true, 0},
	{"a bare line feed at the end", head + "\n", true, 0},
	{"a bare carriage return", head + "A: b\rc\r\n\r\n", true, 0},
	{"a NUL", head + "A: \x00\r\n\r\n", true, 0},
	{"two hosts", head + "host: hsagent\r\n\r\n", true, 0},
	{"no host", "GET /a HTTP/1.1\r\n\r\n", true, 0},
	{"a chunk's size in words", head + "Transfer-Encoding: chunked\r\n\r\nthree\r\n", true, 0},
	{"a chunk's size with a sign", head + "Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n", true, 0},
	{"a chunk's size with a prefix", head + "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n", true, 0},
	{"a chunk's size beyond all", head + "Transfer-Encoding: chunked\r\n\r\n8000000000000000\r\n", true, 0},
	{"a chunk longer than it says", head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", true, 0},
	{"a chunk that ends in a line feed", head + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n", true, 0},
	{"an extension with a line feed", head + "Transfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n", true, 0},
	{"a line without an end", head + "A: " + strings.Repeat("x", maxHeadLine), true, 0},
}

func TestThreat18Framing(t *testing.T) {
	for _, tt := range framed {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 7, len(tt.in)} {
				var f framing
				what := feedAll(&f, []byte(tt.in), size)
				if tt.bad {
					require.NotEmpty(t, what, "in pieces of %d", size)
					continue
				}
				require.Empty(t, what, "in pieces of %d", size)
				require.Equal(t, tt.state, f.state)
			}
		})
	}
}

// FuzzFraming compares with net/http's own reading: as long as nothing is
// found wrong, both must see the same requests end at the same bytes, or a
// request could hide from one of them.
func FuzzFraming(f *testing.F) {
	for _, tt := range framed {
		if len(tt.in) < 1000 {
			f.Add([]byte(tt.in), uint8(3))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		var whole framing
		fault := feedAll(&whole, in, int(size)+1)
		var other framing
		require.Equal(t, fault == "", feedAll(&other, in, len(in)) == "", "the pieces matter")

		var ours framing
		src := bytes.NewReader(in)
		br := bufio.NewReader(src)
		at := 0
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return // net/http answers 400 and hangs up
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return // the same
			}
			end := len(in) - src.Len() - br.Buffered()
			if what := feedAll(&ours, in[at:end], int(size)+1); what != "" {
				return // refused
			}
			require.Equal(t, inHead, ours.state, "net/http sees a request end where we do not: %q", in[at:end])
			require.Zero(t, ours.lines, "net/http sees a head end where we do not: %q", in[at:end])
			require.Empty(t, ours.line)
			at = end
		}
	})
}
