package fill

import (
	"fmt"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
)

const actor = "hsagentd/fill"

// names are what slugs are made of.
var names = []string{"acme-corp", "beta-inc", "gamma-gmbh", "delta-ag", "epsilon-sarl", "zeta-ltd", "eta-spa", "theta-bv", "iota-oy", "kappa-as"}

// A user is a caller and the reasons that it gives.
type user struct {
	chain.Caller
	reasons []string
}

var callers = []user{
	{chain.Caller{UID: 0, User: "root", GID: 0, PID: 901, Exe: "/usr/bin/hsctl"}, []string{""}},
	{chain.Caller{UID: 1001, User: "sync", GID: 1001, PID: 4711, Exe: "/usr/bin/python3.12", Unit: "crm-sync.service"}, []string{"contract: nightly CRM sync"}},
	{chain.Caller{UID: 1002, User: "billing", GID: 1002, PID: 5150, Exe: "/opt/billing/bin/billing", Unit: "billing.service"},
		[]string{"contract: invoice run", "contract: dunning", ""}},
	{chain.Caller{UID: 1003, User: "campaigns", GID: 1003, PID: 6001, Exe: "/usr/bin/node", Unit: "campaigns.service"},
		[]string{"consent: newsletter", "consent: event invitation", ""}},
	{chain.Caller{UID: 1501, User: "ann", GID: 1501, PID: 7001, Exe: "/usr/bin/hsctl"}, []string{"OPS-101 duplicates", "OPS-117 data subject request", ""}},
	{chain.Caller{UID: 1502, GID: 1502, PID: 8123, Exe: "/usr/bin/curl"}, []string{""}},
}

// An operation is a method and a path; %d stands for IDs.
type operation struct {
	weight             int
	method, path, kind string
	version, does      string
}

var operations = []operation{
	{30, "GET", "/crm/v3/objects/contacts?limit=100&after=%d", "contacts", "v3", "read"},
	{22, "GET", "/crm/v3/objects/contacts/%d?properties=email,firstname", "contacts", "v3", "read"},
	{12, "POST", "/crm/v3/objects/contacts/search", "contacts", "v3", "search"},
	{10, "PATCH", "/crm/v3/objects/deals/%d", "deals", "v3", "update"},
	{6, "GET", "/crm/v3/objects/deals/%d?associations=companies", "deals", "v3", "read"},
	{5, "POST", "/crm/v3/objects/companies", "companies", "v3", "create"},
	{5, "POST", "/crm/v3/objects/contacts/batch/update", "contacts", "v3", "update"},
	{4, "POST", "/crm/v3/objects/2-1234567/batch/read", "2-1234567", "v3", "read"},
	{3, "PUT", "/crm/v4/objects/contacts/%d/associations/default/companies/%d", "contacts", "v4", "update"},
	{3, "DELETE", "/crm/v3/objects/tickets/%d", "tickets", "v3", "delete"},
	{2, "GET", "/crm/v3/owners?limit=100", "owners", "v3", "read"},
	{2, "GET", "/crm/objects/2026-03/companies/%d", "companies", "2026-03", "read"},
	{2, "GET", "/marketing/v3/forms?limit=50", "", "v3", "read"},
}

// happen makes a call that begins at that time, and what else is due.
func (g *generator) happen(at time.Time) {
	x := g.r.Float64()
	p := g.portals[int(x*x*float64(len(g.portals)))] // some clients are much busier than others
	if d := at.YearDay(); d != p.day {
		p.day, p.used = d, 0
	}
	g.tend(p, at)
	c := &Call{Slug: p.slug, PortalID: p.id, Token: p.fingerprint()}
	who := callers[1+g.r.IntN(len(callers)-1)]
	c.Caller, c.Reason = &who.Caller, who.reasons[g.r.IntN(len(who.reasons))]
	rec := g.about(p, chain.CallIntent)
	g.choose(c, &rec)
	rec.CallID, rec.Caller, rec.Reason, rec.Attempt = g.callID(at), c.Caller, c.Reason, 1
	switch {
	case p.held:
		g.refuse(at, rec, c, "portal_quarantined")
	case g.r.IntN(250) == 0:
		g.refuse(at, rec, c, []string{"throttled", "denied", "quota_exhausted"}[g.r.IntN(3)])
	default:
		g.send(at, p, rec, c)
	}
}

