package sandbox

import (
	"maps"
	"net/http"
	"sync"
	"time"
)

// A Request is one request that arrived at the sandbox.
type Request struct {
	Time             time.Time
	PortalID         int64  // the portal that the token opens, 0 if none
	TokenFingerprint string // as wire.Token.Fingerprint, "" without a token
	Method           string
	Target           string // the request target as it stood on the wire
	Path             string // its path, still percent-encoded
	RawQuery         string
	Host             string
	Header           http.Header // values of Authorization replaced by "[token]"
	Status           int         // the answer's status, 0 while or if there was none
	BodyBytes        int64       // bytes of the request's body that were read
	Search           bool        // a call of a search endpoint
}

// A Tally counts arrivals and how they ended. Arrivals that had no answer (the
// connection was dropped, or the answer is still under way) are in no other
// field.
type Tally struct {
	Arrivals     int
	OK           int // 2xx
	ClientErrors int // 4xx, with Throttled among them
	Throttled    int // 429
	ServerErrors int // 5xx
}

// Counts are totals since the start or the last [Server.Reset].
type Counts struct {
	Total        Tally
	ByPortal     map[int64]Tally // 0 holds requests without a valid token
	ByMethod     map[string]int
	ByObjectType map[string]int // CRM objects only, by name ("contacts")
}

// observer keeps what arrived.
type observer struct {
	keep int // how many requests to keep, negative for none

	mu     sync.Mutex
	round  int // grows with each Reset
	ring   []*Request
	next   int // where the next one goes once the ring is full
	total  Tally
	portal map[int64]*Tally
	method map[string]int
	object map[string]int
}

// note is an arrival whose end is not known yet.
type note struct {
	*Request
	round int
}

func (o *observer) arrive(x *exchange) note {
	var id int64
	if x.access != nil {
		id = x.access.portal.cfg.ID
	}
	n := &Request{PortalID: id}
	if o.keep > 0 {
		*n = Request{
			Time:             x.now,
			PortalID:         id,
			TokenFingerprint: fingerprint(x.bearer),
			Method:           x.r.Method,
			Target:           x.r.RequestURI,
			Path:             x.r.URL.EscapedPath(),
			RawQuery:         x.r.URL.RawQuery,
			Host:             x.r.Host,
			Header:           x.r.Header.Clone(),
			Search:           x.target.search(),
		}
		for i := range n.Header["Authorization"] {
			n.Header["Authorization"][i] = "[token]"
		}
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	if o.portal == nil {
		o.portal, o.method, o.object = map[int64]*Tally{}, map[string]int{}, map[string]int{}
	}
	o.total.Arrivals++
	o.tallyLocked(id).Arrivals++
	o.method[x.r.Method]++
	if t := x.target.objectType(); t != "" {
		o.object[t]++
	}
	switch {
	case o.keep <= 0:
	case len(o.ring) < o.keep:
		o.ring = append(o.ring, n)
	default:
		o.ring[o.next] = n
		o.next = (o.next + 1) % o.keep
	}
	return note{n, o.round}
}

func (o *observer) tallyLocked(id int64) *Tally {
	t := o.portal[id]
	if t == nil {
		t = new(Tally)
		o.portal[id] = t
	}
	return t
}

// finish notes how an arrival ended. One from before a Reset is forgotten.
func (o *observer) finish(n note, bodyBytes int64, status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n.Status = status
	n.BodyBytes = bodyBytes
	if n.round != o.round {
		return
	}
	for _, t := range []*Tally{&o.total, o.tallyLocked(n.PortalID)} {
		switch {
		case status >= 500:
			t.ServerErrors++
		case status >= 400:
			t.ClientErrors++
			if status == http.StatusTooManyRequests {
				t.Throttled++
			}
		case status >= 200 && status < 300:
			t.OK++
		}
	}
}

// Requests returns the arrivals in their order, up to Config.KeepRequests of
// the latest.
func (s *Server) Requests() []Request {
	o := &s.observed
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]Request, 0, len(o.ring))
	for i := range o.ring {
		out = append(out, *o.ring[(o.next+i)%len(o.ring)])
	}
	return out
}

// Count returns the totals. It is cheap, also after millions of requests.
func (s *Server) Count() Counts {
	o := &s.observed
	o.mu.Lock()
	defer o.mu.Unlock()
	c := Counts{
		Total:        o.total,
		ByPortal:     make(map[int64]Tally, len(o.portal)),
		ByMethod:     make(map[string]int, len(o.method)),
		ByObjectType: make(map[string]int, len(o.object)),
	}
	for id, t := range o.portal {
		c.ByPortal[id] = *t
	}
	maps.Copy(c.ByMethod, o.method)
	maps.Copy(c.ByObjectType, o.object)
	return c
}

// Reset forgets the arrivals and totals so far. Objects, tokens, faults and
// the use of limits stay.
func (s *Server) Reset() {
	o := &s.observed
	o.mu.Lock()
	defer o.mu.Unlock()
	o.round++
	o.ring, o.next, o.total = nil, 0, Tally{}
	o.portal, o.method, o.object = nil, nil, nil
}
