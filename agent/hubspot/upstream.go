package hubspot

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// DefaultBaseURL is HubSpot's one documented root for every API version; it
// routes to the region of the portal.
const DefaultBaseURL = "https://api.hubapi.com"

// UpstreamConfig says how HubSpot is reached.
type UpstreamConfig struct {
	// BaseURL replaces DefaultBaseURL and every portal's own base URL. Plain
	// http is accepted only for a loopback address. Empty: DefaultBaseURL.
	BaseURL string
	// CAFile is a PEM bundle that replaces the system's roots. Empty: the
	// system's bundle, found at the places where Linux distributions keep it.
	// SSL_CERT_FILE and SSL_CERT_DIR are not read.
	CAFile string
	// Proxy is an http:// proxy to CONNECT through. Empty: none, whatever
	// HTTPS_PROXY says.
	Proxy string
	// HeaderTimeout is how long HubSpot may take until its answer's header
	// has arrived, from when the request was sent. 0: 30 s.
	HeaderTimeout time.Duration
}

// Limits of one upstream connection.
const (
	dialTimeout          = 5 * time.Second
	tlsTimeout           = 5 * time.Second
	defaultHeaderTimeout = 30 * time.Second
	idleConnTimeout      = 90 * time.Second
	maxResponseHeader    = 64 << 10
	idleConnsPerPortal   = 256 // as large as the concurrency: the default of 2 means a TLS handshake per call
)

// An Upstream knows how to reach HubSpot. It holds no connection itself: each
// portal gets a [Pool] of its own from it.
type Upstream struct {
	cfg      UpstreamConfig
	override *url.URL // of cfg.BaseURL, or nil
	proxy    *url.URL
	tls      *tls.Config
}

// NewUpstream checks the configuration and loads the TLS roots.
func NewUpstream(cfg UpstreamConfig) (*Upstream, error) {
	u := &Upstream{cfg: cfg}
	if u.cfg.HeaderTimeout == 0 {
		u.cfg.HeaderTimeout = defaultHeaderTimeout
	}
	var err error
	if cfg.BaseURL != "" {
		if u.override, err = parseBase(cfg.BaseURL); err != nil {
			return nil, err
		}
	}
	if cfg.Proxy != "" {
		if u.proxy, err = parseProxy(cfg.Proxy); err != nil {
			return nil, err
		}
	}
	u.tls = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	if u.override == nil || u.override.Scheme == "https" {
		if u.tls.RootCAs, err = loadRoots(cfg.CAFile); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// Base is the base URL that calls go to where an entry names none.
func (u *Upstream) Base() string {
	if u.override != nil {
		return u.override.String()
	}
	return DefaultBaseURL
}

// parseBase accepts https://host[:port] and, for a loopback address, http.
func parseBase(s string) (*url.URL, error) {
	b, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("upstream %q: not a URL", s)
	}
	if b.Host == "" || b.User != nil || (b.Path != "" && b.Path != "/") || b.RawQuery != "" || b.Fragment != "" {
		return nil, fmt.Errorf("upstream %q: want scheme, host and port only, such as %s", s, DefaultBaseURL)
	}
	switch {
	case b.Scheme == "https":
	case b.Scheme == "http" && isLoopback(b.Hostname()):
	default:
		return nil, fmt.Errorf("upstream %q: want https:// (http:// is for a loopback address alone: tokens would travel in the clear)", s)
	}
	b.Path = ""
	return b, nil
}

func parseProxy(s string) (*url.URL, error) {
	p, err := url.Parse(s)
	if err != nil || p.Scheme != "http" || p.Host == "" || strings.Trim(p.Path, "/") != "" {
		return nil, errors.New("upstream.proxy: want http://host:port, the address of a proxy that takes CONNECT")
	}
	return p, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// rootBundles are where Linux distributions keep the system's roots.
var rootBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Gentoo, Arch
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
	"/etc/ssl/ca-bundle.pem",                            // openSUSE
	"/etc/ssl/cert.pem",                                 // Alpine
}

func loadRoots(file string) (*x509.CertPool, error) {
	files := rootBundles
	if file != "" {
		files = []string{file}
	}
	for _, f := range files {
		pem, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) && file == "" {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the TLS roots: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("TLS roots in %s: no certificate in PEM form", f)
		}
		return pool, nil
	}
	return nil, errors.New("no TLS roots found: install the package ca-certificates, or name a PEM bundle with --upstream-ca")
}

