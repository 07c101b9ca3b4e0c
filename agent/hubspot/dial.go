package hubspot

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// A dialer opens connections to one pinned host and to nothing else: whoever
// asks for one names no address.
type dialer struct {
	pinned  string      // host:port
	tls     *tls.Config // nil: none, for a loopback upstream
	proxy   *url.URL    // nil: none
	public  bool        // refuse addresses that HubSpot cannot have
	timeout time.Duration
}

func (u *Upstream) newDialer(base *url.URL) dialer {
	d := dialer{pinned: hostPort(base), proxy: u.proxy, public: u.override == nil, timeout: u.cfg.DialTimeout}
	if base.Scheme == "https" {
		d.tls = u.tls.Clone() // the session cache stays a common one
		d.tls.ServerName = base.Hostname()
	}
	return d
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// dial connects to the pinned host. rw is the socket itself, or TLS over it.
func (d *dialer) dial(ctx context.Context) (s *socket, rw net.Conn, err error) {
	raw, err := d.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	s, err = newSocket(raw)
	if err != nil {
		_ = raw.Close() // the first error is the one to report
		return nil, nil, err
	}
	if d.tls == nil {
		return s, s, nil
	}
	c := tls.Client(s, d.tls)
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the first error is the one to report
		return nil, nil, fmt.Errorf("TLS with %s: %w", d.pinned, err)
	}
	return s, c, nil
}

func (d *dialer) connect(ctx context.Context) (net.Conn, error) {
	nd := net.Dialer{Timeout: d.timeout}
	if d.proxy != nil {
		return d.tunnel(ctx, &nd)
	}
	if d.public {
		nd.Control = refuseLocal
	}
	return nd.DialContext(ctx, "tcp", d.pinned)
}

// tunnel asks the configured proxy for a tunnel to the pinned host.
func (d *dialer) tunnel(ctx context.Context, nd *net.Dialer) (_ net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	c, err := nd.DialContext(ctx, "tcp", hostPort(d.proxy))
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
