package hubspot

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"

	"github.com/hsagent/hsagentd/wire"
)

// A Request is one upstream request, without its token.
type Request struct {
	Method string
	Target Target
	Header http.Header
	Body   io.ReadCloser // nil for none
	Length int64         // of Body; -1: not known
}

// Send sends r with the token and returns HubSpot's answer, whose body the
// caller closes.
//
// net/http sends a request again by itself when a kept connection breaks under
// it, so there can be more wire attempts than calls of Send. before is called
// for each attempt, first with repeat false, when the connection is there and
// before the first byte is written to it; until it has returned nil the
// connection writes nothing. If it fails, nothing of this attempt leaves, Send
// makes no further attempt and returns that error.
func (p *Pool) Send(ctx context.Context, r *Request, token wire.Token, before func(repeat bool) error) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	repeat := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			gate, ok := info.Conn.(*gatedConn)
			if !ok {
				cancel(errUngated)
				return
			}
			gate.open.Store(false)
			if err := before(repeat); err != nil {
				cancel(err)
				return
			}
			repeat = true
			gate.open.Store(true)
		},
	})
	req := (&http.Request{
		Method:        r.Method,
		URL:           p.url(r.Target),
		Host:          p.base.Host,
		Header:        r.Header,
		Body:          r.Body,
		ContentLength: r.Length,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
	}).WithContext(ctx)
	authorize(req, token)
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header["User-Agent"] = nil // send none rather than net/http's own
	}
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &sentBody{ReadCloser: resp.Body, cancel: cancel}
	return resp, nil
}

// authorize is the one place where a token joins a request.
func authorize(req *http.Request, token wire.Token) {
	req.Header["Authorization"] = []string{"Bearer " + token.Reveal()}
}

// url builds the upstream URL from the pinned scheme and host: nothing of the
// target can change them.
func (p *Pool) url(t Target) *url.URL {
	u := p.base
	u.Opaque = t.Path // as it came, escapes and all: it starts with one "/"
	u.RawQuery = t.RawQuery
	return &u
}

// sentBody releases the request's context when its answer is closed.
type sentBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *sentBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

var (
	errGateShut = errors.New("refused to write to HubSpot: no durable intent for this request")
	errUngated  = errors.New("refused to use a connection that is not guarded")
)

// A gatedConn is an upstream connection, above TLS, that writes nothing while
// its gate is shut. The gate opens when the intent of the request at hand is
// durable, and shuts when the next request takes the connection.
type gatedConn struct {
	net.Conn
	open atomic.Bool
}

func (c *gatedConn) Write(b []byte) (int, error) {
	if !c.open.Load() {
		return 0, errGateShut
	}
	return c.Conn.Write(b)
}
