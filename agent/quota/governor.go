package quota

import (
	"context"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// The limit of searches, which no answer tells: five a second and account, by
// HubSpot's documentation of its search API.
const (
	searchLimit    = 5
	searchInterval = time.Second
	searchRestore  = time.Minute // after which a limit that was lowered rises by one
)

// How long a portal is parked after a 477.
const (
	usualPark = time.Minute
	maxPark   = 24 * time.Hour
)

// DefaultWarnBelow is the usual WarnBelow.
const DefaultWarnBelow = 50_000

// Config says for whom a Governor works.
type Config struct {
	Slug      wire.Slug             // for messages
	WarnBelow int64                 // calls left today that count as low; 0: none do
	Warn      func(remaining int64) // called once each time that the day's rest falls below WarnBelow; nil for none
}

// A Governor lets the calls for one portal through as its limits allow. Its
// methods may be used by several goroutines at once.
type Governor struct {
	cfg Config

	mu       sync.Mutex
	burst    window
	search   window
	day      day
	parked   time.Time // no call before this time
	raiseAt  time.Time // when the search limit rises by one, if it was lowered
	calls    queue
	searches queue
	turns    bool // the last place went to a search
	timer    *time.Timer
}

// New returns a Governor that knows nothing of its portal's limits yet.
func New(cfg Config) *Governor {
	g := &Governor{
		cfg:    cfg,
		burst:  window{interval: usual},
		search: window{interval: searchInterval, limit: searchLimit},
	}
	g.day.setZone(time.Now(), time.UTC)
	return g
}

// SetLocation sets the portal's time zone, in which the day's limit begins
// anew at midnight; nil is UTC.
func (g *Governor) SetLocation(zone *time.Location) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.turn()
	g.day.setZone(now, zone)
	g.dispatch(now)
}

// SetDaily takes the day's usage as account-info tells it, collected by
// HubSpot at a time. A word older than the last answer's is not taken.
func (g *Governor) SetDaily(limit, used int64, collectedAt time.Time) {
	if limit < 1 || used < 0 {
		return
	}
	g.mu.Lock()
	now := g.turn()
	if !collectedAt.After(now) && !collectedAt.Before(g.day.latest) {
		a := attempt{sent: collectedAt, done: collectedAt}
		g.day.tell(a, &limit, max(limit-used, 0), g.unseen(collectedAt))
	}
	warn := g.warning()
	g.settle(now)
	g.mu.Unlock()
	warn()
}

// An Ask is a request for one attempt.
type Ask struct {
	Caller string        // calls of different callers take turns
	Search bool          // a search of CRM objects, which has a limit of its own
	Wait   time.Duration // how long the attempt may queue; 0: answer at once
}

// Acquire waits for a place for one attempt, for as long as ask allows. The
// grant's Done must be called, however the attempt goes. Problems are of
// throttled, quota_exhausted and portal_parked, each with the time after which
// to try again, and of client_abort if ctx ended.
func (g *Governor) Acquire(ctx context.Context, ask Ask) (*Grant, *wire.Problem) {
	if ctx.Err() != nil {
		return nil, errAborted()
	}
	g.mu.Lock()
	now := g.turn()
	q := g.queueOf(ask.Search)
	if q.n > 0 {
		g.dispatch(now) // the timer may be late
	}
	at, code := g.place(now, ask.Search, q.position(ask.Caller))
	deadline := now.Add(max(ask.Wait, 0))
	if code == "" && q.n == 0 && !at.After(deadline) {
		gr := g.grant(now, ask.Search)
		g.mu.Unlock()
		return gr, nil
	}
	if ask.Wait <= 0 || at.After(deadline) {
		problem := g.refusal(now, at, code, ask.Search)
		g.mu.Unlock()
		return nil, problem
	}
	w := &waiter{search: ask.Search, deadline: deadline, got: make(chan verdict, 1)}
	q.join(ask.Caller, w)
	g.dispatch(now)
	g.mu.Unlock()
	return g.wait(ctx, ask, w)
}

