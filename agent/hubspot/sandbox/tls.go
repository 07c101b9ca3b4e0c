package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"time"
)

// Listening is a sandbox that serves on a loopback port.
type Listening struct {
	URL   string // "https://127.0.0.1:PORT"
	Addr  string // "127.0.0.1:PORT"
	CAPEM []byte // the certificate of the throw-away CA

	srv  *http.Server
	done chan struct{}
}

// Start serves s on a free port of 127.0.0.1 until [Listening.Close]: TLS 1.3
// and HTTP/1.1 only, under a CA made for this one listener. The certificate is
// good for 127.0.0.1, localhost and api.hubapi.com.
func (s *Server) Start() (*Listening, error) {
	cert, caPEM, err := selfMade(time.Now())
	if err != nil {
		return nil, fmt.Errorf("making the sandbox's certificate: %w", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the sandbox: %w", err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	l := &Listening{
		Addr:  ln.Addr().String(),
		URL:   "https://" + ln.Addr().String(),
		CAPEM: caPEM,
		done:  make(chan struct{}),
		srv: &http.Server{
			Handler:           s,
			Protocols:         protocols,
			ReadHeaderTimeout: time.Minute,
			ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
			TLSConfig: &tls.Config{
				MinVersion:   tls.VersionTLS13,
				Certificates: []tls.Certificate{cert},
				NextProtos:   []string{"http/1.1"},
			},
		},
	}
	go func() {
		defer close(l.done)
		if err := l.srv.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("sandbox stopped serving", slog.Any("err", err))
		}
	}()
	return l, nil
}

// Close stops serving and cuts every connection, also of requests that hang.
func (l *Listening) Close() {
	_ = l.srv.Close() // a loopback listener's close error helps nobody
	<-l.done
}

// HangUp cuts the connections that are idle, as HubSpot does after a while.
func (l *Listening) HangUp() {
	l.srv.SetKeepAlivesEnabled(false)
	l.srv.SetKeepAlivesEnabled(true)
}

// CertPool returns a pool with the listener's CA alone.
func (l *Listening) CertPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(l.CAPEM)
	return pool
}

// selfMade makes a CA and a leaf under it, good for a week around now.
func selfMade(now time.Time) (leaf tls.Certificate, caPEM []byte, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return leaf, nil, err
	}
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "hsagentd sandbox CA"},
		NotBefore:             now.Add(-24 * time.Hour),
		NotAfter:              now.Add(7 * 24 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return leaf, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return leaf, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "hsagentd sandbox"},
		NotBefore:    ca.NotBefore,
		NotAfter:     ca.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost", "api.hubapi.com"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}, ca, key.Public(), caKey)
	if err != nil {
		return leaf, nil, err
	}
	leaf = tls.Certificate{Certificate: [][]byte{der, caDER}, PrivateKey: key}
	return leaf, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), nil
}
