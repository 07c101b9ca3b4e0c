package hubspot

import (
	"context"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Limits of a portal's idle connections.
const (
	maxIdle  = 256 // as large as the concurrency: fewer mean TLS handshakes all the time
	idleTime = 90 * time.Second
)

// A Pool is the upstream connections of one portal: nothing that happens to
// another portal's connections touches them.
type Pool struct {
	dialer        dialer
	host          string        // as the Host header has it
	headerTimeout time.Duration // see UpstreamConfig
	pauseTimeout  time.Duration

	mu     sync.Mutex
	idle   []*Conn     // the longest idle first
	sweep  *time.Timer // runs expire
	swept  bool        // sweep is set
	closed bool
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
	return u.newPool(b), nil
}

func (u *Upstream) newPool(base *url.URL) *Pool {
	return &Pool{
		dialer: u.newDialer(base), host: base.Host,
		headerTimeout: u.cfg.HeaderTimeout, pauseTimeout: u.cfg.PauseTimeout,
	}
}

// Take returns a connection for one request: the one that was idle for the
// shortest time, if it is still good, or a new one. Nothing of a request is
// written to it yet. It must be given to [Conn.Send] or [Conn.Release].
func (p *Pool) Take(ctx context.Context) (*Conn, error) {
	for c := p.pop(); c != nil; c = p.pop() {
		if time.Since(c.since) < idleTime && c.quiet() {
			return c, nil
		}
		c.close()
	}
	s, rw, err := p.dialer.dial(ctx)
	if err != nil {
		return nil, err
	}
	s.pause = p.pauseTimeout
	return &Conn{pool: p, socket: s, rw: rw}, nil
}

// pop takes the latest idle connection from the pool, nil if there is none.
func (p *Pool) pop() *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	c := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return c
}

// put makes c idle.
func (p *Pool) put(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) == maxIdle {
		c.close()
		return
	}
	// Without its monotonic reading: a machine that was asleep has no
	// connections left, and its monotonic clock does not know.
	c.since = time.Now().Round(0)
	p.idle = append(p.idle, c)
	switch {
	case p.swept:
	case p.sweep == nil:
		p.sweep = time.AfterFunc(idleTime, p.expire)
	default:
		p.sweep.Reset(idleTime)
	}
	p.swept = true
}

// expire closes what was idle for too long. It runs again as long as there is
// something left, so that an agent without calls has no timer.
func (p *Pool) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 && time.Since(p.idle[0].since) >= idleTime {
		p.idle[0].close()
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	if p.swept = len(p.idle) > 0; p.swept {
		p.sweep.Reset(min(idleTime, idleTime-time.Since(p.idle[0].since)))
	}
}

// Close drops the idle connections, and the others as soon as they are done.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		c.close()
	}
	p.idle = nil
}
