package hubspot

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/wire"
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
	// DialTimeout is how long connecting may take, and then TLS. 0: 5 s each.
	DialTimeout time.Duration
	// HeaderTimeout is how long HubSpot may take until its answer's header
	// has arrived, from when the request was sent. 0: 30 s.
	HeaderTimeout time.Duration
	// PauseTimeout is how long HubSpot may pause within a body, its own or the
	// request's. 0: 30 s.
	PauseTimeout time.Duration
}

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
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, 5*time.Second)
	cfg.HeaderTimeout = cmp.Or(cfg.HeaderTimeout, 30*time.Second)
	cfg.PauseTimeout = cmp.Or(cfg.PauseTimeout, 30*time.Second)
	u := &Upstream{cfg: cfg}
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
		if u.override != nil && u.override.Scheme == "http" {
			return nil, fmt.Errorf("upstream %s with a proxy: tokens would travel to it in the clear, and its loopback is not this machine's: leave out upstream.proxy", wire.Quote(cfg.BaseURL))
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
		return nil, errors.New("upstream: it is not a URL, such as " + DefaultBaseURL) // it may have a password
	}
	if b.User != nil {
		return nil, errors.New("upstream: it has a user name: want scheme, host and port only, such as " + DefaultBaseURL)
	}
	if b.Host == "" || b.Hostname() == "" || (b.Path != "" && b.Path != "/") || b.RawQuery != "" || b.Fragment != "" {
		return nil, fmt.Errorf("upstream %s: want scheme, host and port only, such as %s", wire.Quote(s), DefaultBaseURL)
	}
	if _, err := strconv.ParseUint(cmp.Or(b.Port(), "443"), 10, 16); err != nil {
		return nil, fmt.Errorf("upstream %s: a port is a number up to 65535", wire.Quote(s))
	}
	switch {
	case b.Scheme == "https":
	case b.Scheme == "http" && isLoopback(b.Hostname()):
	default:
		return nil, fmt.Errorf("upstream %s: want https:// (http:// is for a loopback address alone: tokens would travel in the clear)", wire.Quote(s))
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
			var why *fs.PathError
			if errors.As(err, &why) {
				err = why.Err // its path is shown here, cut and escaped
			}
			return nil, fmt.Errorf("read the TLS roots in %s: %w", wire.Quote(f), err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("TLS roots in %s: no certificate in PEM form", wire.Quote(f))
		}
		return pool, nil
	}
	return nil, errors.New("no TLS roots found: install the package ca-certificates, or name a PEM bundle with --upstream-ca")
}
