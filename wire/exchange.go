package wire

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// An exchange makes each request on a connection of its own, with no more
// than the goroutine that asks. It is for programs that ask once and end:
// starting net/http's Transport costs such a program a fifth of its time.
type exchange struct{ socket string }

// RoundTrip sends the request and returns the answer. The connection is
// closed with the answer's body.
func (x exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	conn, err := x.dial(ctx)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close() // a RoundTripper has to; nothing was read
		}
		return nil, err
	}
	a := &answer{ctx: ctx, conn: conn.(*net.UnixConn)}
	a.stop = context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks what reads and writes
	resp, err := a.ask(req)
	if err != nil {
		_ = a.Close() // the first error is the one to tell
		return nil, a.why(err)
	}
	a.ReadCloser, resp.Body = resp.Body, a
	return resp, nil
}

// queueWait is how long a client tries to get into the socket's queue.
const queueWait = 2 * time.Second

// dial connects. The kernel turns away who comes while the socket's queue is
// full; the agent takes what waits there in no time.
func (x exchange) dial(ctx context.Context) (net.Conn, error) {
	for deadline := time.Now().Add(queueWait); ; {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", x.socket)
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(deadline) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// An answer is the body of one, and its connection.
type answer struct {
	io.ReadCloser // nil until there is an answer
	ctx           context.Context
	conn          *net.UnixConn
	stop          func() bool
}

// ask writes the request and reads the answer's head, which may come before
// the whole of a body has been taken.
func (a *answer) ask(req *http.Request) (*http.Response, error) {
	wrote := make(chan error, 1)
	write := func() {
		err := req.Write(a.conn) // through a buffer of its own
		if err != nil {
			_ = a.conn.CloseWrite() // the agent waits for no more; its answer, if there is one, can be read
		}
		wrote <- err
	}
	if req.Body == nil {
		write()
	} else {
		go write()
	}
	br := bufio.NewReader(a.conn)
	for {
		resp, err := http.ReadResponse(br, req)
		if err != nil {
			_ = a.conn.Close() // ends the writing, if it goes on
			if werr := <-wrote; werr != nil && !errors.Is(werr, net.ErrClosed) {
				err = werr // the cause
			}
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
}

// why tells the end of the context from other errors.
func (a *answer) why(err error) error {
	if cerr := a.ctx.Err(); cerr != nil && !errors.Is(err, io.EOF) {
		return cerr
	}
	return err
}

func (a *answer) Read(b []byte) (int, error) {
	n, err := a.ReadCloser.Read(b)
	if err != nil {
		err = a.why(err)
	}
	return n, err
}

// Close ends the connection; what is left of the answer is not read.
func (a *answer) Close() error {
	if !a.stop() {
		return nil // the context's end has closed it
	}
	return a.conn.Close()
}
