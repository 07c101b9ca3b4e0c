package quota

import (
	"math/rand/v2"
	"time"
)

// What is believed of a window, and what is done without one.
const (
	maxLimit    = 10_000           // calls in one interval: forty times what HubSpot sells
	maxInterval = 10 * time.Minute // HubSpot's is 10 s
	usual       = 10 * time.Second // the interval as documented, to remember by until an answer tells it

	// lead is how long before a place gets free it is given out. What an
	// attempt needs until it can be sent, its record on the disk above all,
	// then takes nothing of the interval.
	lead = 50 * time.Millisecond

	probes     = 10   // calls in flight until the limit is known
	maxBlind   = 20   // answers that tell no limit to believe, after which there is none to wait for
	maxUnasked = 1000 // attempts remembered while no limit is known
)

// How long a window stays shut after a 429.
const (
	minRetryAfter = time.Second
	maxRetryAfter = time.Minute
	firstBackOff  = time.Second // where there is nothing to go by; doubles
	maxBackOff    = 32 * time.Second
)

// A window is a limit of calls in a rolling interval. It is guarded by its
// Governor's mutex.
type window struct {
	limit    int // 0: not known
	interval time.Duration
	blind    int // answers so far that told no limit to believe

	out    int       // granted and not done: each holds a place
	sent   int       // of these, sent
	lent   int       // places that still are held by the first of past, and given out again
	past   []attempt // done, by the time at which they were
	held   int       // index of the first of past that still holds its place
	others peak      // places that others use

	closed  time.Time // no call before this time, after a 429
	shut    time.Time // when the last 429 came
	refused int       // 429s in a row, counting those as one that were in flight together
}

// An attempt was sent and has ended.
type attempt struct {
	sent, done time.Time
	counted    bool // by HubSpot, for certain
	told       bool // its answer told what is left of the day
}

// hold is how long an attempt keeps its place after its answer. The thousandth
// part is for clocks: HubSpot's counts milliseconds.
func (w *window) hold() time.Duration { return w.interval + w.interval/1000 }

// learn takes the limit as an answer tells it, and reports whether it has: what
// cannot be a limit is not believed.
func (w *window) learn(limit int64, interval time.Duration) bool {
	if limit < 1 || limit > maxLimit {
		return false
	}
	w.limit = int(limit)
	if interval > 0 && interval <= maxInterval {
		w.interval = interval
	}
	return true
}

// turn frees the places whose time is over and forgets what no answer can
// count any more.
func (w *window) turn(now time.Time) {
	hold := w.hold()
	for w.held < len(w.past) && now.Sub(w.past[w.held].done) >= hold {
		w.held++
		w.lent = max(w.lent-1, 0) // it has passed to who was to have it
	}
	n := 0
	for n < w.held && now.Sub(w.past[n].done) >= 2*hold {
		n++
	}
	if w.limit == 0 {
		n = max(n, len(w.past)-maxUnasked)
	}
	// Moving the rest down is paid for by the many that go.
	if n > 0 && (n >= len(w.past)/2 || n >= maxUnasked) {
		w.past = w.past[:copy(w.past, w.past[n:])]
		w.held = max(w.held-n, 0)
	}
	w.others.turn(now, hold)
}

// ours is how many places this Governor's attempts hold.
func (w *window) ours() int { return w.out + w.ended() }

// ended is how many places are held by attempts that have ended, and were not
// given out again.
func (w *window) ended() int { return len(w.past) - w.held - w.lent }

// capacity is how many places are left to us beside the others. One always is:
// the next answer must have a chance to say that there is more room.
func (w *window) capacity() int { return max(w.limit-w.others.level(), 1) }

// careful is how many of these places are not to be taken yet: where there are
// others, they may take two while one of our calls is on its way. It keeps the
// last places of a window from being taken by many calls at once, of which
// all are refused if one is.
func (w *window) careful() int {
	if w.others.level() == 0 {
		return 0
	}
	return 2 * w.out
}

// place says whether the one who stands pos-th in the queue (the first is 1)
// may have a place now, and when that is free at the earliest: now itself if
// that depends on an answer that is under way. turn was called.
func (w *window) place(now time.Time, pos int) (at time.Time, free bool) {
	if w.limit == 0 {
		free = w.blind >= maxBlind || w.out+pos <= probes
		at = now
	} else {
		at, free = w.slot(now, pos)
	}
	if w.closed.After(at) {
		return w.closed, false
	}
	return at, free
}

