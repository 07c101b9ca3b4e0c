package agent_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// quotaOf asks for one slug's quota.
func (r *rig) quotaOf(slug string, refresh bool) wire.Quota {
	r.t.Helper()
	all, err := r.client.Quota(r.t.Context(), refresh)
	require.NoError(r.t, err)
	for _, q := range all {
		if q.Slug == slug {
			return q
		}
	}
	require.Fail(r.t, "no quota of "+slug)
	return wire.Quota{}
}

func TestQuotaIsTold(t *testing.T) {
	portals := portalsOf(2)
	portals[0].BurstLimit, portals[0].DailyLimit, portals[0].TimeZone = 50, 60_000, "Europe/Berlin"
	var log *logBuffer
	r := newRig(t, rigOptions{portals: portals, config: func(c *agent.Config) { c.WarnBelow = 50_000 }})
	log = r.log
	for range 3 {
		require.Equal(t, http.StatusOK, r.call("client-0", "GET", contacts, nil).status)
	}
	q := r.quotaOf("client-0", false)
	require.Equal(t, wire.QuotaOK, q.State)
	require.Equal(t, int64(60_000), *q.DailyLimit)
	require.Equal(t, int64(60_000-4), *q.DailyRemaining, "account-info, then three calls")
	require.Equal(t, int64(50), *q.BurstLimit)
	require.Equal(t, int64(10_000), q.IntervalMS)
	require.Equal(t, int64(4), *q.UsedToday)
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	h, m, _ := q.ResetsAt.In(berlin).Clock()
	require.Zero(t, h+m)

	require.NoError(t, r.hubspot.Spend(1000, 20_000)) // by a program outside the agent
	q = r.quotaOf("client-0", true)
	require.Less(t, *q.DailyRemaining, int64(40_000))
	require.Equal(t, wire.QuotaLow, q.State)
	require.Equal(t, 1, strings.Count(log.String(), "event=rate_limit_warning"))
	require.Contains(t, log.String(), "clientSlug=client-0")
	require.Equal(t, int64(5), *r.quotaOf("client-0", false).UsedToday, "the question for usage was a call too")
}

// However many want a portal's usage from HubSpot at once, one question for each
// portal is on its way.
func TestRefreshesShareTheirQuestion(t *testing.T) {
	var (
		mu   sync.Mutex
		open = map[string]int{}
		most int
	)
	r := newRig(t, rigOptions{config: func(c *agent.Config) {
		c.Audit = &tap{Store: c.Audit.(*auditstore.Store), before: func(rec chain.Record) error {
			if rec.Path != hubspot.UsagePath {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			switch rec.Kind {
			case chain.CallIntent:
				open[rec.ClientSlug]++
				most = max(most, open[rec.ClientSlug])
			case chain.CallOutcome:
				open[rec.ClientSlug]--
			}
			return nil
		}}
	}})
	r.ready(3)
	r.hubspot.AddFault(sandbox.Fault{PathPrefix: hubspot.UsagePath, Delay: 100 * time.Millisecond})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { assert.Equal(t, 200, r.api("GET", "/v1/quota?refresh=true", "").status) })
	}
	wg.Wait()
	require.Equal(t, 1, most)
}

func TestQuotaOfTheDay(t *testing.T) {
	portals := portalsOf(2)
	portals[0].DailyLimit = 5
	r := newRig(t, rigOptions{portals: portals})
	for range 4 { // account-info was the first
		require.Equal(t, http.StatusOK, r.call("client-0", "GET", contacts, nil).status)
	}
	got := r.call("client-0", "GET", contacts, nil)
	require.Equal(t, wire.CodeQuotaExhausted, got.code())
	require.NotEmpty(t, got.header.Get("Retry-After"))
	require.Equal(t, wire.QuotaExhausted, r.quotaOf("client-0", false).State)
	require.Zero(t, r.hubspot.Count().ByPortal[1000].Throttled, "HubSpot need not say no")
	require.Equal(t, http.StatusOK, r.call("client-1", "GET", contacts, nil).status)
}

func TestParkedPortal(t *testing.T) {
	r := newRig(t, rigOptions{})
	require.Equal(t, http.StatusOK, r.call("client-0", "GET", contacts, nil).status)
	r.hubspot.SetFaults(sandbox.Fault{Portal: 1000, PathPrefix: contacts, Status: 477, Times: 1})
	require.Equal(t, 477, r.call("client-0", "GET", contacts, nil).status)
	got := r.call("client-0", "GET", contacts, nil)
	require.Equal(t, wire.CodePortalParked, got.code())
	require.NotEmpty(t, got.header.Get("Retry-After"))
	require.Equal(t, wire.QuotaParked, r.quotaOf("client-0", false).State)
	require.Equal(t, http.StatusOK, r.call("client-1", "GET", contacts, nil).status)
}

// Callers that together want far more than HubSpot allows are queued, and
// HubSpot never has to refuse one.
func TestThreat54FloodStaysWithinTheBurst(t *testing.T) {
	const limit = 20
	portals := portalsOf(2)
	portals[0].BurstLimit = limit
	r := newRig(t, rigOptions{portals: portals})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var others atomic.Bool
	others.Store(true)
	for range 8 {
		client := wire.NewClient(r.socket) // a caller of its own
		wg.Go(func() {
			defer client.Close()
			for ctx.Err() == nil {
				resp, err := client.Call(ctx, wire.CallRequest{Slug: entryOf(portals[0]).Slug, Method: "GET", Target: contacts})
				if err == nil {
					_ = resp.Body.Close()
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			if r.call("client-1", "GET", contacts, nil).status != http.StatusOK {
				others.Store(false)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	eventually(t, func() bool { return r.hubspot.Count().ByPortal[1000].OK >= 2*limit }, "two of HubSpot's windows are used")
	cancel()
	wg.Wait()
	require.Zero(t, r.hubspot.Count().ByPortal[1000].Throttled)
	require.True(t, others.Load(), "the others go on")
}
