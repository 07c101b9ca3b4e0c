package quota_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/quota"
	"github.com/hsagent/hsagentd/wire"
)

const interval = 10 * time.Second

// ok is an answer that tells the burst window of a Governor that is alone.
func ok(limit, remaining int) quota.Answer {
	return quota.Answer{Got: true, Status: 200, BurstLimit: ptr(limit), BurstRemaining: ptr(remaining), Interval: interval}
}

// spend makes one attempt that takes no time.
func spend(t *testing.T, g *quota.Governor, ask quota.Ask, a quota.Answer) {
	t.Helper()
	gr, problem := g.Acquire(t.Context(), ask)
	require.Nil(t, problem)
	gr.Sent()
	gr.Done(a)
}

// full returns a Governor of which all places are held for an interval.
func full(t *testing.T, limit int) *quota.Governor {
	t.Helper()
	g := quota.New(quota.Config{Slug: slug(t)})
	for i := range limit {
		spend(t, g, quota.Ask{}, ok(limit, limit-i-1))
	}
	return g
}

func slug(t *testing.T) wire.Slug {
	s, err := wire.ParseSlug("acme-corp")
	require.NoError(t, err)
	return s
}

// refused asserts that one more attempt is turned away at once.
func refused(t *testing.T, g *quota.Governor, ask quota.Ask, code wire.Code, retryAfter int) {
	t.Helper()
	before := time.Now()
	gr, problem := g.Acquire(t.Context(), ask)
	require.Nil(t, gr)
	require.NotNil(t, problem)
	require.Equal(t, code, problem.Code, problem.Detail)
	require.Equal(t, retryAfter, problem.RetryAfter, problem.Detail)
	require.Contains(t, problem.Detail, "acme-corp")
	require.Equal(t, before, time.Now(), "without waiting")
}

func TestWaitBoundsTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := full(t, 4)
		refused(t, g, quota.Ask{}, wire.CodeThrottled, 11)
		time.Sleep(4 * time.Second)
		refused(t, g, quota.Ask{Wait: 5 * time.Second}, wire.CodeThrottled, 7)
		begun := time.Now()
		spend(t, g, quota.Ask{Wait: 7 * time.Second}, ok(4, 3))
		require.Equal(t, 6*time.Second+interval/1000, time.Since(begun), "as soon as the place is free")
	})
}

// A place is given out shortly before it gets free, so that what comes before
// the first byte takes nothing of the interval, and not used before that.
func TestPlaceIsGivenOutEarlyAndUsedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := full(t, 2)
		begun := time.Now()
		time.Sleep(interval + interval/1000 - 20*time.Millisecond)
		refused(t, g, quota.Ask{}, wire.CodeThrottled, 1)
		refused(t, g, quota.Ask{Wait: 19 * time.Millisecond}, wire.CodeThrottled, 1)
		wait := quota.Ask{Wait: time.Second}
		early := time.Now()
		first, problem := g.Acquire(t.Context(), wait)
		require.Nil(t, problem)
		second, problem := g.Acquire(t.Context(), wait)
		require.Nil(t, problem)
		first.Done(quota.Answer{}) // its caller hung up: its place is another's
		third, problem := g.Acquire(t.Context(), wait)
		require.Nil(t, problem)
		require.Equal(t, early, time.Now(), "all of them early")
		refused(t, g, quota.Ask{Wait: 30 * time.Millisecond}, wire.CodeThrottled, 11)
		second.Sent()
		third.Sent()
		require.Equal(t, interval+interval/1000, time.Since(begun))
		second.Done(ok(2, 1))
		third.Done(ok(2, 0))
		refused(t, g, quota.Ask{}, wire.CodeThrottled, 11)
	})
}

func TestWaitOfTheLateEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := quota.New(quota.Config{Slug: slug(t)})
		spend(t, g, quota.Ask{}, ok(1, 0))
		time.Sleep(interval + time.Second)
		gr, problem := g.Acquire(t.Context(), quota.Ask{})
		require.Nil(t, problem)
		gr.Sent() // its answer does not come
		begun := time.Now()
		_, problem = g.Acquire(t.Context(), quota.Ask{Caller: "b", Wait: 11 * time.Second})
		require.Equal(t, wire.CodeThrottled, problem.Code)
		require.Equal(t, 11*time.Second, time.Since(begun))
		gr.Done(quota.Answer{})
		refused(t, g, quota.Ask{}, wire.CodeThrottled, 11)
		time.Sleep(interval + interval/1000)
		spend(t, g, quota.Ask{}, ok(1, 0))
	})
}

func TestUnknownLimitIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := quota.New(quota.Config{Slug: slug(t)})
		var out []*quota.Grant
		for range 10 {
			gr, problem := g.Acquire(t.Context(), quota.Ask{})
			require.Nil(t, problem)
			gr.Sent()
			out = append(out, gr)
		}
		refused(t, g, quota.Ask{}, wire.CodeThrottled, 1)
		out[0].Done(quota.Answer{Got: true, Status: 200})
		spend(t, g, quota.Ask{}, quota.Answer{Got: true, Status: 200})
		for range 20 {
			spend(t, g, quota.Ask{}, quota.Answer{Got: true, Status: 200})
		}
		for range 100 { // no limit will be told: there is none to keep
			gr, problem := g.Acquire(t.Context(), quota.Ask{})
			require.Nil(t, problem)
			gr.Sent()
		}
	})
}

func TestPlaceOfAnAttemptNeverSentIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := quota.New(quota.Config{Slug: slug(t)})
		spend(t, g, quota.Ask{}, ok(2, 1))
		for range 10 {
			gr, problem := g.Acquire(t.Context(), quota.Ask{})
			require.Nil(t, problem)
			gr.Done(quota.Answer{})
			gr.Done(quota.Answer{})
		}
		require.EqualValues(t, 1, *g.Quota().BurstRemaining)
	})
}

func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := full(t, 1)
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				spend(t, g, quota.Ask{Caller: "a", Wait: time.Hour}, ok(1, 0))
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
			})
			synctest.Wait()
		}
		wg.Wait()
		require.IsIncreasing(t, order)
		require.Len(t, order, 20)
	})
}

// TestThreat54CallersTakeTurns has one caller flood the portal, and another
// that comes now and then.
func TestThreat54CallersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := quota.New(quota.Config{Slug: slug(t)}), &hubspot{limit: 10, interval: interval}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				for ctx.Err() == nil {
					gr, problem := g.Acquire(ctx, quota.Ask{Caller: "flood", Wait: time.Hour})
					if problem == nil {
						gr.Sent()
						time.Sleep(time.Second)
						gr.Done(h.arrive(false))
					}
				}
			})
		}
		synctest.Wait()
		for range 20 {
			begun := time.Now()
			gr, problem := g.Acquire(t.Context(), quota.Ask{Caller: "now and then", Wait: 15 * time.Second})
			require.Nil(t, problem)
			gr.Sent()
			gr.Done(h.arrive(false))
			require.LessOrEqual(t, time.Since(begun), 12*time.Second, "the first place that gets free")
			time.Sleep(25 * time.Second)
		}
		cancel()
		wg.Wait()
	})
}

func TestManyCallersGetEqualParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// All wait before the first place gets free: what is free at once
		// goes to whoever comes first.
		g, h := full(t, 10), &hubspot{limit: 10, interval: interval}
		end := time.Now().Add(201 * time.Second)
		var mu sync.Mutex
		got := make([]int, 4)
		var wg sync.WaitGroup
		for caller := range 4 {
			for range 1 + 20*caller { // the later, the greedier
				wg.Go(func() {
					for time.Now().Before(end) {
						gr, problem := g.Acquire(t.Context(), quota.Ask{Caller: fmt.Sprint(caller), Wait: time.Minute * 10})
						if !assert.Nil(t, problem) {
							return
						}
						gr.Sent()
						gr.Done(h.arrive(false))
						if time.Now().Before(end) {
							mu.Lock()
							got[caller]++
							mu.Unlock()
						}
					}
				})
			}
		}
		wg.Wait()
		for _, n := range got[1:] {
			require.InDelta(t, got[1], n, 1)
		}
		require.GreaterOrEqual(t, got[0], 20, "one at a time, and yet not pushed aside")
	})
}

func TestCancelledLeaveNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := full(t, 2)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				_, problem := g.Acquire(ctx, quota.Ask{Caller: fmt.Sprint(i % 7), Search: i%3 == 0, Wait: time.Hour})
				require.Equal(t, wire.CodeClientAbort, problem.Code)
			})
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		_, problem := g.Acquire(ctx, quota.Ask{})
		require.Equal(t, wire.CodeClientAbort, problem.Code)
		time.Sleep(interval + interval/1000)
		spend(t, g, quota.Ask{}, ok(2, 1))
		spend(t, g, quota.Ask{}, ok(2, 0))
		refused(t, g, quota.Ask{}, wire.CodeThrottled, 11)
	})
}

func TestSearchesDoNotHoldUpCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := quota.New(quota.Config{Slug: slug(t)})
		spend(t, g, quota.Ask{}, ok(100, 99))
		search := quota.Ask{Search: true}
		for range 5 {
			spend(t, g, search, quota.Answer{Got: true, Status: 200})
		}
		refused(t, g, search, wire.CodeThrottled, 2)
		spend(t, g, quota.Ask{}, ok(100, 93))
		require.EqualValues(t, 93, *g.Quota().BurstRemaining, "searches count in the burst window")
		time.Sleep(1001 * time.Millisecond)
		spend(t, g, search, quota.Answer{Got: true, Status: 200})
	})
}

func TestSearchLimitShrinksAndIsRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := quota.New(quota.Config{Slug: slug(t)})
		search := quota.Ask{Search: true}
		perSecond := func() (n int) {
			for {
				gr, problem := g.Acquire(t.Context(), search)
				if problem != nil {
					return n
				}
				gr.Sent()
				gr.Done(quota.Answer{Got: true, Status: 200})
				n++
			}
		}
		spend(t, g, search, quota.Answer{Got: true, Status: 429, Limit: "secondly"})
		refused(t, g, search, wire.CodeThrottled, 2)
		spend(t, g, quota.Ask{}, ok(100, 99))
		time.Sleep(2 * time.Second)
		require.Equal(t, 2, perSecond())
		time.Sleep(time.Minute)
		require.Equal(t, 3, perSecond())
		time.Sleep(time.Hour)
		require.Equal(t, 5, perSecond())
	})
}

func TestBurst429ShutsTheWindow(t *testing.T) {
	tests := []struct {
		name       string
		answer     quota.Answer
		min, max   int // Retry-After in seconds
		knownLimit bool
	}{
		{"Retry-After", quota.Answer{Limit: "unknown", RetryAfter: 7 * time.Second, HasRetryAfter: true}, 7, 8, true},
		{"a long Retry-After is cut", quota.Answer{Limit: "unknown", RetryAfter: time.Hour, HasRetryAfter: true}, 60, 63, true},
		{"a Retry-After of 0 is none", quota.Answer{Limit: "unknown", HasRetryAfter: true}, 8, 9, true},
		{"until the oldest place is free", quota.Answer{Limit: "unknown"}, 8, 9, true},
		{"others have the window", quota.Answer{Limit: "burst"}, 10, 11, true},
		{"nothing is known", quota.Answer{Limit: "burst"}, 1, 2, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := quota.New(quota.Config{Slug: slug(t)})
				if tt.knownLimit {
					spend(t, g, quota.Ask{}, ok(100, 99))
					time.Sleep(2 * time.Second)
				}
				a := tt.answer
				a.Got, a.Status = true, 429
				spend(t, g, quota.Ask{}, a)
				_, problem := g.Acquire(t.Context(), quota.Ask{})
				require.Equal(t, wire.CodeThrottled, problem.Code)
				require.GreaterOrEqual(t, problem.RetryAfter, tt.min)
				require.LessOrEqual(t, problem.RetryAfter, tt.max)
				spend(t, g, quota.Ask{Wait: 70 * time.Second}, quota.Answer{Got: true, Status: 200})
			})
		})
	}
}

