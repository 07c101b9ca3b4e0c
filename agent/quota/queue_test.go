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