// wait waits for w's verdict.
func (g *Governor) wait(ctx context.Context, ask Ask, w *waiter) (*Grant, *wire.Problem) {
	patience := time.NewTimer(ask.Wait)
	defer patience.Stop()
	select {
	case v := <-w.got:
		return v.grant, v.problem
	case <-ctx.Done():
		g.leave(w)
		select {
		case v := <-w.got:
			if v.grant != nil {
				v.grant.Done(Answer{})
			}
		default:
		}
		return nil, errAborted()
	case <-patience.C:
		g.leave(w)
		select {
		case v := <-w.got:
			return v.grant, v.problem
		default:
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		now := g.turn()
		at, code := g.place(now, ask.Search, g.queueOf(ask.Search).position(ask.Caller))
		return nil, g.refusal(now, at, code, ask.Search)
	}
}

// leave takes out one who waits no longer; the timer may have been for it.
func (g *Governor) leave(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queueOf(w.search).leave(w)
	g.dispatch(g.turn())
}

// turn brings everything that changes by time alone up to now, which it
// returns.
func (g *Governor) turn() time.Time {
	now := time.Now()
	g.burst.turn(now)
	g.search.turn(now)
	g.day.turn(now)
	g.day.over(now)
	for g.search.limit < searchLimit && !now.Before(g.raiseAt) {
		g.search.limit++
		g.raiseAt = g.raiseAt.Add(searchRestore)
	}
	return now
}

// place says when the one who stands pos-th in its queue may go, and by which
// code it is refused until then; the code is empty if it may have its place now.
func (g *Governor) place(now time.Time, search bool, pos int) (at time.Time, code wire.Code) {
	if at, code := g.barred(now); code != "" {
		return at, code
	}
	at, free := g.burst.place(now, pos)
	if search {
		t, f := g.search.place(now, pos)
		free = free && f
		if t.After(at) {
			at = t
		}
	}
	// With the day's last calls on their way it is for their answers to say
	// whether there are more.
	if left := g.day.left; left != nil && g.burst.out > 0 && *left < int64(g.burst.out-g.burst.sent+pos) {
		free = false
	}
	if free {
		return at, ""
	}
	return at, wire.CodeThrottled
}

// barred says until when no call goes at all, and why.
func (g *Governor) barred(now time.Time) (at time.Time, code wire.Code) {
	if g.day.spent() {
		at, code = g.day.exhausted, wire.CodeQuotaExhausted
	}
	if g.parked.After(now) && g.parked.After(at) {
		at, code = g.parked, wire.CodePortalParked
	}
	return at, code
}

// grant gives out a place.
func (g *Governor) grant(now time.Time, search bool) *Grant {
	gr := &Grant{g: g, search: search}
	gr.from.burst = g.burst.take(now)
	if search {
		gr.from.search = g.search.take(now)
	}
	return gr
}

func (g *Governor) queueOf(search bool) *queue {
	if search {
		return &g.searches
	}
	return &g.calls
}

// settle tells those who cannot have a place in time that they wait in vain,
// and lets the others go on.
func (g *Governor) settle(now time.Time) {
	if at, code := g.barred(now); code != "" {
		for _, q := range []*queue{&g.calls, &g.searches} {
			q.each(func(w *waiter) {
				if w.deadline.Before(at) {
					q.leave(w)
					w.got <- verdict{problem: g.refusal(now, at, code, w.search)}
				}
			})
		}
	}
	g.dispatch(now)
}

// dispatch gives the places that are free to those whose turn it is, and sets
// the timer for the next one that time alone will free.
func (g *Governor) dispatch(now time.Time) {
	for {
		search, ok := g.nextKind(now)
		if !ok {
			break
		}
		g.turns = search
		w := g.queueOf(search).pop()
		w.got <- verdict{grant: g.grant(now, search)}
	}
	if next := g.nextTime(now); !next.IsZero() {
		g.wakeAt(next.Sub(now))
	} else if g.timer != nil {
		g.timer.Stop()
	}
}

// nextKind is the queue whose turn it is. Calls and searches alternate where
// both may go.
func (g *Governor) nextKind(now time.Time) (search, ok bool) {
	for _, search := range []bool{!g.turns, g.turns} {
		if g.queueOf(search).n == 0 {
			continue
		}
		if _, code := g.place(now, search, 1); code == "" {
			return search, true
		}
	}
	return false, false
}

// nextTime is when time alone may free a place for somebody who waits. It is
// the zero time if nobody waits, or if only answers can.
func (g *Governor) nextTime(now time.Time) time.Time {
	var next time.Time
	for _, search := range []bool{false, true} {
		if g.queueOf(search).n == 0 {
			continue
		}
		at, _ := g.place(now, search, 1)
		if early := at.Add(-lead); early.After(now) {
			at = early
		}
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// wakeAt sets the timer.
func (g *Governor) wakeAt(d time.Duration) {
	if g.timer != nil {
		g.timer.Reset(d)
		return
	}
	g.timer = time.AfterFunc(d, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.dispatch(g.turn())
	})
}

// warning returns what is to be called, without the lock, after the day's rest
// may have changed.
func (g *Governor) warning() func() {
	if g.cfg.Warn == nil || !g.day.fallen(g.cfg.WarnBelow) {
		return func() {}
	}
	left := *g.day.remaining()
	return func() { g.cfg.Warn(left) }
}
