package hubspot_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/wire"
)

// BenchmarkSend measures one GET over a kept TLS connection, and the same over
// net/http's Transport. The server allocates nothing, so what is counted is
// the client's.
func BenchmarkSend(b *testing.B) {
	body := strings.Repeat("x", 2000)
	raw := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json;charset=utf-8\r\nContent-Length: 2000\r\nDate: Wed, 25 Nov 2026 10:00:00 GMT\r\n" +
		"X-HubSpot-RateLimit-Daily: 625000\r\nX-HubSpot-RateLimit-Daily-Remaining: 624999\r\nX-HubSpot-RateLimit-Max: 190\r\nX-HubSpot-RateLimit-Remaining: 189\r\n" +
		"X-HubSpot-Correlation-Id: 0193a1b2-0000-7000-8000-000000000001\r\nServer: cloudflare\r\nCF-Ray: 8f0000000000-IAD\r\nVary: origin\r\n\r\n" + body)
	s := serveRaw(b, true, func(c *rawConn) {
		in := bufio.NewReader(c)
		for {
			for {
				line, err := in.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) == 2 {
					break
				}
			}
			if _, err := c.Write(raw); err != nil {
				return
			}
		}
	})
	header := http.Header{"Accept": {"application/json"}, "User-Agent": {"bench"}}
	b.Run("own", func(b *testing.B) {
		p := s.pool(b, nil)
		target := hubspot.Target{Path: "/crm/v3/objects/contacts"}
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c, err := p.Take(b.Context())
				require.NoError(b, err)
				resp, err := c.Send(b.Context(), &hubspot.Request{Method: "GET", Target: target, Header: header}, wire.NewToken(madeUp))
				require.NoError(b, err)
				_, err = io.Copy(io.Discard, resp.Body)
				require.NoError(b, err)
				require.NoError(b, resp.Body.Close())
			}
		})
	})
	b.Run("net/http", func(b *testing.B) {
		pem, err := os.ReadFile(s.ca)
		require.NoError(b, err)
		roots := x509.NewCertPool()
		require.True(b, roots.AppendCertsFromPEM(pem))
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 256}
		defer tr.CloseIdleConnections()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				req, err := http.NewRequestWithContext(b.Context(), "GET", s.url+"/crm/v3/objects/contacts", nil)
				require.NoError(b, err)
				req.Header = header.Clone()
				req.Header["Authorization"] = []string{"Bearer " + madeUp}
				resp, err := tr.RoundTrip(req)
				require.NoError(b, err)
				_, err = io.Copy(io.Discard, resp.Body)
				require.NoError(b, err)
				require.NoError(b, resp.Body.Close())
			}
		})
	})
}
