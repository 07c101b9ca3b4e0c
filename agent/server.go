package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// Limits of a caller's connection.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 60 * time.Second
	maxConnLife   = time.Hour // then the caller is asked to connect anew, and is looked at anew
	maxHeader     = 64 << 10
	maxAPIBody    = 1 << 20 // of requests to the agent's own API
)

// newServer makes the HTTP server. It has no mux before the request target is
// read raw: a mux cleans paths, and redirects where it did.
func (a *Agent) newServer() *http.Server {
	return &http.Server{
		Handler:                      a,
		ReadHeaderTimeout:            headerTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return a.ctx }, // the agent's end is every request's
		ConnContext:                  func(ctx context.Context, c net.Conn) context.Context { return withConn(ctx, c) },
		ErrorLog:                     slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
}

// ServeHTTP refuses what may not come in and leads the rest to its handler.
func (a *Agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer a.contain(w, r)
	done, ok := a.doors.work(connOf(r))
	if !ok {
		panic(http.ErrAbortHandler) // it was closed a moment ago, for a newer one
	}
	defer done()
	if time.Since(connOf(r).made) > maxConnLife {
		w.Header().Set("Connection", "close")
	}
	if p := a.enter(r); p != nil {
		w.Header().Set("Connection", "close")
		if p.Code == wire.CodeDenied {
			rec := a.event(chain.CallDenied)
			rec.Caller, rec.Method, rec.Error, rec.Reason = auditCaller(callerOf(r)), r.Method, string(p.Code), p.Detail
			a.recordDenial(r.Context(), rec)
		}
		writeProblem(w, r, p)
		return
	}
	if strings.HasPrefix(r.RequestURI, hubspot.CallPrefix) {
		a.serveCall(w, r)
		return
	}
	a.serveAPI(w, r)
}

// contain keeps a panic from ending more than its own request.
func (a *Agent) contain(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v) // net/http drops the connection quietly
	}
	a.log.Error("panic in a handler", "panic", wire.MaskTokens(fmt.Sprint(v)), "stack", string(debug.Stack()))
	if w.Header()[wire.HeaderCallID] != nil {
		panic(http.ErrAbortHandler) // HubSpot's answer has begun: nothing of ours may follow it
	}
	w.Header().Set("Connection", "close") // whatever is left of the request
	writeProblem(w, r, wire.Errorf(wire.CodeInternal, "the agent failed to handle the request: its log says more"))
}

// enter returns why a request may not come in at all, or nil.
func (a *Agent) enter(r *http.Request) *wire.Problem {
	h := r.Header
	switch {
	case connOf(r).framed() != "":
		return wire.Errorf(wire.CodeBadRequest, "the request is ambiguous: %s", connOf(r).framed())
	case !strings.EqualFold(r.Host, wire.Host) && !strings.EqualFold(r.Host, "localhost"):
		return wire.Errorf(wire.CodeDenied, "Host %s: want %s or localhost", wire.Quote(r.Host), wire.Host)
	case h["Origin"] != nil || h["Referer"] != nil || ofPage(h["Sec-Fetch-Site"]):
		return wire.Errorf(wire.CodeDenied, "requests of web pages (with Origin, Referer or Sec-Fetch-Site) are refused")
	case !allowedMethod(r.Method):
		return wire.Errorf(wire.CodeMethodNotAllowed, "method %s: want GET, HEAD, POST, PUT, PATCH or DELETE", wire.Quote(r.Method))
	case h["Upgrade"] != nil || h["Http2-Settings"] != nil:
		return wire.Errorf(wire.CodeBadRequest, "this socket speaks HTTP/1.1 alone: leave out Upgrade")
	case !strings.HasPrefix(r.RequestURI, "/"):
		return wire.Errorf(wire.CodeBadRequest, "request target %s: want a path that starts with /v1/", wire.Quote(r.RequestURI))
	}
	return nil
}

// ofPage reports whether a browser says that a page made the request, and not
// its user: of a picture, for instance, a page can keep back all else that
// tells of it.
func ofPage(sites []string) bool {
	return slices.ContainsFunc(sites, func(site string) bool { return site != "none" })
}

func allowedMethod(m string) bool {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return true
	}
	return false
}

func encodeProblem(p *wire.Problem) []byte {
	b, err := json.Marshal(p)
	if err != nil { // a Problem has nothing that JSON cannot hold
		return []byte(`{"code":"internal"}`)
	}
	return append(b, '\n')
}

// writeProblem answers with an error of the agent's own.
func writeProblem(w http.ResponseWriter, r *http.Request, p *wire.Problem) {
	h := w.Header()
	h.Set("Content-Type", wire.ProblemType)
	h.Set(wire.HeaderError, string(p.Code))
	if p.Code == wire.CodeLocked {
		h.Set("Connection", "close") // who comes back is looked at anew
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	if p.Code == wire.CodeMethodNotAllowed && h.Get("Allow") == "" {
		h.Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE")
	}
	body := encodeProblem(p)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) //nolint:gosec // JSON of our own making; the caller may have gone
	}
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // contained: only what cannot be encoded gets here
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the caller may have gone
}

// readJSON reads the body of a request to the agent's own API; an empty one
// leaves v as it is. Its errors repeat nothing of the body: a token may be in it.
func readJSON(w http.ResponseWriter, r *http.Request, v any) *wire.Problem {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAPIBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	var tooLong *http.MaxBytesError
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &tooLong):
		return wire.Errorf(wire.CodeTooLarge, "the request's body has more than %d bytes", maxAPIBody)
	case err != nil:
		return wire.Errorf(wire.CodeBadRequest, "the request's body is not the JSON object that this path takes")
	case dec.More():
		return wire.Errorf(wire.CodeBadRequest, "the request's body goes on after its JSON object")
	}
	return nil
}
