package sandbox

import (
	"net/http"
	"strconv"
	"time"
)

// burstInterval is the rolling window of the burst limit.
const burstInterval = 10 * time.Second

// The names of the limits in the body of a 429.
const (
	policyDaily    = "DAILY"
	policyBurst    = "TEN_SECONDLY_ROLLING"
	policySecondly = "SECONDLY"
)

// window is a rolling limit: at most limit requests in any span. It is guarded
// by its portal's limitMu.
type window struct {
	limit int
	span  time.Duration
	times []time.Time // of the requests inside the span, oldest first
}

func newWindow(limit int, span time.Duration) *window {
	return &window{limit: limit, span: span}
}

// left returns how many requests the window still takes at now.
func (w *window) left(now time.Time) int {
	if w.limit >= unlimited {
		return unlimited
	}
	n := 0
	for n < len(w.times) && now.Sub(w.times[n]) >= w.span {
		n++
	}
	w.times = w.times[n:]
	return w.limit - len(w.times)
}

func (w *window) take(now time.Time) {
	if w.limit < unlimited {
		w.times = append(w.times, now)
	}
}

// budget is the state of a portal's limits after a request.
type budget struct {
	daily, dailyLeft int
	burst, burstLeft int
}

// charge counts the request against the limits and returns nil, or the 429
// that refuses it. Whether HubSpot counts a refused request against the daily
// limit is not documented: here it does not. A search counts against all
// limits, its own and the others.
func (x *exchange) charge() *answer {
	p, w := x.access.portal, x.access.window
	p.limitMu.Lock()
	defer p.limitMu.Unlock()
	p.turnDayLocked(x.now)
	x.budget = &budget{
		daily: p.daily, dailyLeft: max(0, p.daily-p.used),
		burst: w.limit, burstLeft: max(0, w.left(x.now)),
	}
	searching := x.target.search()
	switch {
	case x.budget.dailyLeft == 0:
		return x.tooMany(policyDaily)
	case searching && p.search.left(x.now) <= 0:
		return x.tooMany(policySecondly)
	case x.budget.burstLeft == 0:
		return x.tooMany(policyBurst)
	}
	p.used++
	w.take(x.now)
	x.budget.dailyLeft--
	x.budget.burstLeft--
	if searching {
		p.search.take(x.now)
	}
	return nil
}

// peek fills in the budget without counting the request.
func (x *exchange) peek() {
	if x.access == nil || x.budget != nil {
		return
	}
	p, w := x.access.portal, x.access.window
	p.limitMu.Lock()
	defer p.limitMu.Unlock()
	p.turnDayLocked(x.now)
	x.budget = &budget{
		daily: p.daily, dailyLeft: max(0, p.daily-p.used),
		burst: w.limit, burstLeft: max(0, w.left(x.now)),
	}
}

// turnDayLocked starts a new count at midnight of the portal's own time zone.
func (p *portal) turnDayLocked(now time.Time) {
	if day := now.In(p.loc).Format(time.DateOnly); day != p.day {
		p.day, p.used = day, 0
	}
}

// setHeader writes the rate-limit headers. The Secondly pair is deprecated and
// not enforced; captures show a tenth of the burst limit.
func (b *budget) setHeader(h http.Header) {
	set := func(name string, n int) { h.Set("X-HubSpot-RateLimit-"+name, strconv.Itoa(n)) }
	set("Daily", b.daily)
	set("Daily-Remaining", b.dailyLeft)
	set("Interval-Milliseconds", int(burstInterval/time.Millisecond))
	set("Max", b.burst)
	set("Remaining", b.burstLeft)
	set("Secondly", b.burst/10)
	set("Secondly-Remaining", max(0, min(b.burst/10, b.burstLeft)-1))
}