func TestParked(t *testing.T) {
	tests := []struct {
		name   string
		answer quota.Answer
		want   int
	}{
		{"no time named", quota.Answer{}, 60},
		{"as long as HubSpot says", quota.Answer{RetryAfter: time.Hour, HasRetryAfter: true}, 3600},
		{"a day at most", quota.Answer{RetryAfter: 100 * time.Hour, HasRetryAfter: true}, 86400},
		{"a second at least", quota.Answer{HasRetryAfter: true}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := full(t, 4)
				time.Sleep(9 * time.Second)
				told := make(chan *wire.Problem)
				go func() { // waits for a place, which it will not get in time
					gr, problem := g.Acquire(t.Context(), quota.Ask{Wait: 20 * time.Second})
					if gr != nil {
						gr.Done(quota.Answer{})
					}
					told <- problem
				}()
				synctest.Wait()
				time.Sleep(1100 * time.Millisecond)
				require.Nil(t, <-told)
				gr, problem := g.Acquire(t.Context(), quota.Ask{})
				require.Nil(t, problem)
				gr.Sent()
				a := tt.answer
				a.Got, a.Status = true, 477
				gr.Done(a)
				refused(t, g, quota.Ask{}, wire.CodePortalParked, tt.want)
				refused(t, g, quota.Ask{Search: true, Wait: time.Duration(tt.want)*time.Second - 1}, wire.CodePortalParked, tt.want)
				require.Equal(t, wire.QuotaParked, g.Quota().State)
				begun := time.Now()
				spend(t, g, quota.Ask{Wait: 25 * time.Hour}, quota.Answer{Got: true, Status: 200})
				require.Equal(t, time.Duration(tt.want)*time.Second, time.Since(begun))
			})
		})
	}
}

func TestParkedWaitersAreToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := quota.New(quota.Config{Slug: slug(t)})
		spend(t, g, quota.Ask{}, ok(2, 1))
		gr, problem := g.Acquire(t.Context(), quota.Ask{})
		require.Nil(t, problem)
		gr.Sent()
		begun := time.Now()
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				_, problem := g.Acquire(t.Context(), quota.Ask{Wait: 45 * time.Second})
				require.Equal(t, wire.CodePortalParked, problem.Code)
				require.Equal(t, time.Second, time.Since(begun))
			})
		}
		wg.Go(func() {
			spend(t, g, quota.Ask{Wait: 3 * time.Minute}, ok(2, 1))
			require.Equal(t, 61*time.Second, time.Since(begun), "this one had the time")
		})
		time.Sleep(time.Second)
		gr.Done(quota.Answer{Got: true, Status: 477})
		wg.Wait()
	})
}

// TestAllAtOnce is for the race detector, in real time.
func TestAllAtOnce(t *testing.T) {
	g := quota.New(quota.Config{Slug: slug(t), WarnBelow: 100, Warn: func(int64) {}})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for j := range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(3))*time.Millisecond)
				gr, problem := g.Acquire(ctx, quota.Ask{Caller: fmt.Sprint(i % 5), Search: j%4 == 0, Wait: time.Duration(r.IntN(5)) * time.Millisecond})
				cancel()
				if problem != nil {
					require.Contains(t, []wire.Code{wire.CodeThrottled, wire.CodeClientAbort}, problem.Code)
					continue
				}
				if j%10 != 0 {
					gr.Sent()
				}
				a := ok(50, r.IntN(51))
				a.Interval = 5 * time.Millisecond
				a.DailyLimit, a.DailyRemaining = ptr(1000), ptr(50+r.IntN(100))
				gr.Done(a)
				g.SetLocation(time.FixedZone("", r.IntN(3600)))
				g.SetDaily(1000, int64(r.IntN(999)), time.Now())
				g.Quota()
			}
		})
	}
	wg.Wait()
	require.NotEqual(t, wire.QuotaUnknown, g.Quota().State)
}

