package report

import (
	"strconv"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// More stands for all reasons, object types and callers beyond the first ones.
const More = "(more)"

// other is the object type of calls that have none.
const other = "other"

const (
	// Grace is how long after an attempt a call can still make another.
	Grace = 15 * time.Minute
	// longest is more than a call lasts.
	longest = 24 * time.Hour
)

// Options say what is reported.
type Options struct {
	Slug     string
	From, To time.Time      // To is exclusive; zero: no limit
	Zone     *time.Location // of the dates
	Breach   bool           // tell objects apart, and count what was under way when the period began
}

// Filter selects what a Builder is to be given: the slug's records of the period,
// and what tells how its calls ended. The clock may have jumped meanwhile.
func (o *Options) Filter() chain.Filter {
	f := chain.Filter{Slug: o.Slug, Begin: o.From}
	if !o.To.IsZero() {
		f.End = o.To.Add(longest)
	}
	return f
}

// A Builder counts records. Zero is not ready: see [New].
type Builder struct {
	o    Options
	at   time.Time        // of the record before
	age  time.Duration    // of the log from the first record on, whatever the clock did
	live map[string]*call // under way, or failed so lately that they may go on
	late []ended          // the failed ones, oldest first

	portalID    int64
	first, last time.Time // records of the period
	totals      wire.ReportCounts
	agent       wire.ReportCounts
	days        group[string]
	methods     group[string]
	types       group[string]
	callers     group[string]
	reasons     group[string]
	operations  group[string]
	processes   group[chain.Caller]
	rows        map[rowKey]*row
	codes       map[string]int64
	tokens      map[string]*wire.ReportToken
	quota       map[string]*wire.ReportQuota
	events      []wire.ReportEvent
	objects     objects
	breach      breach
}

// A call is one that is under way.
type call struct {
	at        time.Time // it began
	refs      []*wire.ReportCounts
	row       *row   // nil: of the agent's own
	effect    *int64 // what it was counted as, to be taken back
	failed    bool   // counted as an error
	code      string // that it was counted under
	open      bool   // an attempt has no outcome yet
	timed     bool   // it is among those of the row that have a duration
	operation string
	about     subject
	agent     bool
}

// An ended is a call that failed and may go on.
type ended struct {
	id string
	at time.Duration
}

type rowKey struct {
	portalID           int64
	date, method, kind string
}

type row struct{ calls, errors, timed, ms int64 }

// New returns a Builder that has read nothing.
func New(o Options) *Builder {
	const many = 1000 // different ones of what callers choose
	return &Builder{
		o: o, live: map[string]*call{}, rows: map[rowKey]*row{}, codes: map[string]int64{},
		tokens: map[string]*wire.ReportToken{}, quota: map[string]*wire.ReportQuota{},
		days: newGroup(100*366, More), methods: newGroup(many, More), types: newGroup(many, More), callers: newGroup(many, More),
		reasons: newGroup(many, More), operations: newGroup(many, More), processes: newGroup(many, chain.Caller{User: More}),
		objects: newObjects(), breach: newBreach(),
	}
}

// Add takes the slug's next record.
func (b *Builder) Add(r *chain.Record) {
	if !b.at.IsZero() {
		b.age += min(max(r.TS.Sub(b.at), 0), Grace/2) // a jump of the clock ends no call's grace
	}
	b.at = r.TS.Time
	b.forget()
	in := !r.TS.Before(b.o.From) && (b.o.To.IsZero() || r.TS.Before(b.o.To))
	if in {
		b.seen(r)
	}
	switch r.Kind {
	case chain.CallIntent:
		b.intent(r, in)
	case chain.CallOutcome, chain.CallInterrupted:
		b.outcome(r, in)
	case chain.CallDenied:
		if in {
			b.denied(r)
		}
	default:
		if in && len(b.events) < maxEvents {
			b.events = append(b.events, eventOf(r))
		}
	}
}

// seen notes what every record of the period tells.
func (b *Builder) seen(r *chain.Record) {
	if b.first.IsZero() || r.TS.Before(b.first) {
		b.first = r.TS.Time
	}
	if r.TS.After(b.last) {
		b.last = r.TS.Time
	}
	if r.PortalID != 0 {
		b.portalID = r.PortalID
	}
}

// forget drops failed calls that cannot go on any more.
func (b *Builder) forget() {
	for len(b.late) > 0 && b.age-b.late[0].at > Grace {
		if c := b.live[b.late[0].id]; c != nil && !c.open {
			delete(b.live, b.late[0].id)
		}
		b.late = b.late[1:]
	}
}

func (b *Builder) intent(r *chain.Record, in bool) {
	if in {
		b.day(r).Used++
	}
	c := b.live[r.CallID]
	if c == nil {
		if !in || r.Attempt > 1 && !b.o.Breach {
			return // a call of another period
		}
		c = b.begin(r)
	}
	b.takeBack(c)
	c.open = true
	c.count(func(n *wire.ReportCounts) { n.Attempts++ })
}

// begin counts a call in.
func (b *Builder) begin(r *chain.Record) *call {
	c := &call{at: r.TS.Time, refs: b.refs(r), operation: Operation(r.Method, r.Path), about: subjectOf(r), agent: isAgent(r)}
	b.live[r.CallID] = c
	c.count(func(n *wire.ReportCounts) { n.Calls++ })
	if c.agent {
		return c
	}
	key := rowKey{r.PortalID, b.date(r.TS.Time), r.Method, b.types.name(objectType(r))}
	if c.row = b.rows[key]; c.row == nil {
		c.row = new(row)
		b.rows[key] = c.row
	}
	c.row.calls++
	t := b.tokens[r.TokenFingerprint]
	if t == nil {
		t = &wire.ReportToken{Fingerprint: r.TokenFingerprint, First: r.TS}
		b.tokens[r.TokenFingerprint] = t
	}
	t.Calls++
	t.Last = r.TS
	return c
}

// takeBack undoes how an attempt ended, because another follows.
func (b *Builder) takeBack(c *call) {
	if c.failed {
		c.failed = false
		c.count(func(n *wire.ReportCounts) { n.Errors-- })
		b.codes[c.code]--
		if c.row != nil {
			c.row.errors--
		}
	}
	if c.effect != nil {
		*c.effect--
		c.effect = nil
	}
}

func (b *Builder) outcome(r *chain.Record, in bool) {
	if in && r.RateLimitRemaining != nil {
		if d := b.day(r); d.Remaining == nil || *d.Remaining > *r.RateLimitRemaining {
			left := *r.RateLimitRemaining
			d.Remaining = &left
		}
	}
	c := b.live[r.CallID]
	if c == nil {
		if !in || !b.o.Breach {
			return
		}
		c = b.begin(r) // it was under way when the period began
		c.count(func(n *wire.ReportCounts) { n.Attempts++ })
	}
	b.takeBack(c)
	c.open = false
	sent, got := value(r.RequestBytes), value(r.ResponseBytes)
	c.count(func(n *wire.ReportCounts) { n.RequestBytes += sent; n.ResponseBytes += got })
	if r.Kind == chain.CallInterrupted {
		c.count(func(n *wire.ReportCounts) { n.Interrupted++ })
	}
	if r.StatusCode == 0 || r.StatusCode >= 400 {
		b.fail(c, r)
	}
	if c.row != nil && r.DurationMs != nil {
		if !c.timed {
			c.timed = true
			c.row.timed++
		}
		c.row.ms += *r.DurationMs
	}
	b.effect(c, r, got)
	if c.failed || r.Error != "" {
		b.late = append(b.late, ended{r.CallID, b.age}) // another attempt may follow
	} else {
		delete(b.live, r.CallID)
	}
}

func (b *Builder) fail(c *call, r *chain.Record) {
	c.failed, c.code = true, strconv.Itoa(r.StatusCode)
	switch {
	case r.Kind == chain.CallInterrupted:
		c.code = "interrupted"
	case r.StatusCode == 0:
		c.code = r.Error
	}
	c.count(func(n *wire.ReportCounts) { n.Errors++ })
	if c.row != nil {
		c.row.errors++
		b.codes[c.code]++
	}
}

func (b *Builder) denied(r *chain.Record) {
	for _, n := range b.refs(r) {
		n.Denied++
	}
	if !isAgent(r) {
		b.codes[r.Error]++
	}
}

// refs are the lines of the report that a call belongs to.
func (b *Builder) refs(r *chain.Record) []*wire.ReportCounts {
	if isAgent(r) {
		return []*wire.ReportCounts{&b.agent}
	}
	refs := []*wire.ReportCounts{
		&b.totals, b.days.at(b.date(r.TS.Time)), b.methods.at(r.Method), b.types.at(objectType(r)),
		b.callers.at(r.Caller.Name()), b.reasons.at(r.Reason), b.operations.at(Operation(r.Method, r.Path)),
	}
	if r.Caller != nil {
		process := *r.Caller
		process.PID, process.GID = 0, 0
		refs = append(refs, b.processes.at(process))
	}
	return refs
}

func (c *call) count(add func(*wire.ReportCounts)) {
	for _, n := range c.refs {
		add(n)
	}
}

func (b *Builder) date(t time.Time) string { return t.In(b.o.Zone).Format(time.DateOnly) }

func (b *Builder) day(r *chain.Record) *wire.ReportQuota {
	date := b.date(r.TS.Time)
	d := b.quota[date]
	if d == nil {
		d = &wire.ReportQuota{Date: date}
		b.quota[date] = d
	}
	return d
}

const maxEvents = 10_000

func eventOf(r *chain.Record) wire.ReportEvent {
	e := wire.ReportEvent{Seq: r.Seq, TS: r.TS, Kind: string(r.Kind), TokenFingerprint: r.TokenFingerprint, Reason: r.Reason, Error: r.Error}
	if r.Caller != nil {
		e.Caller = r.Caller.Name()
	}
	return e
}

func isAgent(r *chain.Record) bool { return r.Caller != nil && r.Caller.Agent }

func objectType(r *chain.Record) string {
	if r.ObjectType == "" {
		return other
	}
	return r.ObjectType
}

func value(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// Operation tells what a call does, in one word: read, search, create, update,
// delete or other.
func Operation(method, path string) string {
	path, _, _ = strings.Cut(path, "?")
	before, last := cutLast(strings.TrimRight(path, "/"))
	_, parent := cutLast(before)
	switch method {
	case "GET", "HEAD":
		return "read"
	case "DELETE":
		return "delete"
	case "PATCH", "PUT":
		return "update"
	case "POST":
	default:
		return other
	}
	switch {
	case last == "search":
		return "search"
	case last == "query", last == "read" && parent == "batch":
		return "read"
	case last == "archive", last == "gdpr-delete":
		return "delete"
	case last == "merge", parent == "batch" && (last == "update" || last == "upsert"):
		return "update"
	}
	return "create"
}

func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// reads reports whether an operation changes nothing.
func reads(operation string) bool { return operation == "read" || operation == "search" }
