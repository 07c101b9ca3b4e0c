package hubspot_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/wire"
)

// patience bounds waits for what goes on in the background; it measures nothing.
const patience = 20 * time.Second

// A rawServer is a HubSpot of which the test writes every byte.
type rawServer struct {
	url   string
	ca    string // "" without TLS
	conns atomic.Int64
}

// A rawConn is one connection to it.
type rawConn struct {
	net.Conn
	in *bufio.Reader
	n  int64 // 1 for the server's first connection
}

// request reads the next request, with its whole body.
func (c *rawConn) request() (*http.Request, string, error) {
	req, err := http.ReadRequest(c.in)
	if err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(req.Body)
	return req, string(b), err
}

// serveRaw starts a server that runs serve for each connection and then closes
// it.
func serveRaw(t testing.TB, secure bool, serve func(c *rawConn)) *rawServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &rawServer{url: "http://" + l.Addr().String()}
	if secure {
		donor := httptest.NewTLSServer(nil)
		donor.Close()
		s.url, s.ca = "https://"+l.Addr().String(), filepath.Join(t.TempDir(), "ca.pem")
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: donor.Certificate().Raw})
		require.NoError(t, os.WriteFile(s.ca, block, 0o600))
		l = tls.NewListener(l, &tls.Config{Certificates: donor.TLS.Certificates, NextProtos: []string{"http/1.1"}})
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		open []net.Conn
	)
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				serve(&rawConn{conn, bufio.NewReader(conn), s.conns.Add(1)})
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return s
}

// answering is a serve that gives every request of a connection this answer.
func answering(raw string) func(c *rawConn) {
	return func(c *rawConn) {
		for {
			if _, _, err := c.request(); err != nil {
				return
			}
			if _, err := io.WriteString(c, raw); err != nil {
				return
			}
		}
	}
}

// pool makes a pool of connections to the server.
func (s *rawServer) pool(t testing.TB, change func(*hubspot.UpstreamConfig)) *hubspot.Pool {
	t.Helper()
	cfg := hubspot.UpstreamConfig{BaseURL: s.url, CAFile: s.ca}
	if change != nil {
		change(&cfg)
	}
	up, err := hubspot.NewUpstream(cfg)
	require.NoError(t, err)
	p, err := up.NewPool("")
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

const madeUp = "pat-na1-00000000-0000-4000-8000-00000000000a"

// send takes a connection and sends one request.
func send(ctx context.Context, p *hubspot.Pool, method string, body io.Reader, length int64) (*http.Response, error) {
	c, err := p.Take(ctx)
	if err != nil {
		return nil, err
	}
	target, err := hubspot.ParseTarget("/crm/v3/objects/contacts?limit=1")
	if err != nil {
		return nil, err
	}
	return c.Send(ctx, &hubspot.Request{Method: method, Target: target, Header: http.Header{}, Body: body, Length: length}, wire.NewToken(madeUp))
}

// get sends one GET and reads its answer.
func get(t testing.TB, p *hubspot.Pool) (*http.Response, string, error) {
	t.Helper()
	resp, err := send(t.Context(), p, "GET", nil, 0)
	if err != nil {
		require.Nil(t, resp)
		require.NotContains(t, err.Error(), madeUp)
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		require.NotContains(t, err.Error(), madeUp)
	}
	return resp, string(b), err
}

// trickled is bytes one by one, each in a Read of its own.
type trickled struct{ s *strings.Reader }

func (r trickled) Read(b []byte) (int, error) { return r.s.Read(b[:min(1, len(b))]) }
