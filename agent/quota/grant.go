package quota

import (
	"time"
)

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
		case answer.BurstLimit != nil && g.burst.learn(*answer.BurstLimit, answer.Interval):
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