// slot is place for a known limit.
func (w *window) slot(now time.Time, pos int) (at time.Time, free bool) {
	ours, capacity := w.ours(), w.capacity()
	i := pos - (capacity - ours) - 1 // the place that must get free first
	if i < 0 {
		free = i+w.careful() < 0 || w.out == 0
		return now, free
	}
	at = now
	again := i >= ours
	if again { // the same places over again
		cycles := (i-ours)/capacity + 1
		i -= cycles * capacity
		at = at.Add(time.Duration(cycles) * w.hold())
	}
	switch {
	case i >= w.ended():
		at = at.Add(w.hold())
	case i >= 0:
		at = at.Add(w.past[w.held+w.lent+i].done.Add(w.hold()).Sub(now))
		free = !again && at.Sub(now) <= lead && w.others.level() == 0
	}
	if drop := w.others.next; w.others.level() > 0 && drop.Before(at) {
		at = drop
	}
	return at, free
}

// take gives out a place, which may be used from a time on.
func (w *window) take(now time.Time) (from time.Time) {
	from = now
	if w.limit > 0 {
		if at, free := w.slot(now, 1); free && at.After(now) {
			from = at
			w.lent++
		}
	}
	w.out++
	return from
}

// giveBack returns the place of an attempt that was never sent, and might have
// been from a time on.
func (w *window) giveBack(now, from time.Time) {
	w.out--
	if from.After(now) {
		w.lent = max(w.lent-1, 0)
	}
}

// end notes that an attempt which was sent has ended.
func (w *window) end(a attempt) {
	w.out--
	w.sent--
	w.past = append(w.past, a)
}

// observe takes what the answer to an attempt, which has not been noted by end
// yet, says of the places left.
func (w *window) observe(a attempt, remaining int64) {
	if w.limit == 0 || remaining < 0 || remaining > int64(w.limit) || a.done.Sub(a.sent) > w.interval {
		return
	}
	used := w.limit - int(remaining)
	// HubSpot made the answer some time between a.sent and a.done.
	certain, possible := 0, w.sent // with the attempt itself
	if a.counted {
		certain = 1
	}
	for i := len(w.past) - 1; i >= 0; i-- {
		p := &w.past[i]
		if a.sent.Sub(p.done) >= w.interval {
			break // it had left the window, and so had all before it
		}
		possible++
		if p.counted && !p.done.After(a.sent) && a.done.Sub(p.sent) < w.interval {
			certain++
		}
	}
	if used <= possible {
		return
	}
	least, most := used-possible, used-certain
	w.others.add(a.done, w.hold(), (least+most+1)/2+1+most/20)
}

// refuse shuts the window after a 429: for as long as HubSpot says, else until
// the oldest of our places gets free.
func (w *window) refuse(a attempt, retryAfter time.Duration) {
	var d time.Duration
	switch together := a.sent.Before(w.shut); { // with one that was refused before
	case retryAfter > 0:
		d = min(max(retryAfter, minRetryAfter), maxRetryAfter)
	case together:
		return
	case w.limit > 0 && w.held < len(w.past):
		d = w.past[w.held].done.Add(w.hold()).Sub(a.done)
	default:
		d = min(firstBackOff<<min(w.refused, 10), maxBackOff)
	}
	if !a.sent.Before(w.shut) {
		w.shut = a.done
		w.refused++
	}
	d += rand.N(max(d/20, time.Millisecond)) //nolint:gosec // jitter is no secret
	if until := a.done.Add(d); until.After(w.closed) {
		w.closed = until
	}
}

// answered notes an answer that was no 429.
func (w *window) answered(a attempt) {
	if a.sent.After(w.shut) {
		w.refused = 0
	}
}

// A peak is the largest of the numbers added in about the last one to two
// intervals.
type peak struct {
	this, last int
	next       time.Time // when this becomes last
}

func (p *peak) level() int { return max(p.this, p.last) }

func (p *peak) turn(now time.Time, interval time.Duration) {
	if p.level() == 0 || now.Before(p.next) {
		return
	}
	p.last, p.this = p.this, 0
	if now.Sub(p.next) >= interval {
		p.last = 0
	}
	p.next = now.Add(interval)
}

func (p *peak) add(now time.Time, interval time.Duration, n int) {
	if p.level() == 0 {
		p.next = now.Add(interval)
	}
	p.this = max(p.this, n)
}
