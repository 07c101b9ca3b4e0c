package quota_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/quota"
	"github.com/hsagent/hsagentd/wire"
)

// daily is an answer that tells the day's limit.
func daily(limit, remaining int) quota.Answer {
	return quota.Answer{Got: true, Status: 200, DailyLimit: ptr(limit), DailyRemaining: ptr(remaining)}
}

var spent = quota.Answer{Got: true, Status: 429, Limit: "daily"}

func zone(t *testing.T, name string) *time.Location {
	z, err := time.LoadLocation(name)
	require.NoError(t, err)
	return z
}

// sleepUntil sets the bubble's clock, which begins in 2000.
func sleepUntil(t *testing.T, at string) {
	t.Helper()
	when, err := time.Parse(time.RFC3339, at)
	require.NoError(t, err)
	time.Sleep(time.Until(when))
}

func TestExhaustedUntilThePortalsMidnight(t *testing.T) {
	tests := []struct {
		name, zone, now, resets string
	}{
		{"no zone known", "", "2026-11-24T10:00:00Z", "2026-11-25T00:00:00Z"},
		{"east", "Australia/Sydney", "2026-11-24T10:00:00Z", "2026-11-24T13:00:00Z"},
		{"west", "US/Eastern", "2026-11-24T04:00:00Z", "2026-11-24T05:00:00Z"},
		{"a day of 23 hours", "US/Eastern", "2026-03-08T06:00:00Z", "2026-03-09T04:00:00Z"},
		{"a day of 25 hours", "Europe/Berlin", "2026-10-24T23:00:00Z", "2026-10-25T23:00:00Z"},
		{"midnight is jumped over", "America/Santiago", "2026-09-05T20:00:00Z", "2026-09-06T04:00:00Z"},
		{"midnight is jumped over, in Cairo", "Africa/Cairo", "2026-04-23T12:00:00Z", "2026-04-23T22:00:00Z"},
		{"midnight strikes twice", "America/Havana", "2026-10-31T20:00:00Z", "2026-11-01T04:00:00Z"},
		{"half an hour's shift", "Australia/Lord_Howe", "2026-04-04T14:00:00Z", "2026-04-05T13:30:00Z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var at *time.Location
			if tt.zone != "" {
				at = zone(t, tt.zone)
			}
			resets, err := time.Parse(time.RFC3339, tt.resets)
			require.NoError(t, err)
			synctest.Test(t, func(t *testing.T) {
				sleepUntil(t, tt.now)
				g := quota.New(quota.Config{Slug: slug(t), WarnBelow: 100})
				g.SetLocation(at)
				spend(t, g, quota.Ask{}, spent)
				left := int(time.Until(resets) / time.Second)
				refused(t, g, quota.Ask{}, wire.CodeQuotaExhausted, left)
				q := g.Quota()
				require.Equal(t, wire.QuotaExhausted, q.State)
				require.Equal(t, tt.resets, q.ResetsAt.Format(time.RFC3339))
				time.Sleep(time.Until(resets) - 5*time.Second)
				refused(t, g, quota.Ask{Wait: 4 * time.Second}, wire.CodeQuotaExhausted, 5)
				spend(t, g, quota.Ask{Wait: 6 * time.Second}, daily(1000, 999))
				require.Equal(t, resets, time.Now().UTC())
				require.Equal(t, wire.QuotaOK, g.Quota().State)
			})
		})
	}
}

func TestExhaustion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(t, "2026-11-24T20:00:00Z")
		g := quota.New(quota.Config{Slug: slug(t)})

		// The last call of the day says so.
		spend(t, g, quota.Ask{}, daily(1000, 0))
		refused(t, g, quota.Ask{Search: true}, wire.CodeQuotaExhausted, 4*3600)

		// The zone turns out to be another one.
		g.SetLocation(zone(t, "America/New_York"))
		refused(t, g, quota.Ask{}, wire.CodeQuotaExhausted, 9*3600)

		// An old figure changes nothing; a newer one does, as where the client
		// bought more.
		g.SetDaily(2000, 1000, time.Now().Add(-time.Minute))
		refused(t, g, quota.Ask{}, wire.CodeQuotaExhausted, 9*3600)
		time.Sleep(time.Minute)
		g.SetDaily(2000, 1000, time.Now())
		spend(t, g, quota.Ask{}, quota.Answer{Got: true, Status: 200})
		require.EqualValues(t, 999, *g.Quota().DailyRemaining, "counted on here")
		require.EqualValues(t, 2000, *g.Quota().DailyLimit)

		// A call sent before midnight that is answered after it tells of the
		// day that is over.
		gr, problem := g.Acquire(t.Context(), quota.Ask{})
		require.Nil(t, problem)
		gr.Sent()
		sleepUntil(t, "2026-11-25T05:00:01Z")
		gr.Done(spent)
		require.Equal(t, wire.QuotaUnknown, g.Quota().State)

		// HubSpot's clock is a little behind.
		spend(t, g, quota.Ask{}, spent)
		refused(t, g, quota.Ask{}, wire.CodeQuotaExhausted, 60)
		time.Sleep(time.Minute)
		spend(t, g, quota.Ask{}, daily(1000, 999))
	})
}

