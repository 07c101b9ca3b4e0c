package quota_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
	silent := quota.Answer{Got: true, Status: 200}
	unbelievable := silent
	unbelievable.BurstLimit, unbelievable.BurstRemaining, unbelievable.Interval = ptr(100_000_000), ptr(99_999_999), interval
	for _, answer := range []quota.Answer{silent, unbelievable} {
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
			out[0].Done(answer)
			spend(t, g, quota.Ask{}, answer)
			for range 20 {
				spend(t, g, quota.Ask{}, answer)
			}
			for range 100 { // no limit will be told: there is none to keep
				gr, problem := g.Acquire(t.Context(), quota.Ask{})
				require.Nil(t, problem)
				gr.Sent()
			}
		})
	}
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
