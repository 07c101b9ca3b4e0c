package hubspot_test

import (
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
)

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
func TestThreat18OddConnectionsAreDropped(t *testing.T) {
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
