package hubspot_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
)

// A scripted connection takes whatever is sent and gives the bytes it has.
type scripted struct {
	net.Conn
	*bytes.Reader
}

func (scripted) Write(b []byte) (int, error)      { return len(b), nil }
func (s scripted) Read(b []byte) (int, error)     { return s.Reader.Read(b) }
func (scripted) Close() error                     { return nil }
func (scripted) SetReadDeadline(time.Time) error  { return nil }
func (scripted) SetWriteDeadline(time.Time) error { return nil }

// FuzzAnswer checks that every answer which is taken means to net/http what it
// means here.
func FuzzAnswer(f *testing.F) {
	const head = "HTTP/1.1 200 OK\r\n"
	for _, s := range []string{
		ok, ok + ok, head + "\r\nuntil the end", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 204 No\r\n\r\n", "HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n",
		head + "Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", "HTTP/1.1 103 Early\r\nA: b\r\n\r\n" + ok, "HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\nx",
		head + "A: b\r\na:  c \r\nContent-Length: 3\r\n\r\nabc", head + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", head + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 000 x\r\n\r\n", head + "Connection: close\r\nX:\xff\r\n\r\nx", head + "X : y\r\n\r\n", "\r\n", "garbage",
	} {
		for m := range uint8(2) {
			f.Add([]byte(s), m)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, m uint8) {
		method := []string{"GET", "HEAD", "POST"}[m%3]
		resp, err := hubspot.SendOn(t.Context(), scripted{Reader: bytes.NewReader(data)}, &hubspot.Request{
			Method: method, Target: hubspot.Target{Path: "/x"}, Header: http.Header{},
		})
		if err != nil {
			require.Nil(t, resp)
			var invalid hubspot.InvalidError
			require.True(t, len(data) == 0 || errors.As(err, &invalid), "%v", err)
			return
		}
		if resp.Uncompressed {
			_ = resp.Body.Close()
			return // net/http leaves the body as it came
		}
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, resp.Body.Close())

		in := bufio.NewReader(bytes.NewReader(data))
		var (
			want *http.Response
			werr error
		)
		for want == nil || want.StatusCode >= 100 && want.StatusCode < 200 && want.StatusCode != 101 {
			want, werr = http.ReadResponse(in, &http.Request{Method: method})
			require.NoError(t, werr)
		}
		wantBody, werr := io.ReadAll(want.Body)
		require.Equal(t, want.StatusCode, resp.StatusCode)
		require.Equal(t, want.ContentLength, resp.ContentLength)
		require.Equal(t, want.Status, strings.TrimLeft(resp.Status, " "))
		if resp.Header["Cache-Control"] == nil {
			delete(want.Header, "Cache-Control") // which net/http derives from Pragma
		}
		for _, name := range []string{"Trailer", "Connection"} { // which net/http takes out
			delete(want.Header, name)
			delete(resp.Header, name)
		}
		require.Equal(t, want.Header, resp.Header)
		if want.StatusCode < 200 {
			require.Empty(t, body)
			return // net/http reads what follows as a body of the new protocol's
		}
		require.Equal(t, string(wantBody), string(body))
		if err == nil {
			require.NoError(t, werr, "ended well")
			require.True(t, want.Close == resp.Close || resp.Close, "kept where net/http would not")
		}
	})
}
