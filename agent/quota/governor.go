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

// A Grant is leave for one attempt. Its methods are for one goroutine at a
// time.
type Grant struct {
	g      *Governor
	search bool
	from   struct{ burst, search time.Time } // when its places are free
	sent   time.Time
	done   bool
}

// Sent says that the attempt's first byte is about to leave, and returns when
// it may: at once, or within 50 ms, for a place is given out that long before
// it gets free. Without it, the attempt counts as never made.
func (gr *Grant) Sent() {
	time.Sleep(max(time.Until(gr.from.burst), time.Until(gr.from.search)))
	g := gr.g
	g.mu.Lock()
	if gr.done || !gr.sent.IsZero() {
		g.mu.Unlock()
		return
	}
	gr.sent = g.turn()
	g.burst.sent++
	if gr.search {
		g.search.sent++
	}
	g.day.use()
	warn := g.warning()
	g.mu.Unlock()
	warn()
}

// An Answer is what HubSpot's answer to an attempt said of the limits. The
// zero Answer is that of an attempt that had none.
type Answer struct {
	Got    bool // there was an answer
	Status int

	DailyLimit, DailyRemaining *int64        // nil: not said
	BurstLimit, BurstRemaining *int64        // nil: not said
	Interval                   time.Duration // of the burst window; 0: not said

	Limit         string        // of a 429: "daily", "burst", "secondly" or "unknown"
	RetryAfter    time.Duration // if HasRetryAfter
	HasRetryAfter bool
}

// Done says how the attempt ended. Call it as soon as the answer's header is
// there, not after its body: the place is held for an interval from now. Calls
// after the first do nothing.
func (gr *Grant) Done(answer Answer) {
	g := gr.g
	g.mu.Lock()
	if gr.done {
		g.mu.Unlock()
		return
	}
	gr.done = true
	now := g.turn()
	if gr.sent.IsZero() {
		g.burst.giveBack(now, gr.from.burst)
		if gr.search {
			g.search.giveBack(now, gr.from.search)
		}
	} else {
		g.learn(attempt{sent: gr.sent, done: now}, gr.search, answer)
	}
	warn := g.warning()
	g.settle(now)
	g.mu.Unlock()
	warn()
}

// learn takes in how an attempt ended.
func (g *Governor) learn(a attempt, search bool, answer Answer) {
	refused := answer.Got && answer.Status == 429
	if answer.Got {
		switch {
		case answer.BurstLimit != nil:
			g.burst.learn(*answer.BurstLimit, answer.Interval)
		case !search && answer.Status < 500:
			g.burst.blind = min(g.burst.blind+1, maxBlind)
		}
		// Without the headers it is not certain that HubSpot counted it at all.
		a.counted = answer.BurstRemaining != nil && !refused
		switch {
		case answer.BurstRemaining != nil:
			g.burst.observe(a, *answer.BurstRemaining)
		case refused && answer.Limit == "burst":
			g.burst.observe(a, 0)
		}
		switch {
		case refused && answer.Limit == "daily":
			g.day.tell(a, answer.DailyLimit, 0, 0)
		case answer.DailyRemaining != nil:
			a.told = true
			g.day.tell(a, answer.DailyLimit, *answer.DailyRemaining, g.unseen(a.sent)-1)
		}
	}
	g.burst.end(a)
	if search {
		g.search.end(a)
	}
	var retryAfter time.Duration
	if answer.HasRetryAfter {
		retryAfter = answer.RetryAfter
	}
	switch {
	case refused && answer.Limit == "daily":
	case refused && search && answer.Limit != "burst":
		g.refuseSearch(a, retryAfter)
	case refused:
		g.burst.refuse(a, retryAfter)
	case answer.Got && answer.Status == 477:
		if !answer.HasRetryAfter {
			retryAfter = usualPark
		}
		if until := a.done.Add(min(max(retryAfter, time.Second), maxPark)); until.After(g.parked) {
			g.parked = until
		}
	case answer.Got:
		g.burst.answered(a)
		if search {
			g.search.answered(a)
		}
	}
}

// unseen is how many of our calls a word on the day, made at some time after
// since, may not include: those on their way, and those that have ended after
// since and told nothing of the day themselves.
func (g *Governor) unseen(since time.Time) int64 {
	w := &g.burst
	n := w.sent
	for i := len(w.past) - 1; i >= 0 && w.past[i].done.After(since); i-- {
		if !w.past[i].told {
			n++
		}
	}
	return int64(n)
}

// refuseSearch halves the search limit after a 429: others search in the same
// account, and nothing else tells of them.
func (g *Governor) refuseSearch(a attempt, retryAfter time.Duration) {
	if !a.sent.Before(g.search.shut) {
		g.search.limit = max(g.search.limit/2, 1)
	}
	g.search.refuse(a, retryAfter)
	g.raiseAt = a.done.Add(searchRestore)
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
