package main

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// A bridge passes the requests of one program on as calls for one slug. It
// listens on the loopback, where anybody on this machine can connect: so each
// request must show the token that was made up for the program.
type bridge struct {
	client *wire.Client
	slug   wire.Slug
	host   string     // that requests must name: an address of the loopback
	token  wire.Token // made up
	reason string
	server http.Server
}

func newBridge(c *wire.Client, slug wire.Slug, host, reason string) *bridge {
	b := &bridge{client: c, slug: slug, host: host, token: madeUp(), reason: reason}
	b.server.Handler = b
	b.server.ReadHeaderTimeout = 10 * time.Second
	b.server.MaxHeaderBytes = 64 << 10
	b.server.ErrorLog = log.New(io.Discard, "", 0)
	return b
}

// madeUp makes a token of the form that SDKs expect, which opens nothing.
func madeUp() wire.Token {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails: see its documentation
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return wire.NewToken(fmt.Sprintf("pat-na1-%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:]))
}

func (b *bridge) serve(l net.Listener) error {
	if err := b.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the command: %w", err)
	}
	return nil
}

// close breaks off what is left: the program has ended.
func (b *bridge) close() error { return b.server.Close() }

// ServeHTTP passes one request on, as it is but for what must not cross.
func (b *bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := b.check(r); p != nil {
		w.Header().Set("Connection", "close") // whoever it is, he holds nothing open
		b.refuse(w, p)
		return
	}
	req := wire.CallRequest{Slug: b.slug, Method: r.Method, Target: r.RequestURI, Header: passedOn(r.Header), Reason: b.reason}
	if r.ContentLength != 0 {
		req.Body, req.Length = r.Body, r.ContentLength
	}
	resp, err := b.client.Call(r.Context(), req)
	if err != nil {
		var p *wire.Problem
		if !errors.As(err, &p) {
			p = wire.Errorf(wire.CodeUpstreamUnreachable, "hsctl exec: %v", err)
		}
		b.refuse(w, p)
		return
	}
	defer func() { _ = resp.Body.Close() }() // only read
	header := w.Header()
	for k, vv := range resp.Header {
		header[k] = vv
	}
	for _, k := range connectionHeaders {
		header.Del(k)
	}
	w.WriteHeader(resp.StatusCode)
	if err := copyFlushing(w, resp.Body); err != nil {
		panic(http.ErrAbortHandler) // a broken answer, not a short one
	}
}

// check refuses what did not come from the program.
func (b *bridge) check(r *http.Request) *wire.Problem {
	_, port, _ := strings.Cut(b.host, ":")
	auth := r.Header.Values("Authorization")
	token := ""
	if len(auth) == 1 {
		scheme, rest, _ := strings.Cut(auth[0], " ")
		if strings.EqualFold(scheme, "Bearer") {
			token = rest
		}
	}
	switch {
	case r.Host != b.host && r.Host != "localhost:"+port:
		return wire.Errorf(wire.CodeDenied, "hsctl exec: Host %s: want %s", wire.Quote(r.Host), b.host)
	case r.Header["Origin"] != nil || r.Header["Referer"] != nil:
		return wire.Errorf(wire.CodeDenied, "hsctl exec: requests of web pages (with Origin or Referer) are refused")
	case subtle.ConstantTimeCompare([]byte(token), []byte(b.token.Reveal())) != 1:
		p := wire.Errorf(wire.CodeDenied, "hsctl exec: send the header Authorization: Bearer with the value of HUBSPOT_ACCESS_TOKEN")
		p.Status = http.StatusUnauthorized // as HubSpot answers: SDKs know what it means
		p.Title = http.StatusText(p.Status)
		return p
	case r.Header["Upgrade"] != nil || r.Method == http.MethodConnect || !strings.HasPrefix(r.RequestURI, "/"):
		return wire.Errorf(wire.CodeBadRequest, "hsctl exec: plain HTTP/1.1 with a path is all that is passed on")
	}
	return nil
}

func (b *bridge) refuse(w http.ResponseWriter, p *wire.Problem) {
	w.Header().Set("Content-Type", wire.ProblemType)
	w.Header().Set(wire.HeaderError, string(p.Code))
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // a Problem has nothing that JSON cannot hold
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the program may have gone
}

// connectionHeaders are about one connection, and HTTP's own business.
var connectionHeaders = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding"}

// passedOn is the header of a call: the program's, without what concerns only
// the way to us.
func passedOn(h http.Header) http.Header {
	out := h.Clone()
	for _, named := range out.Values("Connection") {
		for name := range strings.SplitSeq(named, ",") {
			out.Del(strings.TrimSpace(name))
		}
	}
	for _, k := range connectionHeaders {
		out.Del(k)
	}
	out.Del("Authorization") // it opens nothing anywhere else
	if out["User-Agent"] == nil {
		out["User-Agent"] = nil // none, rather than net/http's
	}
	return out
}

// copyFlushing streams body as it comes.
func copyFlushing(w http.ResponseWriter, body io.Reader) error {
	rc := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			if werr := rc.Flush(); werr != nil {
				return werr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
