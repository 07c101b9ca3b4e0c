package hubspot

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// SendOn sends r over a connection of the test's own. It is not kept.
func SendOn(ctx context.Context, c net.Conn, r *Request) (*http.Response, error) {
	s := &socket{Conn: c, pause: time.Minute}
	conn := &Conn{pool: &Pool{host: "api.hubapi.com", headerTimeout: time.Minute, closed: true}, socket: s, rw: s}
	return conn.Send(ctx, r, wire.NewToken("pat-na1-00000000-0000-4000-8000-00000000000a"))
}

// Idle is how many connections are idle, and how many of them are still good.
func (p *Pool) Idle() (all, good int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		if c.quiet() {
			good++
		}
	}
	return len(p.idle), good
}

// Heard reports whether something has come on the socket, or its end.
func (c *Conn) Heard() bool { return !errors.Is(c.socket.peek(), os.ErrDeadlineExceeded) }

// Keep makes a connection of the test's own idle.
func (p *Pool) Keep(c net.Conn) { p.put(&Conn{pool: p, socket: &socket{Conn: c}}) }
