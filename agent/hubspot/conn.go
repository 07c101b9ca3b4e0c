package hubspot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/wire"
	"github.com/hsagent/hsagentd/wire/secret"
)

// ErrBroken says that a connection which had served before broke before the
// first byte of an answer: most likely HubSpot had closed it while it was idle.
// A request that changes nothing may be sent again at once.
var ErrBroken = errors.New("the kept connection broke before an answer came")

// ErrUnsent says that a connection which had served before was no longer good
// when the request was to leave. Nothing of it was sent: it may be sent again,
// whatever it is.
var ErrUnsent = errors.New("the kept connection was no longer good, and nothing was sent")

// An InvalidError says why an answer cannot be passed on: it is no HTTP, could
// be read in two ways, or broke off. It repeats nothing of what HubSpot sent.
type InvalidError string

// Error returns the reason.
func (e InvalidError) Error() string { return string(e) }

// A Conn is a connection to HubSpot that one request at a time has for itself.
type Conn struct {
	pool   *Pool
	socket *socket
	rw     net.Conn  // the socket, or TLS over it
	served bool      // a request before this one
	since  time.Time // when it became idle

	// Of the request at hand.
	unwatch func() bool // ends the watch over its context
	upload  *upload     // nil: it has no body
	buf     *buffers
}

// buffers are what a connection needs while it is in use, and not while idle.
type buffers struct {
	in   *bufio.Reader
	head []byte // of the request, without its token; then of the answer
}

var bufferPool = sync.Pool{New: func() any {
	return &buffers{in: bufio.NewReaderSize(nil, 4<<10), head: make([]byte, 0, 2<<10)}
}}

// quiet reports whether the connection is as the last request left it. A byte
// that came meanwhile belongs to no request, and an end makes it useless.
func (c *Conn) quiet() bool {
	var one [1]byte
	c.socket.peeking = true
	n, err := c.rw.Read(one[:]) // of what TLS has read already, if anything
	c.socket.peeking = false
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// Release gives back a connection that was taken and not used.
func (c *Conn) Release() { c.pool.put(c) }

// close cuts the connection: a goodbye of TLS could wait for HubSpot.
func (c *Conn) close() { _ = c.socket.Close() } // there is nothing more to lose

// Send sends r with the token, once, and returns HubSpot's answer, whose body
// the caller closes. The connection then goes back to its pool by itself, or
// is closed where anything about it was not as it should be. What is informal
// (1xx) is passed over, apart from 101.
//
// If HubSpot answers before it has the whole request, the rest is not sent.
func (c *Conn) Send(ctx context.Context, r *Request, token wire.Token) (*http.Response, error) {
	c.unwatch = context.AfterFunc(ctx, c.close)
	c.buf = bufferPool.Get().(*buffers)
	resp, err := c.exchange(r, token)
	if err == nil {
		return resp, nil
	}
	c.end(false)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, err
}

func (c *Conn) exchange(r *Request, token wire.Token) (*http.Response, error) {
	if c.served && !c.quiet() { // the intent may have taken long to write since Take looked
		return nil, ErrUnsent
	}
	if err := c.writeHead(r, token); err != nil {
		return nil, c.unanswered(err)
	}
	deadline := time.Now().Add(c.pool.headerTimeout)
	if r.Body != nil {
		deadline = time.Time{} // until the body is sent
	}
	if err := c.socket.SetReadDeadline(deadline); err != nil {
		return nil, c.unanswered(err)
	}
	if r.Body != nil {
		c.upload = c.startUpload(r)
	}
	c.buf.in.Reset(c.rw)
	if _, err := c.buf.in.Peek(1); err != nil {
		return nil, c.unanswered(err)
	}
	return c.receive(r)
}

// writeHead sends the request's head. The token travels in a record of its
// own, between two that are no secret; the packet is a common one.
func (c *Conn) writeHead(r *Request, token wire.Token) error {
	head, err := r.appendHead(c.buf.head[:0], c.pool.host)
	if err != nil {
		return err
	}
	c.buf.head = head
	c.socket.corked = c.rw != net.Conn(c.socket) // without TLS a copy would stay behind
	_, err = c.rw.Write(head)
	if err == nil {
		err = authorize(c.rw, token)
	}
	if err == nil {
		_, err = c.rw.Write(endOfHead)
	}
	if err == nil && c.socket.corked {
		err = c.socket.uncork()
	}
	return err
}

var endOfHead = []byte("\r\n\r\n")

// authorize is the one place where a token joins a request. Nothing of ours
// keeps a copy: the token has a Write of its own, behind a larger one that has
// grown the buffer in which TLS encrypts it in place.
func authorize(w net.Conn, token wire.Token) (err error) {
	token.Expose(func(b []byte) {
		// Should TLS take another buffer, which it has to grow, it drops one
		// with the token in it: where it can be, that is erased too.
		secret.Do(func() { _, err = w.Write(b) })
	})
	return err
}

// unanswered says why not a single byte of an answer came.
func (c *Conn) unanswered(err error) error {
	var (
		ne net.Error
		p  *wire.Problem
	)
	switch from := c.upload.failure(); {
	case from != nil:
		return from // the connection was cut for it
	case errors.As(err, &p), errors.As(err, &ne) && ne.Timeout():
		return err
	case c.served:
		return fmt.Errorf("%w: %w", ErrBroken, err)
	default:
		return fmt.Errorf("the connection broke before an answer came: %w", err)
	}
}

// end ends the request at hand. The connection is kept if keep is true and
// nothing is left over: of the request, of the answer, or of its context.
func (c *Conn) end(keep bool) {
	keep = c.unwatch() && keep && c.buf.in.Buffered() == 0 && c.upload.sent()
	c.buf.in.Reset(nil)
	if cap(c.buf.head) <= maxAnswerHead {
		bufferPool.Put(c.buf)
	}
	c.buf, c.upload, c.unwatch = nil, nil, nil
	c.socket.patient = false
	if !keep {
		c.close()
		return
	}
	c.served = true
	c.pool.put(c)
}
