package hubspot_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/wire"
)

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func zipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s) // a bytes.Buffer takes everything
	_ = w.Close()
	return b.String()
}

func TestRequestOnTheWire(t *testing.T) {
	got := make(chan *http.Request, 1)
	s := serveRaw(t, true, func(c *rawConn) {
		req, _, err := c.request()
		if err == nil {
			got <- req
		}
	})
	p := s.pool(t, nil)
	c, err := p.Take(t.Context())
	require.NoError(t, err)
	target, err := hubspot.ParseTarget("/crm/v3/objects/contacts/jo%40example.com?a=%2f")
	require.NoError(t, err)
	_, err = c.Send(t.Context(), &hubspot.Request{Method: "DELETE", Target: target, Header: http.Header{"X-A": {"1", "2"}}}, wire.NewToken(madeUp))
	require.Error(t, err, "it is not answered")
	req := <-got
	require.Equal(t, "DELETE", req.Method)
	require.Equal(t, "/crm/v3/objects/contacts/jo%40example.com?a=%2f", req.RequestURI)
	require.Equal(t, strings.TrimPrefix(s.url, "https://"), req.Host)
	require.Equal(t, http.Header{"X-A": {"1", "2"}, "Authorization": {"Bearer " + madeUp}, "Accept-Encoding": {"gzip"}}, req.Header)
}

func TestHeadersThatEndTooEarlyAreRefused(t *testing.T) {
	s := serveRaw(t, false, func(c *rawConn) {
		b, _ := io.ReadAll(c)
		if len(b) > 0 {
			t.Errorf("sent %q", b)
		}
	})
	p := s.pool(t, nil)
	for name, value := range map[string]string{"X-A": "a\r\nX-B: b", "X-B": "a\nb", "X-C": "\x00", "X D": "", "X-E:": "e", "": "f", "X-\r\nG": "g"} {
		c, err := p.Take(t.Context())
		require.NoError(t, err)
		_, err = c.Send(t.Context(), &hubspot.Request{Method: "GET", Target: hubspot.Target{Path: "/x"}, Header: http.Header{name: {value}}}, wire.NewToken(madeUp))
		requireCode(t, wire.CodeBadRequest, err)
	}
}

// The token has a TLS record to itself, behind a larger one: no buffer of ours
// or of crypto/tls gets it together with anything else.
func TestTokenTravelsInARecordOfItsOwn(t *testing.T) {
	s := serveRaw(t, true, answering(ok))
	behind := strings.TrimPrefix(s.url, "https://")
	var sent bytes.Buffer
	front, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { // between the two, to see the records
		defer close(done)
		in, err := front.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		out, err := net.Dial("tcp", behind)
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(in, out) }()
		_, _ = io.Copy(io.MultiWriter(out, &sent), in)
		_ = out.Close()
	}()
	s.url = "https://" + front.Addr().String()
	p := s.pool(t, nil)
	for range 2 {
		_, body, err := get(t, p)
		require.NoError(t, err)
		require.Equal(t, "ok", body)
	}
	p.Close()
	<-done
	require.NoError(t, front.Close())
	var sizes []int // of the plaintext of application records
	for b := sent.Bytes(); len(b) > 0; {
		size := int(b[3])<<8 | int(b[4])
		if b[0] == 23 {
			sizes = append(sizes, size-17) // less its kind and its tag
		}
		b = b[5+size:]
	}
	sizes = sizes[len(sizes)-6:] // the handshake's end is one too
	for _, request := range [][]int{sizes[:3], sizes[3:]} {
		require.Greater(t, request[0], len(madeUp))
		require.Equal(t, []int{len(madeUp), len("\r\n\r\n")}, request[1:])
	}
}