// A Pool is the upstream connections of one portal: nothing that happens to
// another portal's connections touches them.
type Pool struct {
	transport *http.Transport
	base      url.URL
}

// NewPool makes the pool of one portal. base is the entry's own base URL or
// ""; the configured override goes before it.
func (u *Upstream) NewPool(base string) (*Pool, error) {
	b := u.override
	if b == nil {
		if base == "" {
			base = DefaultBaseURL
		}
		var err error
		if b, err = parseBase(base); err != nil {
			return nil, err
		}
	}
	d := &dialer{pinned: hostPort(b), serverName: b.Hostname(), proxy: u.proxy, tls: u.tls, public: u.override == nil}
	var http1 http.Protocols
	http1.SetHTTP1(true)
	return &Pool{
		base: *b,
		transport: &http.Transport{
			Protocols:              &http1,
			Proxy:                  nil, // never from the environment; dialer.proxy is the configured one
			DialContext:            d.plain,
			DialTLSContext:         d.secure,
			MaxIdleConnsPerHost:    idleConnsPerPortal,
			IdleConnTimeout:        idleConnTimeout,
			ResponseHeaderTimeout:  u.cfg.HeaderTimeout,
			MaxResponseHeaderBytes: maxResponseHeader,
			WriteBufferSize:        16 << 10,
			ReadBufferSize:         16 << 10,
		},
	}, nil
}

// Close drops the pool's idle connections.
func (p *Pool) Close() { p.transport.CloseIdleConnections() }

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// A dialer opens connections to one pinned host and to nothing else.
type dialer struct {
	pinned     string // host:port
	serverName string
	proxy      *url.URL
	tls        *tls.Config
	public     bool // refuse addresses that HubSpot cannot have
}

// plain opens a connection without TLS: for a loopback upstream.
func (d *dialer) plain(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &gatedConn{Conn: c}, nil
}

// secure opens a connection with TLS.
func (d *dialer) secure(ctx context.Context, network, addr string) (net.Conn, error) {
	raw, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	cfg := d.tls.Clone()
	cfg.ServerName = d.serverName
	c := tls.Client(raw, cfg)
	ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS with %s: %w", d.pinned, err), raw.Close())
	}
	return &gatedConn{Conn: c}, nil
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if addr != d.pinned {
		return nil, fmt.Errorf("dial %s: only %s may be dialled for this portal", addr, d.pinned)
	}
	nd := net.Dialer{Timeout: dialTimeout}
	if d.proxy != nil {
		return d.connect(ctx, &nd, network)
	}
	if d.public {
		nd.Control = refuseLocal
	}
	return nd.DialContext(ctx, network, addr)
}

// connect asks the configured proxy for a tunnel to the pinned host.
func (d *dialer) connect(ctx context.Context, nd *net.Dialer, network string) (_ net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := nd.DialContext(ctx, network, hostPort(d.proxy))
	if err != nil {
		return nil, fmt.Errorf("dial the proxy: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // unblocks the exchange below
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			_ = c.Close() // the first error is the one to report
		}
	}()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: d.pinned}, Host: d.pinned, Header: http.Header{}}
	if d.proxy.User != nil {
		pw, _ := d.proxy.User.Password()
		cred := base64.StdEncoding.EncodeToString([]byte(d.proxy.User.Username() + ":" + pw))
		req.Header.Set("Proxy-Authorization", "Basic "+cred)
	}
	if err = req.Write(c); err != nil {
		return nil, fmt.Errorf("ask the proxy for a tunnel: %w", err)
	}
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, req) //nolint:bodyclose // the answer to CONNECT has none: what follows is the tunnel
	if err != nil {
		return nil, fmt.Errorf("read the proxy's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK || br.Buffered() > 0 {
		return nil, fmt.Errorf("the proxy refused a tunnel to %s: %s", d.pinned, resp.Status)
	}
	return c, nil
}

// refuseLocal keeps a forged DNS answer from turning HubSpot's name into an
// address of this machine or its network.
func refuseLocal(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("dial %s: %w", address, err)
	}
	if ip := ap.Addr().Unmap(); ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast() {
		return fmt.Errorf("%s is no public address: does something forge DNS answers for HubSpot?", ip)
	}
	return nil
}
