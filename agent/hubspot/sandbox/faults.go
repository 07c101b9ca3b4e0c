package sandbox

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// TokenPlaceholder stands for the bearer token of the request in a Fault's
// Body, Raw, Redirect and header values.
const TokenPlaceholder = "{token}"

// A Fault makes some requests go wrong. The first three fields and Every and
// Times say which; the others say how. Where Status, Body, Fill, Redirect, Raw,
// Hang and DropBefore are all unset the request is answered as ever, and the
// fault changes only how that answer travels.
type Fault struct {
	Portal     int64  // only requests of this portal; 0 = of every portal, and without a valid token
	PathPrefix string // only paths that start so; "" = every path
	Method     string // only this method; "" = every method
	Every      int    // each n-th request that matches; 0 or 1 = each
	Times      int    // how often it strikes; 0 = until cleared

	Delay time.Duration // wait before anything else
	Hang  bool          // never answer: wait until the client or the server hangs up

	// Commit does the work of the request (and counts it against the limits)
	// although the fault replaces its answer: "committed, then timed out".
	Commit bool

	// Status answers with this status. Without a Body the answer has the body
	// that HubSpot sends for it, HTML for what its edge sends (502 and the
	// like). 429 takes its kind from Policy; 477 has a Retry-After of 60
	// seconds unless Header has another.
	Status   int
	Policy   string // of a 429: "TEN_SECONDLY_ROLLING" (the default), "SECONDLY", "DAILY"
	Body     string
	Fill     int64       // answer with this many bytes of filler, streamed
	Header   http.Header // added to the answer; replaces what has the same name
	Redirect string      // a Location, with status 302 unless Status says otherwise
	Raw      []byte      // these bytes are the whole answer, status line and all; then close

	DropBefore       bool  // close the connection without an answer
	DropAfterHeaders bool  // close it after the answer's headers
	Truncate         int64 // close it after this many bytes of the body

	// EchoToken reflects the request's bearer token: "header", "trailer",
	// "body", "split" (in the body, each byte of it in a write of its own),
	// "json-escape", "base64", "base64url", "percent" (the reserved bytes),
	// "percent-all", "hex", "upper" or "reverse".
	EchoToken string

	Gzip       bool          // gzip the body whatever the client accepts
	Encoding   string        // send this as Content-Encoding, the body as it is
	Chunked    bool          // no Content-Length, one chunk per KiB of body
	Trickle    time.Duration // wait so long before each byte of the body
	Cut        int64         // the body's first so many bytes, before gzip, go out by themselves
	EarlyHints bool          // a 103 goes before the answer
}

type faultSet struct {
	active atomic.Bool // false lets the usual request pass without the lock

	mu   sync.Mutex
	list []*armed
}

// armed is a fault with its counters.
type armed struct {
	Fault
	seen, struck int
}

// SetFaults replaces all faults.
func (s *Server) SetFaults(faults ...Fault) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.list = nil
	for _, f := range faults {
		s.faults.list = append(s.faults.list, &armed{Fault: f})
	}
	s.faults.active.Store(len(faults) > 0)
}

// AddFault adds a fault behind the others: of those that match a request the
// first that strikes does.
func (s *Server) AddFault(f Fault) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.list = append(s.faults.list, &armed{Fault: f})
	s.faults.active.Store(true)
}

// ClearFaults removes all faults. Requests that hang go on hanging.
func (s *Server) ClearFaults() { s.SetFaults() }

func (fs *faultSet) match(x *exchange) (Fault, bool) {
	if !fs.active.Load() {
		return Fault{}, false
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.list {
		if !f.matches(x) || f.Times > 0 && f.struck >= f.Times {
			continue
		}
		f.seen++
		if f.Every > 1 && f.seen%f.Every != 0 {
			continue
		}
		f.struck++
		return f.Fault, true
	}
	return Fault{}, false
}

func (f *Fault) matches(x *exchange) bool {
	if f.Portal != 0 && (x.access == nil || x.access.portal.cfg.ID != f.Portal) {
		return false
	}
	return (f.Method == "" || f.Method == x.r.Method) && strings.HasPrefix(x.r.URL.Path, f.PathPrefix)
}