func TestThreat45UpstreamInvalidAnswers(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\n"
	for _, raw := range []string{
		"garbage", "\r\n\r\n", "\r\n" + ok, "HTTP/1.1\r\n\r\n", "HTTP/2 200 OK\r\n\r\n", "HTTP/1.2 200 OK\r\n\r\n", "http/1.1 200 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 1000 OK\r\n\r\n", "HTTP/1.1 +20 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200\tOK\r\n\r\n", "HTTP/1.1 200 O\x00K\r\n\r\n",
		"HTTP/1.1 200 OK\n\n", head + "A: b\nContent-Length: 0\r\n\r\n", head + "A: b\rc\r\n\r\n",
		head + " folded\r\n\r\n", head + "A: b\r\n folded\r\n\r\n", head + "A : b\r\n\r\n", head + ": b\r\n\r\n", head + "A\r\n\r\n", head + "A b\r\n\r\n", head + "A(: b\r\n\r\n", head + "A: \x00\r\n\r\n", head + "A: \x7f\r\n\r\n",
		head + "Content-Length: -1\r\n\r\n", head + "Content-Length: +1\r\n\r\na", head + "Content-Length: 1, 1\r\n\r\na", head + "Content-Length: 0x1\r\n\r\na", head + "Content-Length: \r\n\r\n",
		head + "Content-Length: 9223372036854775808\r\n\r\n", head + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", head + "Content-Length: 1\r\ncontent-length: 2\r\n\r\na",
		head + "Content-Length: 1 1\r\n\r\na", head + "Content-Length : 1\r\n\r\na",
		head + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n", head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", head + "Transfer-Encoding: identity\r\n\r\n", head + "Transfer-Encoding: xchunked\r\n\r\n", head + "Transfer-Encoding:\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 204 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"HTTP/1.1 103 E\r\nA\r\n\r\n" + ok, strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 6) + ok, strings.Repeat("HTTP/1.1 100 Continue\r\nX: "+strings.Repeat("x", 20_000)+"\r\n\r\n", 4) + ok,
		head + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", head + strings.Repeat("a: b\r\n", 100_000) + "\r\n", strings.Repeat("x", 1<<20), head + "Half-A-Hea",
	} {
		s := serveRaw(t, false, func(c *rawConn) {
			if _, _, err := c.request(); err == nil {
				_, _ = io.WriteString(c, raw)
			}
		})
		p := s.pool(t, nil)
		_, _, err := get(t, p)
		var invalid hubspot.InvalidError
		require.ErrorAs(t, err, &invalid, "%.100q", raw)
		all, _ := p.Idle()
		require.Zero(t, all, "%.100q", raw)
	}
}

func TestThreat45UpstreamWaitsAreBounded(t *testing.T) {
	const short = 50 * time.Millisecond
	hang := func(c *rawConn) { _, _ = io.Copy(io.Discard, c) }
	tests := []struct {
		name   string
		change func(*hubspot.UpstreamConfig)
		serve  func(c *rawConn)
		body   io.Reader
		begun  bool // the answer begins
	}{
		{"no answer", func(c *hubspot.UpstreamConfig) { c.HeaderTimeout = short }, hang, nil, false},
		{"no answer to a body", func(c *hubspot.UpstreamConfig) { c.HeaderTimeout = short }, hang, strings.NewReader("x"), false},
		{"a header byte by byte", func(c *hubspot.UpstreamConfig) { c.HeaderTimeout = short }, func(c *rawConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: ")
			for {
				if _, err := io.WriteString(c, "x"); err != nil {
					return
				}
				time.Sleep(short / 50)
			}
		}, nil, false},
		{"a pause in the answer", func(c *hubspot.UpstreamConfig) { c.PauseTimeout, c.HeaderTimeout = short, time.Hour }, func(c *rawConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
			hang(c)
		}, nil, true},
		{"a body that is not read", func(c *hubspot.UpstreamConfig) { c.PauseTimeout = short }, func(c *rawConn) {
			for {
				time.Sleep(short)
				if _, err := c.Write(nil); err != nil { // closed at the test's end
					return
				}
			}
		}, endless{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serveRaw(t, false, tt.serve)
			p := s.pool(t, tt.change)
			resp, err := send(t.Context(), p, "POST", tt.body, -1)
			if tt.begun {
				require.NoError(t, err)
				_, err = io.ReadAll(resp.Body)
			}
			require.Error(t, err)
			var ne interface{ Timeout() bool }
			require.ErrorAs(t, err, &ne)
			require.True(t, ne.Timeout(), "%v", err)
			all, _ := p.Idle()
			require.Zero(t, all)
		})
	}
	t.Run("no TLS", func(t *testing.T) {
		s := serveRaw(t, false, hang)
		s.url = strings.Replace(s.url, "http:", "https:", 1)
		_, err := s.pool(t, func(c *hubspot.UpstreamConfig) { c.DialTimeout = short }).Take(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestCancelled(t *testing.T) {
	tests := []struct {
		name string
		raw  string
		body io.Reader
	}{
		{"before the answer", "", nil},
		{"before the answer, with a body", "", strings.NewReader("x")},
		{"while it uploads", "", endless{}},
		{"in the answer", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", nil},
	}
	cause := errors.New("the caller has gone")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			s := serveRaw(t, true, func(c *rawConn) {
				if _, err := http.ReadRequest(c.in); err != nil {
					return
				}
				_, _ = io.WriteString(c, tt.raw)
				if tt.raw == "" {
					cancel(cause)
				}
				_, _ = io.Copy(io.Discard, c.in)
			})
			p := s.pool(t, nil)
			resp, err := send(ctx, p, "POST", tt.body, -1)
			if tt.raw == "" {
				require.ErrorIs(t, err, cause)
			} else {
				require.NoError(t, err)
				_, err = io.CopyN(io.Discard, resp.Body, 3)
				require.NoError(t, err)
				cancel(cause)
				_, err = io.ReadAll(resp.Body)
				require.Error(t, err)
			}
			all, _ := p.Idle()
			require.Zero(t, all)
		})
	}
}
