package fill

import (
	"cmp"
	"container/heap"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// A Config says what to make.
type Config struct {
	Seed    uint64
	Slugs   int       // 0: 100
	Records int       // about how many
	Start   time.Time // zero: 2026-01-01
	End     time.Time // zero: a year later
	Kills   int       // how often the agent is killed in the middle of calls
}

// A Call is what became of one call.
type Call struct {
	Slug       string
	PortalID   int64
	At         time.Time // of its first record
	Method     string
	Operation  string // read, search, create, update or delete
	ObjectType string
	ObjectID   string // of the path, or that HubSpot gave to what it made
	Caller     *chain.Caller
	Reason     string
	Token      string // fingerprint

	Attempts                    int
	Status                      int // of the last attempt, 0 without an answer
	DurationMs                  int64
	Timed                       bool // there is a duration
	RequestBytes, ResponseBytes int64
	Denied, Interrupted, Agent  bool
	Code                        string // why it was refused or has no answer
	Tries                       []Try

	pending int
}

// A Try is one attempt of a call.
type Try struct {
	Sent, Ended time.Time
	Status      int // 0: no answer
	Bytes       int64
	Left        *int64 // of the day's calls, as HubSpot said
}

// Failed reports whether the call counts as an error.
func (c *Call) Failed() bool { return !c.Denied && (c.Status == 0 || c.Status >= 400) }

// A portal is a client of the fleet.
type portal struct {
	slug    string
	id      int64
	token   int // which one
	version int64
	used    int64 // calls of the day
	day     int
	held    bool // quarantined
	rotate  time.Time
	verify  time.Time
}

// A step is a record that is still to come.
type step struct {
	at   time.Time
	n    uint64 // in the order of making, where times are equal
	rec  chain.Record
	call *Call // nil: no call's
}

type steps []step

func (s steps) Len() int { return len(s) }
func (s steps) Less(i, j int) bool {
	if c := s[i].at.Compare(s[j].at); c != 0 {
		return c < 0
	}
	return s[i].n < s[j].n
}
func (s steps) Swap(i, j int) { s[i], s[j] = s[j], s[i] }

// Push is for container/heap.
func (s *steps) Push(x any) { *s = append(*s, x.(step)) } //nolint:forcetypeassert // only steps are pushed

// Pop is for container/heap.
func (s *steps) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// A generator is a run of [Generate].
type generator struct {
	cfg     Config
	r       *rand.Rand
	portals []*portal
	todo    steps
	n       uint64
	now     time.Time
	every   time.Duration // between the agent's own questions about a portal
	emit    func(chain.Record) error
	ended   func(Call)
}

// What a call and a question of the agent's own leave on average.
const (
	recordsPerCall     = 2.03
	recordsPerQuestion = 3.03
)

// Generate calls emit with every record in the order of a log, and ended, if
// it is not nil, with every call once all of its records were emitted. The
// records lack what the log itself sets. An error of emit ends it.
func Generate(cfg Config, emit func(chain.Record) error, ended func(Call)) error {
	cfg.Slugs = cmp.Or(cfg.Slugs, 100)
	if cfg.Start.IsZero() {
		cfg.Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if cfg.End.IsZero() {
		cfg.End = cfg.Start.AddDate(1, 0, 0)
	}
	if ended == nil {
		ended = func(Call) {}
	}
	g := &generator{cfg: cfg, r: rand.New(rand.NewPCG(cfg.Seed, 7)), now: cfg.Start, emit: emit, ended: ended} //nolint:gosec // no secret
	// Questions are daily, but not more than a tenth of a short log.
	span := cfg.End.Sub(cfg.Start)
	g.every = max(24*time.Hour, time.Duration(float64(span)*float64(cfg.Slugs)*recordsPerQuestion*10/float64(max(1, cfg.Records))))
	asked := float64(span) / float64(g.every) * float64(cfg.Slugs) * recordsPerQuestion
	calls := max(1, int((float64(cfg.Records)-asked)/recordsPerCall))
	if err := g.begin(); err != nil {
		return err
	}
	killEvery := calls
	if cfg.Kills > 0 {
		killEvery = max(1, calls/(cfg.Kills+1))
	}
	for i := range calls {
		at := cfg.Start.Add(time.Duration(float64(span) * (float64(i) + g.r.Float64()) / float64(calls)))
		if err := g.until(at); err != nil {
			return err
		}
		if i%killEvery == killEvery-1 && cfg.Kills > 0 && i != calls-1 {
			if err := g.burst(at); err != nil {
				return err
			}
			continue
		}
		g.happen(at)
	}
	return g.until(cfg.End.AddDate(1, 0, 0))
}

// begin starts the agent and onboards the fleet.
func (g *generator) begin() error {
	if err := g.put(chain.Record{Kind: chain.AgentStarted, Actor: actor}); err != nil {
		return err
	}
	for i := range g.cfg.Slugs {
		p := &portal{slug: slugOf(i), id: 10_000_000 + int64(i)*7919, version: 1, day: -1}
		p.rotate = g.cfg.Start.Add(g.part(4))
		p.verify = g.cfg.Start.Add(time.Duration(g.r.Int64N(int64(g.every))))
		g.portals = append(g.portals, p)
		rec := g.about(p, chain.PortalOnboarded)
		rec.Caller = &callers[0].Caller
		if err := g.put(rec); err != nil {
			return err
		}
	}
	return g.put(chain.Record{Kind: chain.StoreLoaded, Actor: actor, StoreVersion: 1, Reason: fmt.Sprintf("%d portals, 0 rejected", g.cfg.Slugs)})
}

// part is a random time of about a 1/n of the period.
func (g *generator) part(n int) time.Duration {
	span := g.cfg.End.Sub(g.cfg.Start) / time.Duration(n)
	return span/2 + time.Duration(g.r.Int64N(int64(span)))
}

func slugOf(i int) string { return fmt.Sprintf("%s-%03d", names[i%len(names)], i) }

// put emits a record of now.
func (g *generator) put(rec chain.Record) error {
	rec.TS = wire.At(g.now)
	return g.emit(rec)
}

// later queues a record.
func (g *generator) later(at time.Time, rec chain.Record, call *Call) {
	g.n++
	heap.Push(&g.todo, step{at: at, n: g.n, rec: rec, call: call})
	if call != nil {
		call.pending++
	}
}

// until emits what comes up to then.
func (g *generator) until(at time.Time) error {
	for len(g.todo) > 0 && !g.todo[0].at.After(at) {
		s, _ := heap.Pop(&g.todo).(step)
		g.now = s.at
		if err := g.put(s.rec); err != nil {
			return err
		}
		if s.call != nil {
			s.call.note(&s.rec, s.at)
			g.settle(s.call)
		}
	}
	g.now = at
	return nil
}

// settle counts one record of the call off.
func (g *generator) settle(c *Call) {
	if c.pending--; c.pending == 0 {
		g.ended(*c)
	}
}

// note takes over what a record says of its call.
func (c *Call) note(r *chain.Record, at time.Time) {
	if c.At.IsZero() {
		c.At = wire.At(at).Time
	}
	switch r.Kind {
	case chain.CallIntent:
		c.Attempts++
		c.Status = 0
		c.Tries = append(c.Tries, Try{Sent: wire.At(at).Time})
	case chain.CallOutcome:
		c.Status, c.Timed = r.StatusCode, true
		c.ObjectID, c.Code = r.ObjectID, r.Error
		last := &c.Tries[len(c.Tries)-1]
		last.Ended, last.Status, last.Bytes, last.Left = wire.At(at).Time, r.StatusCode, *r.ResponseBytes, r.RateLimitRemaining
		c.DurationMs += *r.DurationMs
		c.RequestBytes += *r.RequestBytes
		c.ResponseBytes += *r.ResponseBytes
	case chain.CallDenied:
		c.Denied, c.Code = true, r.Error
	case chain.CallInterrupted:
		c.Interrupted, c.Status, c.Code = true, 0, "interrupted"
		c.Tries[len(c.Tries)-1].Ended = wire.At(at).Time
	default:
	}
}

// burst makes calls that begin together and kills the agent among them.
func (g *generator) burst(at time.Time) error {
	for range 8 {
		g.happen(at)
	}
	if err := g.until(at.Add(2 * time.Millisecond)); err != nil {
		return err
	}
	left := g.todo
	g.todo = nil
	g.now = g.now.Add(time.Duration(1+g.r.IntN(90)) * time.Second)
	if err := g.put(chain.Record{Kind: chain.AgentStarted, Actor: actor, Reason: "some calls were interrupted and may have left"}); err != nil {
		return err
	}
	for _, s := range left {
		switch {
		case s.call == nil:
			g.later(g.now, s.rec, nil)
			continue
		case s.rec.Kind == chain.CallOutcome && s.rec.Attempt == s.call.Attempts: // its intent is in the log
			rec := s.rec
			rec.Kind = chain.CallInterrupted
			rec.StatusCode, rec.DurationMs, rec.RequestBytes, rec.ResponseBytes = 0, nil, nil, nil
			rec.NumErrors, rec.CorrelationID, rec.RateLimitRemaining, rec.Error = 0, "", nil, ""
			rec.ObjectID = s.call.ObjectID // nobody knows what HubSpot made
			if err := g.put(rec); err != nil {
				return err
			}
			s.call.note(&rec, g.now)
		}
		if s.call.Attempts == 0 && !s.call.Denied {
			continue // nothing of it was recorded: there was no call
		}
		g.settle(s.call)
	}
	return nil
}

// about is the record of something that concerns a portal.
func (g *generator) about(p *portal, kind chain.Kind) chain.Record {
	return chain.Record{Kind: kind, ClientSlug: p.slug, PortalID: p.id, Actor: actor,
		TokenFingerprint: p.fingerprint(), StoreVersion: p.version}
}

func (p *portal) fingerprint() string {
	return wire.NewToken(fmt.Sprintf("made-up-%s-%d", p.slug, p.token)).Fingerprint()
}

func (g *generator) callID(at time.Time) string {
	var b [16]byte
	ms := at.UnixMilli()
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i)) //nolint:gosec // the byte that it is meant to be
	}
	for i := 6; i < 16; i++ {
		b[i] = byte(g.r.UintN(256)) //nolint:gosec // fits
	}
	b[6], b[8] = 0x70|b[6]&0x0f, 0x80|b[8]&0x3f
	return uuid.UUID(b).String()
}

func (g *generator) hex(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.r.UintN(256)) //nolint:gosec // fits
	}
	return hex.EncodeToString(b)
}