// choose picks what the call does.
func (g *generator) choose(c *Call, rec *chain.Record) {
	n := 0
	for _, op := range operations {
		n += op.weight
	}
	n = g.r.IntN(n)
	var op operation
	for _, op = range operations {
		if n -= op.weight; n < 0 {
			break
		}
	}
	path := op.path
	for strings.Contains(path, "%d") {
		id := fmt.Sprint(1_000_000 + g.r.IntN(40_000))
		path = strings.Replace(path, "%d", id, 1)
		if c.ObjectID == "" && !strings.Contains(op.path, "after=") {
			c.ObjectID = id
		}
	}
	c.Method, c.ObjectType, c.Operation = op.method, op.kind, op.does
	rec.Method, rec.Path, rec.ObjectType, rec.ObjectID, rec.APIVersion = op.method, path, op.kind, c.ObjectID, op.version
}

func (g *generator) refuse(at time.Time, rec chain.Record, c *Call, code string) {
	rec.Kind, rec.Attempt, rec.Error = chain.CallDenied, 0, code
	g.later(at, rec, c)
}

// send makes the attempts of a call.
func (g *generator) send(at time.Time, p *portal, rec chain.Record, c *Call) {
	for attempt := 1; ; attempt++ {
		rec.Attempt = attempt
		g.later(at, rec, c)
		out, again := g.answer(p, rec)
		at = at.Add(time.Duration(*out.DurationMs) * time.Millisecond)
		g.later(at, out, c)
		if !again || attempt == 4 {
			return
		}
		at = at.Add(time.Duration(250<<attempt) * time.Millisecond)
	}
}

// answer is the outcome of an attempt, and whether another follows.
func (g *generator) answer(p *portal, rec chain.Record) (out chain.Record, again bool) {
	out = rec
	out.Kind = chain.CallOutcome
	took, sent, got := 15+g.r.Int64N(400), int64(0), int64(200+g.r.IntN(60_000))
	if rec.Method != "GET" && rec.Method != "DELETE" {
		sent = 60 + g.r.Int64N(4000)
	}
	p.used++
	left := max(0, 250_000-p.used)
	out.StatusCode, out.CorrelationID, out.RateLimitRemaining = 200, g.hex(16), &left
	switch n := g.r.IntN(1000); {
	case n < 15:
		out.StatusCode, got, again = 429, 180, true
	case n < 45:
		out.StatusCode, got = 404, 140
	case n < 50:
		out.StatusCode, got = 500, 90
	case n < 53: // no answer
		out.StatusCode, got, out.CorrelationID, out.RateLimitRemaining, out.Error = 0, 0, "", nil, "upstream_timeout"
		took = 30_000
	case strings.HasSuffix(rec.Path, "/batch/update") && n < 150:
		out.StatusCode, out.NumErrors = 207, 1+g.r.IntN(5)
	case rec.Method == "DELETE":
		out.StatusCode, got = 204, 0
	case rec.Method == "POST" && rec.ObjectType == "companies":
		out.StatusCode, out.ObjectID = 201, fmt.Sprint(2_000_000+g.r.IntN(1_000_000))
	}
	out.DurationMs, out.RequestBytes, out.ResponseBytes = &took, &sent, &got
	return out, again
}

// tend does what the agent does with a portal from time to time.
func (g *generator) tend(p *portal, at time.Time) {
	if !at.Before(p.verify) {
		p.verify = at.Add(g.every)
		rec := g.about(p, chain.CallIntent)
		rec.CallID, rec.Method, rec.Path, rec.APIVersion, rec.Attempt = g.callID(at), "GET", "/account-info/v3/details", "v3", 1
		rec.Caller = &chain.Caller{UID: 990, GID: 990, PID: 321, Agent: true}
		g.send(at, p, rec, &Call{Slug: p.slug, PortalID: p.id, Method: "GET", Agent: true, Caller: rec.Caller, Token: rec.TokenFingerprint})
		g.later(at, g.about(p, chain.PortalVerified), nil)
	}
	switch {
	case !at.Before(p.rotate):
		p.rotate = at.Add(g.part(4))
		p.token++
		p.version++
		rec := g.about(p, chain.PortalRotated)
		rec.Caller = &callers[0].Caller
		g.later(at, rec, nil)
	case p.held && g.r.IntN(20) == 0:
		p.held = false
		rec := g.about(p, chain.PortalResumed)
		rec.Caller = &callers[0].Caller
		g.later(at, rec, nil)
	case !p.held && g.r.IntN(20_000) == 0:
		p.held = true
		rec := g.about(p, chain.PortalQuarantined)
		rec.Reason, rec.Error = "HubSpot does not accept the token any more", "portal_quarantined"
		g.later(at, rec, nil)
	}
}