// FuzzAnswers has HubSpot answer anything, and asserts that no answer shuts a
// portal for longer than a day.
func FuzzAnswers(f *testing.F) {
	f.Add(uint16(200), int64(100), int64(99), int64(250000), int64(1), int64(10_000_000_000), "", int64(0), uint8(3))
	f.Add(uint16(429), int64(100), int64(-1), int64(-1), int64(0), int64(-1), "daily", int64(-5), uint8(9))
	f.Add(uint16(429), int64(1), int64(1<<62), int64(1<<62), int64(1<<62), int64(1<<62), "burst", int64(1<<62), uint8(255))
	f.Add(uint16(477), int64(0), int64(0), int64(0), int64(0), int64(1), "x", int64(1<<62), uint8(1))
	f.Add(uint16(429), int64(10_000), int64(0), int64(1), int64(1), int64(600_000_000_000), "secondly", int64(1), uint8(4))
	f.Fuzz(func(t *testing.T, status uint16, limit, left, daily, dailyLeft, window int64, which string, after int64, flags uint8) {
		synctest.Test(t, func(t *testing.T) {
			g := quota.New(quota.Config{Slug: slug(t), WarnBelow: 10, Warn: func(int64) {}})
			a := quota.Answer{Got: flags&1 == 0, Status: int(status), Interval: time.Duration(window), Limit: which, RetryAfter: time.Duration(after), HasRetryAfter: flags&2 == 0}
			if flags&4 == 0 {
				a.BurstLimit = &limit
			}
			if flags&8 == 0 {
				a.BurstRemaining = &left
			}
			if flags&16 == 0 {
				a.DailyLimit = &daily
			}
			if flags&32 == 0 {
				a.DailyRemaining = &dailyLeft
			}
			for i := range 30 {
				gr, problem := g.Acquire(t.Context(), quota.Ask{Caller: fmt.Sprint(i % 3), Search: i%4 == 1, Wait: 25 * time.Hour})
				require.Nil(t, problem)
				if i%5 != 4 {
					gr.Sent()
				}
				if flags&64 == 0 {
					time.Sleep(time.Millisecond)
				}
				gr.Done(a)
				q := g.Quota()
				require.NotEmpty(t, q.State)
				require.True(t, q.BurstRemaining == nil || *q.BurstRemaining >= 0 && *q.BurstRemaining <= *q.BurstLimit)
			}
		})
	})
}

func BenchmarkAcquire(b *testing.B) {
	tests := []struct {
		name string
		a    quota.Answer
	}{
		{"no limit told", quota.Answer{Got: true, Status: 200}},
		{"alone", quota.Answer{Got: true, Status: 200, BurstLimit: ptr(10_000), BurstRemaining: ptr(9_999), Interval: time.Millisecond, DailyLimit: ptr(1 << 40), DailyRemaining: ptr(1 << 39)}},
	}
	for _, tt := range tests {
		b.Run(tt.name, func(b *testing.B) {
			g := quota.New(quota.Config{})
			for b.Loop() {
				gr, problem := g.Acquire(b.Context(), quota.Ask{Caller: "a", Wait: time.Second})
				if problem != nil {
					b.Fatal(problem)
				}
				gr.Sent()
				gr.Done(tt.a)
			}
			b.ReportAllocs()
		})
	}
}

// BenchmarkQueue has a thousand others wait.
func BenchmarkQueue(b *testing.B) {
	g := quota.New(quota.Config{})
	ctx, cancel := context.WithCancel(b.Context())
	for range 10 {
		gr, _ := g.Acquire(ctx, quota.Ask{})
		gr.Sent() // and no answer comes
	}
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() { _, _ = g.Acquire(ctx, quota.Ask{Caller: fmt.Sprint(i % 100), Wait: time.Hour}) })
	}
	for b.Loop() {
		if _, problem := g.Acquire(ctx, quota.Ask{Caller: "a"}); problem == nil {
			b.Fatal("no place was free")
		}
	}
	cancel()
	wg.Wait()
}
