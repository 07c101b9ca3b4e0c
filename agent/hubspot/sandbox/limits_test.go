package sandbox_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
)

const contacts = "/crm/v3/objects/contacts?limit=1"

func TestLimitHeaders(t *testing.T) {
	r := start(t, nil)
	r.do(acmeToken, "GET", contacts, "")
	h := r.do(acmeToken, "GET", contacts, "").header
	for name, want := range map[string]string{
		"Daily": "625000", "Daily-Remaining": "624998", "Interval-Milliseconds": "10000",
		"Max": "190", "Remaining": "188", "Secondly": "19", "Secondly-Remaining": "18",
	} {
		require.Equal(t, want, h.Get("X-HubSpot-RateLimit-"+name), name)
	}
	require.NotEmpty(t, h.Get("X-HubSpot-Correlation-Id"))
	require.Equal(t, h.Get("X-HubSpot-Correlation-Id"), h.Get("X-Request-Id"))
	require.Contains(t, h.Get("Set-Cookie"), "__cf_bm=")
	require.NotEmpty(t, h.Get("CF-Ray"))
}

func TestBurstLimitRolls(t *testing.T) {
	r := start(t, func(p *sandbox.Portal) { p.BurstLimit = 3 })
	begin := r.clock.now()
	status := func(after time.Duration) int {
		r.clock.set(begin.Add(after))
		return r.do(acmeToken, "GET", contacts, "").status
	}
	require.Equal(t, 200, status(0))
	require.Equal(t, 200, status(6*time.Second))
	require.Equal(t, 200, status(7*time.Second))
	require.Equal(t, 429, status(9999*time.Millisecond))
	require.Equal(t, 200, status(10*time.Second), "the first has left the window")
	require.Equal(t, 429, status(11*time.Second), "the second has not")

	res := r.do(acmeToken, "GET", contacts, "")
	require.Equal(t, "TEN_SECONDLY_ROLLING", res.get("policyName"))
	require.Equal(t, "RATE_LIMIT", res.get("errorType"))
	require.Contains(t, res.get("groupName"), "12345678")
	require.Nil(t, res.get("category"))
	require.Equal(t, "0", res.header.Get("X-HubSpot-RateLimit-Remaining"))
	require.Equal(t, 200, r.do(gammaToken, "GET", contacts, "").status, "another portal's own limit")

	require.NoError(t, r.AddToken(acme, spareToken))
	require.Equal(t, 200, r.do(spareToken, "GET", contacts, "").status, "another app's own limit")
}

func TestRotationKeepsWindow(t *testing.T) {
	r := start(t, func(p *sandbox.Portal) { p.BurstLimit = 1 })
	require.Equal(t, 200, r.do(acmeToken, "GET", contacts, "").status)
	require.NoError(t, r.Rotate(acme, spareToken))
	require.Equal(t, 429, r.do(spareToken, "GET", contacts, "").status)
}

func TestDailyLimit(t *testing.T) {
	r := start(t, func(p *sandbox.Portal) { p.DailyLimit = 5 })
	require.NoError(t, r.Spend(acme, 3))
	require.Equal(t, 200, r.do(acmeToken, "GET", contacts, "").status)
	usage := r.do(acmeToken, "GET", "/account-info/v3/api-usage/daily/private-apps", "")
	first := usage.results()[0].(map[string]any)
	require.Equal(t, "private-apps-api-calls-daily", first["name"])
	require.Equal(t, 5.0, first["currentUsage"])
	require.Equal(t, 5.0, first["usageLimit"])
	require.Equal(t, "2026-11-24T05:00:00.000Z", first["resetsAt"], "midnight in the portal's time zone")

	res := r.do(acmeToken, "GET", contacts, "")
	require.Equal(t, 429, res.status)
	require.Equal(t, "DAILY", res.get("policyName"))
	require.Equal(t, "You have reached your daily limit.", res.get("message"))
	require.Equal(t, 5, r.UsedToday(acme), "a refused call does not count")

	r.clock.set(time.Date(2026, 11, 24, 4, 59, 59, 0, time.UTC))
	require.Equal(t, 429, r.do(acmeToken, "GET", contacts, "").status)
	r.clock.set(time.Date(2026, 11, 24, 5, 0, 0, 0, time.UTC))
	require.Equal(t, 200, r.do(acmeToken, "GET", contacts, "").status)
	require.Equal(t, 1, r.UsedToday(acme))
}

func TestSearchLimit(t *testing.T) {
	r := start(t, nil)
	for range 5 {
		require.Equal(t, 200, r.do(acmeToken, "POST", "/crm/v3/objects/deals/search", `{}`).status)
	}
	res := r.do(acmeToken, "POST", "/crm/v3/objects/contacts/search", `{}`)
	require.Equal(t, 429, res.status, "one limit for all searches of the account")
	require.Equal(t, "SECONDLY", res.get("policyName"))
	require.Equal(t, "You have reached your secondly limit.", res.get("message"))
	require.Empty(t, res.header.Get("X-HubSpot-RateLimit-Max"))
	require.Equal(t, 200, r.do(acmeToken, "GET", contacts, "").status)
	r.clock.set(r.clock.now().Add(time.Second))
	require.Equal(t, 200, r.do(acmeToken, "POST", "/crm/v3/objects/deals/search", `{}`).status)
	require.Equal(t, 1, r.Count().Total.Throttled)
}
