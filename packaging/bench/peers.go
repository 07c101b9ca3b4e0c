package main

import (
	"context"
	"crypto/x509"
	_ "embed"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/hsagent/hsagentd/packaging/bench/upstream"
)

//go:embed nginx.conf
var nginxConf string

//go:embed haproxy.cfg
var haproxyCfg string

// A peer is something that stands between client and upstream, or nothing.
type peer struct {
	name   string
	proc   *process // nil: nothing
	target func(path string) target
}

// The peers' names.
const (
	direct   = "direct TLS"
	nginx    = "nginx"
	haproxy  = "haproxy"
	proxy    = "ReverseProxy"
	tuned    = "ReverseProxy tuned"
	hsagentd = "hsagentd"
)

// A stage holds what all peers have in common.
type stage struct {
	bin, dir string
	up       *upstream.Server
	addr     string
	roots    *x509.CertPool
}

// peers starts all that the machine has; the others are named in missing.
func (s *stage) peers(ctx context.Context) (ps []*peer, missing []string, err error) {
	ps = append(ps, &peer{name: direct, target: func(path string) target { return viaTLS(s.addr, s.roots, upstream.Token(portal), path) }})
	for _, start := range []func(context.Context) (*peer, error){s.nginx, s.haproxy, s.plain, s.tuned, s.agent} {
		p, err := start(ctx)
		if errors.Is(err, exec.ErrNotFound) {
			missing = append(missing, err.Error())
			continue
		}
		if err != nil {
			return ps, missing, err
		}
		ps = append(ps, p)
	}
	return ps, missing, nil
}

// configured starts a program with a config of ours.
func (s *stage) configured(ctx context.Context, name, text string, args func(conf string) []string) (*peer, error) {
	bin, err := lookPath(name)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // nginx's workers run as another user
		return nil, err
	}
	socket, conf := filepath.Join(dir, "sock"), filepath.Join(dir, "conf")
	var b strings.Builder
	err = template.Must(template.New(name).Parse(text)).Execute(&b, map[string]string{
		"Dir": dir, "Socket": socket, "Addr": s.addr, "Token": upstream.Token(portal), "CA": filepath.Join(s.dir, "ca.pem"),
	})
	if err == nil {
		err = os.WriteFile(conf, []byte(b.String()), 0o600)
	}
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, dir, bin, args(conf)...)
	if err != nil {
		return nil, err
	}
	return &peer{name: name, proc: p, target: func(path string) target { return viaSocket(socket, path) }}, p.await(socket)
}

// lookPath looks where distributions keep daemons too.
func lookPath(name string) (string, error) {
	if bin, err := exec.LookPath("/usr/sbin/" + name); err == nil {
		return bin, nil
	}
	return exec.LookPath(name)
}

func (s *stage) nginx(ctx context.Context) (*peer, error) {
	return s.configured(ctx, nginx, nginxConf, func(conf string) []string {
		return []string{"-c", conf, "-e", filepath.Join(s.dir, nginx, "nginx.error.log")}
	})
}

func (s *stage) haproxy(ctx context.Context) (*peer, error) {
	return s.configured(ctx, haproxy, haproxyCfg, func(conf string) []string { return []string{"-f", conf} })
}

func (s *stage) plain(ctx context.Context) (*peer, error) { return s.reverseProxy(ctx, proxy, "plain") }
func (s *stage) tuned(ctx context.Context) (*peer, error) { return s.reverseProxy(ctx, tuned, "tuned") }

func (s *stage) reverseProxy(ctx context.Context, name, how string) (*peer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, how)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "sock")
	p, err := start(ctx, dir, self, "proxy", how, socket, s.up.URL, filepath.Join(s.dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	return &peer{name: name, proc: p, target: func(path string) target { return viaSocket(socket, path) }}, p.await(socket)
}

func (s *stage) agent(ctx context.Context) (*peer, error) {
	dir := filepath.Join(s.dir, hsagentd)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	i, err := install(ctx, s.bin, dir, s.up)
	if err != nil {
		return nil, err
	}
	p, err := i.start(ctx)
	if err == nil {
		err = i.onboard(ctx)
	}
	return &peer{name: hsagentd, proc: p, target: func(path string) target { return viaSocket(i.socket, callPath(path)) }}, err
}
