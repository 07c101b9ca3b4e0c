package quota_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/quota"
)

// A hubspot enforces rolling limits as HubSpot does, on arrival.
type hubspot struct {
	mu       sync.Mutex
	limit    int
	interval time.Duration
	arrivals []time.Time // of what was let through
	searches []time.Time

	quiet bool // tell no burst limit
}

// rolling leaves those times that are at most one interval ago.
func rolling(times []time.Time, now time.Time, interval time.Duration) []time.Time {
	for len(times) > 0 && now.Sub(times[0]) > interval {
		times = times[1:]
	}
	return times
}

// arrive handles one request.
func (h *hubspot) arrive(search bool) quota.Answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.arrivals = rolling(h.arrivals, now, h.interval)
	h.searches = rolling(h.searches, now, time.Second)
	a := quota.Answer{Got: true, Status: 200}
	switch {
	case search && len(h.searches) >= 5:
		a.Status, a.Limit = 429, "secondly"
	case len(h.arrivals) >= h.limit:
		a.Status, a.Limit = 429, "burst"
	default:
		h.arrivals = append(h.arrivals, now)
		if search {
			h.searches = append(h.searches, now)
		}
	}
	if !search && !h.quiet {
		a.BurstLimit, a.BurstRemaining = ptr(h.limit), ptr(h.limit-len(h.arrivals))
		a.Interval = h.interval
	}
	return a
}

func ptr(n int) *int64 {
	v := int64(n)
	return &v
}

// A tally counts answers.
type tally struct {
	mu          sync.Mutex
	ok, refused int // by HubSpot
	turnedAway  int // by the Governor
}

func (t *tally) add(a quota.Answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.Status == 429 {
		t.refused++
	} else {
		t.ok++
	}
}

// A load is callers that each make one attempt after the other.
type load struct {
	g        *quota.Governor
	h        *hubspot
	seed     uint64
	callers  int
	search   bool
	min, max time.Duration // a round trip
	record   time.Duration // at most, until an intent is durable
}

// run runs the load until end, and returns when all have ended.
func (l load) run(t *testing.T, end time.Time, sum *tally) {
	var wg sync.WaitGroup
	for i := range l.callers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), l.seed))
			some := func(min, max time.Duration) time.Duration {
				return min + time.Duration(r.Int64N(int64(max-min)+1))
			}
			for time.Now().Before(end) {
				gr, problem := l.g.Acquire(t.Context(), quota.Ask{Caller: string(rune('a' + i)), Search: l.search, Wait: 30 * time.Second})
				if problem != nil {
					sum.mu.Lock()
					sum.turnedAway++
					sum.mu.Unlock()
					time.Sleep(time.Duration(problem.RetryAfter) * time.Second)
					continue
				}
				time.Sleep(some(0, l.record))
				if r.IntN(20) == 0 { // the caller hung up
					gr.Done(quota.Answer{})
					continue
				}
				gr.Sent()
				trip := some(l.min, l.max)
				there := some(0, trip)
				time.Sleep(there)
				a := l.h.arrive(l.search)
				time.Sleep(trip - there)
				gr.Done(a)
				if !time.Now().After(end) {
					sum.add(a)
				}
			}
		})
	}
	wg.Wait()
}

