// Package upstream is the yardstick's HubSpot: a TLS server that does as
// little as can be, so that what is measured is what stands before it. It
// answers every call with the same body of 1.9 KB, the agent's questions about
// a token with that token's portal, and a call without a good token with 401.
//
// It is no believable HubSpot: that is agent/hubspot/sandbox.
package upstream

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// tokenPrefix and twelve hex digits, the portal's number, are a good token.
const tokenPrefix = "pat-na1-00000000-0000-4000-8000-"

// Token is the token of a portal.
func Token(portal int64) string { return fmt.Sprintf("%s%012x", tokenPrefix, portal) }

// Path is a path to call; PathDelayed one whose answer takes its time.
const Path = "/crm/v3/objects/contacts?limit=10"

// PathDelayed is Path with an answer that is held back for d.
func PathDelayed(d time.Duration) string {
	return Path + "&delay=" + strconv.FormatInt(d.Milliseconds(), 10)
}

// Body is what every call is answered with.
var Body = body()

func body() []byte {
	var b bytes.Buffer
	b.WriteString(`{"results":[`)
	for i := range 10 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":"%d","properties":{"createdate":"2026-11-02T09:14:0%d.112Z","email":"contact%d@example.com","firstname":"Ann","lastname":"Lee-%d"},"archived":false}`, 51801+i*37, i, i, i)
	}
	b.WriteString(`],"paging":{"next":{"after":"52171","link":"https://api.hubapi.com/crm/v3/objects/contacts?limit=10&after=52171"}}}`)
	return b.Bytes()
}

// Crowd is the first of the portals that come in thousands. Their connections
// are closed once they are verified: an agent keeps one idle for 90 s, and
// thousands of them would be all that is measured.
const Crowd = 2000

// A Server is a running yardstick.
type Server struct {
	URL   string
	CAPEM []byte

	listener net.Listener
	answer   []byte
	refused  atomic.Int64
}

// Start starts one on a port of the loopback.
func Start() (*Server, error) {
	cert, ca, err := certificate()
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "https://" + l.Addr().String(), CAPEM: ca, listener: l, answer: answer(200, "OK", Body)}
	go s.accept()
	return s, nil
}

// Close ends it.
func (s *Server) Close() { _ = s.listener.Close() }

// Refused is how many calls had no good token.
func (s *Server) Refused() int64 { return s.refused.Load() }

func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		go s.serve(c)
	}
}

func answer(status int, text string, body []byte) []byte {
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nDate: Wed, 25 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json;charset=utf-8\r\n"+
		"X-HubSpot-Correlation-Id: 0190a3c1-7b1e-7cc3-98c4-dc0c0c07398f\r\nX-HubSpot-RateLimit-Daily: 1000000000\r\n"+
		"X-HubSpot-RateLimit-Daily-Remaining: 999999999\r\nContent-Length: %d\r\n\r\n", status, text, len(body))
	return append([]byte(head), body...)
}

// serve answers the requests of one connection.
func (s *Server) serve(c net.Conn) {
	defer c.Close()
	br := bufio.NewReaderSize(c, 16<<10)
	for {
		r, err := readHead(br)
		if err != nil {
			return
		}
		out := s.answer
		switch {
		case r.portal == 0:
			s.refused.Add(1)
			out = answer(401, "Unauthorized", []byte(`{"status":"error","category":"INVALID_AUTHENTICATION"}`))
		case r.account:
			out = answer(200, "OK", fmt.Appendf(nil, `{"portalId":%d,"accountType":"STANDARD","timeZone":"UTC","companyCurrency":"EUR","additionalCurrencies":[],`+
				`"utcOffset":"+00:00","utcOffsetMilliseconds":0,"uiDomain":"app.hubspot.com","dataHostingLocation":"na1"}`, r.portal))
		case r.tokenInfo:
			out = answer(200, "OK", fmt.Appendf(nil, `{"hubId":%d,"userId":1,"appId":2,"scopes":["crm.objects.contacts.read"]}`, r.portal))
		}
		if r.delay > 0 {
			time.Sleep(r.delay)
		}
		crowded := r.account && r.portal >= Crowd
		if crowded {
			out = bytes.Replace(out, []byte("\r\n"), []byte("\r\nConnection: close\r\n"), 1)
		}
		if _, err := c.Write(out); err != nil || crowded {
			return
		}
	}
}

// A request is what matters of one.
type request struct {
	portal    int64 // of its token; 0: it has no good one
	delay     time.Duration
	account   bool
	tokenInfo bool
}

var errHead = errors.New("no request")

// readHead reads a request, and its body.
func readHead(br *bufio.Reader) (r request, err error) {
	var length int64
	for first := true; ; first = false {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return r, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			r.target(line)
			continue
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case !ok:
			return r, errHead
		case is(name, "authorization"):
			if hex, ok := bytes.CutPrefix(value, []byte("Bearer "+tokenPrefix)); ok {
				r.portal, _ = strconv.ParseInt(string(hex), 16, 63) // 0: no good token
			}
		case is(name, "content-length"):
			if length, err = strconv.ParseInt(string(value), 10, 32); err != nil {
				return r, errHead
			}
		case is(name, "transfer-encoding"):
			return r, errHead // nobody here sends one
		}
	}
	_, err = io.CopyN(io.Discard, br, length)
	return r, err
}

func (r *request) target(line []byte) {
	if i := bytes.Index(line, []byte("delay=")); i >= 0 {
		ms, _, _ := strings.Cut(string(line[i+6:]), " ")
		n, _ := strconv.Atoi(ms) // 0: no delay
		r.delay = time.Duration(n) * time.Millisecond
	}
	r.account = bytes.Contains(line, []byte(" /account-info/v3/details"))
	r.tokenInfo = bytes.Contains(line, []byte("/access-token-info"))
}

func is(name []byte, want string) bool {
	return len(name) == len(want) && strings.EqualFold(string(name), want)
}

// certificate makes one for 127.0.0.1 that signs itself.
func certificate() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "yardstick"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