// TestAnswersOutOfOrder has answers come in another order than that in which
// HubSpot counted the calls.
func TestAnswersOutOfOrder(t *testing.T) {
	const counts, silent = true, false // whether the answer tells the day's rest
	type answer struct {
		of    int // the call, by the order of sending
		tells bool
		left  int
		want  int // known afterwards
	}
	tests := []struct {
		name    string
		answers []answer // to calls that were all sent before the first came
	}{
		{"in order", []answer{{0, counts, 502, 500}, {1, counts, 501, 500}, {2, counts, 500, 500}}},
		{"the last comes first", []answer{{2, counts, 500, 498}, {0, counts, 502, 499}, {1, counts, 501, 500}}},
		{"counted in another order", []answer{{0, counts, 500, 498}, {2, counts, 501, 499}, {1, counts, 502, 500}}},
		{"one tells nothing", []answer{{0, silent, 0, 0}, {1, counts, 501, 499}, {2, counts, 500, 499}}},
		{"the last tells nothing", []answer{{1, counts, 501, 499}, {2, counts, 500, 499}, {0, silent, 0, 499}}},
		{"others call as well", []answer{{1, counts, 300, 298}, {0, counts, 502, 299}, {2, counts, 100, 100}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := quota.New(quota.Config{Slug: slug(t)})
				var out []*quota.Grant
				for range tt.answers {
					gr, problem := g.Acquire(t.Context(), quota.Ask{})
					require.Nil(t, problem)
					gr.Sent()
					out = append(out, gr)
					time.Sleep(time.Millisecond)
				}
				for _, a := range tt.answers {
					if !a.tells {
						out[a.of].Done(quota.Answer{Got: true, Status: 200})
					} else {
						out[a.of].Done(daily(1000, a.left))
					}
					if a.want > 0 {
						require.EqualValues(t, a.want, *g.Quota().DailyRemaining)
					}
					time.Sleep(time.Millisecond)
				}
				spend(t, g, quota.Ask{}, daily(1000, 900))
				require.EqualValues(t, 900, *g.Quota().DailyRemaining, "a later call's answer is believed, whatever it says")
			})
		})
	}
}

// TestThreat54BudgetIsNotOverrun has 50 callers run into the end of the day's
// budget: none is refused by HubSpot before the first word that it is spent.
func TestThreat54BudgetIsNotOverrun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(t, "2026-11-24T10:00:00Z")
		g := quota.New(quota.Config{Slug: slug(t)})
		const budget = 1000
		var mu sync.Mutex
		used, over := 0, 0
		arrive := func() quota.Answer {
			mu.Lock()
			defer mu.Unlock()
			a := ok(10_000, 9_999)
			a.DailyLimit = ptr(budget)
			if used == budget {
				over++
				a.Status, a.Limit = 429, "daily"
			} else {
				used++
			}
			a.DailyRemaining = ptr(budget - used)
			return a
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for {
					gr, problem := g.Acquire(t.Context(), quota.Ask{Wait: 10 * time.Second})
					if problem != nil {
						require.Equal(t, wire.CodeQuotaExhausted, problem.Code)
						return
					}
					gr.Sent()
					time.Sleep(30 * time.Millisecond)
					a := arrive()
					time.Sleep(50 * time.Millisecond)
					gr.Done(a)
				}
			})
		}
		wg.Wait()
		require.Equal(t, budget, used)
		require.Zero(t, over)
	})
}

func TestWarnsOncePerCrossing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(t, "2026-11-24T10:00:00Z")
		var warned []int64
		g := quota.New(quota.Config{Slug: slug(t), WarnBelow: 100, Warn: func(n int64) { warned = append(warned, n) }})
		require.Equal(t, wire.QuotaUnknown, g.Quota().State)
		say := func(remaining int) { spend(t, g, quota.Ask{}, daily(1000, remaining)) }
		say(100)
		require.Equal(t, wire.QuotaOK, g.Quota().State)
		require.Empty(t, warned)
		gr, problem := g.Acquire(t.Context(), quota.Ask{Search: true})
		require.Nil(t, problem)
		gr.Sent()
		require.Equal(t, []int64{99}, warned, "counted on where answers tell nothing")
		gr.Done(quota.Answer{Got: true, Status: 200})
		require.Equal(t, wire.QuotaLow, g.Quota().State)
		for _, n := range []int{98, 101, 97, 50} {
			say(n)
		}
		require.Len(t, warned, 1, "a figure that wavers about the threshold crosses it once")
		say(500)
		say(99)
		require.Len(t, warned, 2)
		time.Sleep(24 * time.Hour)
		require.Equal(t, wire.QuotaUnknown, g.Quota().State)
		g.SetDaily(1000, 950, time.Now())
		require.Equal(t, []int64{99, 99, 50}, warned, "and again the next day")
	})
}

func TestExhaustedWaitersAreToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(t, "2026-11-24T10:00:00Z")
		g := full(t, 2)
		told := make(chan *wire.Problem)
		go func() {
			_, problem := g.Acquire(context.WithoutCancel(t.Context()), quota.Ask{Wait: time.Minute})
			told <- problem
		}()
		synctest.Wait()
		begun := time.Now()
		g.SetDaily(1000, 1000, time.Now())
		problem := <-told
		require.Equal(t, wire.CodeQuotaExhausted, problem.Code)
		require.Equal(t, begun, time.Now())
	})
}