// TestThreat54NeverOverTheLimit has 8 callers hammer one portal.
func TestThreat54NeverOverTheLimit(t *testing.T) {
	tests := []struct {
		name     string
		limit    int
		search   bool
		min, max time.Duration
		record   time.Duration
		want     float64 // of what the limit allows
	}{
		{"burst of 100, near", 100, false, time.Millisecond, 10 * time.Millisecond, 2 * time.Millisecond, 0.98},
		{"burst of 100, far", 100, false, time.Millisecond, 200 * time.Millisecond, 2 * time.Millisecond, 0.98},
		{"burst of 190, far", 190, false, time.Millisecond, 200 * time.Millisecond, 2 * time.Millisecond, 0.98},
		{"searches, near", 100, true, time.Millisecond, 20 * time.Millisecond, 2 * time.Millisecond, 0.97},
		{"searches, near, on a slow disk", 100, true, time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 0.97},
		{"searches, far", 100, true, time.Millisecond, 200 * time.Millisecond, 2 * time.Millisecond, 0.85},
		{"searches, on a very slow disk", 100, true, time.Millisecond, 20 * time.Millisecond, 500 * time.Millisecond, 0.7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := quota.New(quota.Config{})
				h := &hubspot{limit: tt.limit, interval: 10 * time.Second}
				const length = 5 * time.Minute
				var sum tally
				load{g: g, h: h, callers: 8, search: tt.search, min: tt.min, max: tt.max, record: tt.record}.run(t, time.Now().Add(length), &sum)
				allowed := float64(tt.limit) * length.Seconds() / 10
				if tt.search {
					allowed = 5 * length.Seconds()
				}
				t.Logf("%d answers, %.2f %% of what is allowed, %d answers 429, %d turned away", sum.ok, 100*float64(sum.ok)/allowed, sum.refused, sum.turnedAway)
				require.Zero(t, sum.refused, "answers 429")
				require.GreaterOrEqual(t, float64(sum.ok), tt.want*allowed)
			})
		})
	}
}

// others is another program that uses half of what the limit allows, with the
// same token.
type others struct {
	h      *hubspot
	burst  int                            // requests at a time
	pause  func(*rand.Rand) time.Duration // between the beginnings of bursts
	insist bool                           // repeat what was refused, every 50 ms
}

func (o others) run(seed uint64, end time.Time, sum *tally) {
	r := rand.New(rand.NewPCG(seed, 2))
	for next := time.Now(); time.Now().Before(end); next = next.Add(o.pause(r)) {
		time.Sleep(time.Until(next))
		for range o.burst {
			a := o.h.arrive(false)
			sum.add(a)
			for o.insist && a.Status == 429 && time.Now().Before(end) {
				time.Sleep(50 * time.Millisecond)
				a = o.h.arrive(false)
				sum.add(a)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// TestThreat54OthersUseHalf has another program use the same token.
func TestThreat54OthersUseHalf(t *testing.T) {
	every := func(d time.Duration) func(*rand.Rand) time.Duration {
		return func(*rand.Rand) time.Duration { return d }
	}
	random := func(r *rand.Rand) time.Duration {
		return time.Duration(r.ExpFloat64() * float64(200*time.Millisecond))
	}
	tests := []struct {
		name   string
		others others
	}{
		{"steadily", others{burst: 1, pause: every(200 * time.Millisecond)}},
		{"steadily, insisting", others{burst: 1, pause: every(200 * time.Millisecond), insist: true}},
		{"at random", others{burst: 1, pause: random}},
		{"at random, insisting", others{burst: 1, pause: random, insist: true}},
		{"ten at a time", others{burst: 10, pause: every(2 * time.Second)}},
		{"ten at a time, insisting", others{burst: 10, pause: every(2 * time.Second), insist: true}},
		{"fifty at a time", others{burst: 50, pause: every(10 * time.Second)}},
		{"fifty at a time, insisting", others{burst: 50, pause: every(10 * time.Second), insist: true}},
	}
	for _, tt := range tests {
		for _, far := range []time.Duration{10 * time.Millisecond, 200 * time.Millisecond} {
			t.Run(tt.name+", "+far.String(), func(t *testing.T) {
				for seed := range uint64(5) {
					synctest.Test(t, func(t *testing.T) {
						o := tt.others
						o.h = &hubspot{limit: 100, interval: 10 * time.Second}
						end := time.Now().Add(time.Minute)
						var sum, theirs tally
						var wg sync.WaitGroup
						wg.Go(func() { o.run(seed, end, &theirs) })
						load{g: quota.New(quota.Config{}), h: o.h, seed: seed, callers: 8, min: time.Millisecond, max: far, record: 2 * time.Millisecond}.run(t, end, &sum)
						wg.Wait()
						t.Logf("%d answers, %d 429 (%.2f %%); theirs %d and %d", sum.ok, sum.refused, 100*float64(sum.refused)/float64(sum.ok+sum.refused), theirs.ok, theirs.refused)
						assert.LessOrEqual(t, float64(sum.refused), 0.02*float64(sum.ok+sum.refused))
						assert.Greater(t, sum.ok, 200, "and does not starve")
					})
				}
			})
		}
	}
}
