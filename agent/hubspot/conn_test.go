package hubspot_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// Sound answers leave the connection as it was: one serves them all.
func TestConnectionsAreKept(t *testing.T) {
	tests := []struct {
		name, method, raw, body string
		length                  int64
	}{
		{"length", "GET", ok, "ok", 2},
		{"empty", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", 0},
		{"no reason", "GET", "HTTP/1.1 404\r\nContent-Length: 2\r\n\r\nno", "no", 2},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", "abcd", -1},
		{"trailers", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\nY-T: 2\r\n\r\n", "a", -1},
		{"gzip", "GET", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(zipped("hello")), zipped("hello")), "hello", -1},
		{"gzip in chunks", "GET", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: GZIP\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(zipped("hello")), zipped("hello")), "hello", -1},
		{"gzip of nothing", "GET", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", -1},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "", 1000},
		{"HEAD, chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", -1},
		{"204", "DELETE", "HTTP/1.1 204 No Content\r\n\r\n", "", 0},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n", "", 0},
		{"early hints", "GET", "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + ok, "ok", 2},
		{"latin-1", "GET", "HTTP/1.1 200 \xd6K\r\nX-Name: M\xfcller\r\nContent-Length: 2\r\n\r\nok", "ok", 2},
		{"long", "GET", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 60_000) + "\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("y", 100_000), strings.Repeat("y", 100_000), 100_000},
	}
	for _, secure := range []bool{false, true} {
		var next int
		s := serveRaw(t, secure, func(c *rawConn) {
			for {
				if _, _, err := c.request(); err != nil {
					return
				}
				_, _ = io.WriteString(c, tests[next].raw)
			}
		})
		p := s.pool(t, nil)
		for i, tt := range tests {
			next = i
			resp, err := send(t.Context(), p, tt.method, nil, 0)
			require.NoError(t, err, tt.name)
			require.Equal(t, tt.length, resp.ContentLength, tt.name)
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err, tt.name)
			require.Equal(t, tt.body, string(b), tt.name)
			require.NoError(t, resp.Body.Close())
			require.Empty(t, resp.Header["Transfer-Encoding"])
			require.Equal(t, int64(1), s.conns.Load(), tt.name)
		}
	}
}

// Whatever is odd about an answer, its connection serves no other request.
func TestOddConnectionsAreDropped(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\n"
	tests := []struct {
		name, raw, body string
		err             bool
	}{
		{"close", head + "Connection: foo, Close\r\nContent-Length: 2\r\n\r\nok", "ok", false},
		{"a request that was too slow", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 2\r\n\r\nok", "ok", false},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "ok", false},
		{"until the end", head + "\r\nall of it", "all of it", false},
		{"more than the length", ok + "more", "ok", false},
		{"a second answer", ok + ok, "ok", false},
		{"a body of 204", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nbad", "", false},
		{"more behind the chunks", head + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nmore", "a", false},
		{"less than the length", head + "Content-Length: 5\r\n\r\nab", "ab", true},
		{"no last chunk", head + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "a", true},
		{"no end of trailers", head + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n", "a", true},
		{"no trailer", head + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nxyz\r\n\r\n", "a", true},
		{"an endless trailer", head + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: " + strings.Repeat("b", 20_000), "a", true},
		{"endless trailers", head + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" + strings.Repeat("A: b\r\n", 20_000) + "\r\n", "a", true},
		{"a chunk without a size", head + "Transfer-Encoding: chunked\r\n\r\nzz\r\na\r\n0\r\n\r\n", "", true},
		{"a negative chunk", head + "Transfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n", "", true},
		{"a chunk longer than its size", head + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", "a", true},
		{"no gzip", head + "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", "", true},
		{"half a gzip", head + "Content-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + zipped("hello")[:20], "hello", true},
		{"more than a gzip", head + "Content-Encoding: gzip\r\n\r\n" + zipped("hello") + "more", "hello", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, secure := range []bool{false, true} {
				s := serveRaw(t, secure, func(c *rawConn) {
					if _, _, err := c.request(); err != nil {
						return
					}
					if c.n > 1 {
						_, _ = io.WriteString(c, ok)
						return
					}
					_, _ = io.WriteString(c, tt.raw)
					if !tt.err && tt.body != "all of it" && !strings.HasPrefix(tt.name, "no ") {
						_, _ = c.in.ReadByte() // the server would go on
					}
				})
				p := s.pool(t, nil)
				_, body, err := get(t, p)
				if tt.err {
					var invalid hubspot.InvalidError
					require.ErrorAs(t, err, &invalid)
				} else {
					require.NoError(t, err)
				}
				require.Equal(t, tt.body, body)
				require.Eventually(t, func() bool { _, good := p.Idle(); return good == 0 }, patience, time.Millisecond)
				_, body, err = get(t, p)
				require.NoError(t, err)
				require.Equal(t, "ok", body)
				require.Equal(t, int64(2), s.conns.Load())
			}
		})
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

// An idle connection that HubSpot has closed costs nothing.
func TestClosedIdleConnectionsAreNoticed(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s := serveRaw(t, secure, func(c *rawConn) {
			if _, _, err := c.request(); err == nil {
				_, _ = io.WriteString(c, ok)
			}
		})
		p := s.pool(t, nil)
		for i := range 10 {
			_, body, err := get(t, p)
			require.NoError(t, err)
			require.Equal(t, "ok", body)
			require.Equal(t, int64(i+1), s.conns.Load())
			require.Eventually(t, func() bool { _, good := p.Idle(); return good == 0 }, patience, time.Millisecond)
		}
	}
}

// One that breaks under a request says so: whether to repeat it is not decided
// here.
func TestBrokenConnections(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, body := range []string{"", strings.Repeat("x", 100_000)} {
			s := serveRaw(t, secure, func(c *rawConn) {
				if c.n == 1 {
					return // a new connection
				}
				if _, _, err := c.request(); err != nil {
					return
				}
				_, _ = io.WriteString(c, ok)
				_, _ = http.ReadRequest(c.in) // and a kept one
			})
			p := s.pool(t, nil)
			post := func() error {
				resp, err := send(t.Context(), p, "POST", strings.NewReader(body), int64(len(body)))
				if err != nil {
					return err
				}
				_, err = io.ReadAll(resp.Body)
				return err
			}
			err := post()
			require.Error(t, err)
			require.NotErrorIs(t, err, hubspot.ErrBroken)
			require.NoError(t, post())
			require.ErrorIs(t, post(), hubspot.ErrBroken)
			require.Equal(t, int64(2), s.conns.Load(), "nothing is sent twice")
		}
	}
}

func TestUploads(t *testing.T) {
	type arrived struct {
		body   string
		length int64
	}
	got := make(chan arrived, 1)
	s := serveRaw(t, true, func(c *rawConn) {
		for {
			req, body, err := c.request()
			if err != nil {
				return
			}
			got <- arrived{body, req.ContentLength}
			_, _ = io.WriteString(c, ok)
		}
	})
	p := s.pool(t, nil)
	for _, size := range []int{0, 1, 15, 16, 4096, 32<<10 - 1, 32 << 10, 32<<10 + 1, 200_000} {
		body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		for _, known := range []bool{true, false} {
			for _, src := range []io.Reader{strings.NewReader(body), trickled{strings.NewReader(body)}} {
				if _, slow := src.(trickled); slow && size > 5000 {
					continue
				}
				length := int64(-1)
				if known {
					length = int64(size)
				}
				resp, err := send(t.Context(), p, "POST", src, length)
				require.NoError(t, err)
				require.Equal(t, arrived{body, length}, <-got)
				_, err = io.ReadAll(resp.Body)
				require.NoError(t, err)
			}
		}
	}
	require.Equal(t, int64(1), s.conns.Load())
}

var errSource = errors.New("the source broke")

// breaking gives its bytes, then an error.
type breaking struct{ r io.Reader }

func (b breaking) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if errors.Is(err, io.EOF) {
		err = errSource
	}
	return n, err
}

func TestUploadsThatBreak(t *testing.T) {
	s := serveRaw(t, true, func(c *rawConn) {
		if _, _, err := c.request(); err == nil {
			t.Error("a whole request")
		}
	})
	p := s.pool(t, nil)
	for _, length := range []int64{-1, 1000} {
		_, err := send(t.Context(), p, "POST", breaking{strings.NewReader("abc")}, length)
		require.ErrorIs(t, err, errSource)
	}
	_, err := send(t.Context(), p, "POST", strings.NewReader("abc"), 1000)
	require.ErrorContains(t, err, "shorter")
	all, _ := p.Idle()
	require.Zero(t, all)
}

// HubSpot may answer before it has read the body. The answer counts.
func TestEarlyAnswers(t *testing.T) {
	for _, raw := range []string{ok, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nok"} {
		for _, closes := range []bool{true, false} {
			s := serveRaw(t, true, func(c *rawConn) {
				if _, err := http.ReadRequest(c.in); err != nil {
					return
				}
				_, _ = io.WriteString(c, raw)
				if !closes {
					_, _ = io.Copy(io.Discard, c.in)
				}
			})
			p := s.pool(t, nil)
			body, more := io.Pipe() // which never ends by itself
			resp, err := send(t.Context(), p, "POST", body, -1)
			require.NoError(t, err)
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, "ok", string(b))
			all, _ := p.Idle()
			require.Zero(t, all)
			_, _ = more.Write([]byte("late"))
			_ = more.Close()
		}
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
		{"a pause in the answer", func(c *hubspot.UpstreamConfig) { c.PauseTimeout = short }, func(c *rawConn) {
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

// Bodies that are closed before their end, and pools that are closed, keep no
// connection.
func TestClosedBodiesAndPools(t *testing.T) {
	s := serveRaw(t, true, answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"))
	p := s.pool(t, nil)
	idle := func() int { all, _ := p.Idle(); return all }
	resp, err := send(t.Context(), p, "GET", nil, 0)
	require.NoError(t, err)
	_, err = io.CopyN(io.Discard, resp.Body, 9)
	require.NoError(t, err)
	require.Zero(t, idle())
	require.NoError(t, resp.Body.Close())
	require.NoError(t, resp.Body.Close())
	require.Zero(t, idle())

	_, _, err = get(t, p)
	require.NoError(t, err)
	require.Equal(t, 1, idle())
	c, err := p.Take(t.Context())
	require.NoError(t, err)
	require.Zero(t, idle())
	c.Release()
	require.Equal(t, 1, idle())
	require.Equal(t, int64(2), s.conns.Load())

	c, err = p.Take(t.Context())
	require.NoError(t, err)
	p.Close()
	c.Release()
	require.Zero(t, idle())
}

// closing counts how often it is closed.
type closing struct {
	net.Conn
	times *atomic.Int64
}

func (c closing) Close() error { c.times.Add(1); return nil }

func TestIdleConnectionsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p hubspot.Pool
		var closed atomic.Int64
		wait := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		for round := range 2 { // the timer is set anew
			p.Keep(closing{times: &closed})
			wait(60 * time.Second)
			p.Keep(closing{times: &closed})
			wait(29 * time.Second)
			require.Equal(t, int64(2*round), closed.Load())
			wait(2 * time.Second)
			require.Equal(t, int64(2*round+1), closed.Load(), "the one that is idle for 90 s")
			wait(60 * time.Second)
			require.Equal(t, int64(2*round+2), closed.Load())
		}
		for range 300 {
			p.Keep(closing{times: &closed})
		}
		require.Equal(t, int64(4+300-256), closed.Load(), "no more are kept than can be used")
		p.Close()
		require.Equal(t, int64(4+300), closed.Load())
		p.Keep(closing{times: &closed})
		require.Equal(t, int64(4+301), closed.Load())
	})
}
