package hubspot_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/wire"
)

func TestParseRateLimit(t *testing.T) {
	h := http.Header{}
	h.Set("X-HubSpot-RateLimit-Daily", "625000")
	h.Set("X-HubSpot-RateLimit-Daily-Remaining", " 624999 ")
	h.Set("X-HubSpot-RateLimit-Max", "190")
	h.Set("X-HubSpot-RateLimit-Remaining", "0")
	h.Set("X-HubSpot-RateLimit-Interval-Milliseconds", "10000")
	h.Set("X-HubSpot-RateLimit-Secondly", "19")
	n := func(v int64) *int64 { return &v }
	require.Equal(t, hubspot.RateLimit{
		DailyLimit: n(625000), DailyRemaining: n(624999), BurstLimit: n(190), BurstRemaining: n(0), Interval: 10 * time.Second,
	}, hubspot.ParseRateLimit(h))

	require.Zero(t, hubspot.ParseRateLimit(nil))
	for _, bad := range []string{"", "-1", "+1", "1.5", "1e3", "0x10", "1,000", "nan", "9223372036854775808", "99999999999999999999999", "3000000001", "1 2", "١"} {
		h := http.Header{}
		for _, name := range []string{"Daily", "Daily-Remaining", "Max", "Remaining", "Interval-Milliseconds"} {
			h.Set("X-HubSpot-RateLimit-"+name, bad)
		}
		require.Zero(t, hubspot.ParseRateLimit(h), "%q", bad)
	}
	h = http.Header{"X-Hubspot-Ratelimit-Max": {"1", "2"}}
	require.Zero(t, hubspot.ParseRateLimit(h), "two values agree on nothing")
	h = http.Header{"X-Hubspot-Ratelimit-Interval-Milliseconds": {"3600001"}}
	require.Zero(t, hubspot.ParseRateLimit(h))
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	tests := []struct {
		name, in string
		want     time.Duration
		ok       bool
	}{
		{"missing", "", 0, false},
		{"seconds", "120", 2 * time.Minute, true},
		{"spaces", " 1 ", time.Second, true},
		{"zero", "0", 0, true},
		{"negative", "-5", 0, true},
		{"a day", "86400", 24 * time.Hour, true},
		{"huge", "1000000000", 24 * time.Hour, true},
		{"more than a number", strings.Repeat("9", 40), 24 * time.Hour, true},
		{"date", "Mon, 23 Nov 2026 10:00:30 GMT", 30 * time.Second, true},
		{"past date", "Mon, 23 Nov 2026 09:00:30 GMT", 0, true},
		{"far date", "Mon, 23 Nov 2099 09:00:30 GMT", 24 * time.Hour, true},
		{"fraction", "1.5", 0, false},
		{"words", "soon", 0, false},
		{"a sign alone", "-", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := hubspot.ParseRetryAfter(http.Header{"Retry-After": {tt.in}}, now)
			require.Equal(t, tt.ok, ok)
			require.Equal(t, tt.want, got)
		})
	}
}

func FuzzRateLimitHeaders(f *testing.F) {
	for _, s := range []string{"", "1", "-1", "625000", "99999999999999999999", "Mon, 23 Nov 2026 10:00:30 GMT", "1.5", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h := http.Header{"Retry-After": {s}}
		for _, name := range []string{"Daily", "Daily-Remaining", "Max", "Remaining", "Interval-Milliseconds"} {
			h.Set("X-HubSpot-RateLimit-"+name, s)
		}
		l := hubspot.ParseRateLimit(h)
		for _, p := range []*int64{l.DailyLimit, l.DailyRemaining, l.BurstLimit, l.BurstRemaining} {
			require.True(t, p == nil || *p >= 0)
		}
		require.GreaterOrEqual(t, l.Interval, time.Duration(0))
		require.LessOrEqual(t, l.Interval, time.Hour)
		d, _ := hubspot.ParseRetryAfter(h, time.Unix(1e9, 0))
		require.GreaterOrEqual(t, d, time.Duration(0))
		require.LessOrEqual(t, d, hubspot.MaxRetryAfter)
	})
}

func TestParseError(t *testing.T) {
	tests := []struct {
		name, body string
		want       hubspot.APIError
	}{
		{"validation, portal in the message", `{"status":"error","message":"Property values were not valid: [{\"isValid\":false,\"error\":\"INVALID_EMAIL\",\"name\":\"email\",\"portalId\":12345678},{\"portalId\":12345678},{\"portalId\":\"7\"}]","correlationId":"c","category":"VALIDATION_ERROR"}`,
			hubspot.APIError{Category: "VALIDATION_ERROR", CorrelationID: "c", Portals: []int64{12345678}}},
		{"portal in one of many", `{"numErrors":2,"errors":[{"category":"VALIDATION_ERROR","message":"x [{\"portalId\":5}] y"},{}]}`,
			hubspot.APIError{NumErrors: 2, Portals: []int64{5}}},
		{"no portal in another category", `{"category":"CONFLICT","message":"[{\"portalId\":5}]"}`, hubspot.APIError{Category: "CONFLICT"}},
		{"portals at the top", `{"portalId":3,"hubId":2,"hub_id":1}`, hubspot.APIError{Portals: []int64{1, 2, 3}}},
		{"portals that are none", `{"portalId":"3","hubId":-2,"hub_id":1.5}`, hubspot.APIError{}},
		{"scopes", `{"category":"MISSING_SCOPES","errors":[{"context":{"requiredGranularScopes":["b","a"]}}],"context":{"missingScopes":["a"]}}`,
			hubspot.APIError{Category: "MISSING_SCOPES", NumErrors: 1, MissingScopes: []string{"a", "b"}}},
		{"group name", `{"errorType":"RATE_LIMIT","policyName":"TEN_SECONDLY_ROLLING","groupName":"publicapi:TEN_SECONDLY_ROLLING:12345678"}`,
			hubspot.APIError{ErrorType: "RATE_LIMIT", PolicyName: "TEN_SECONDLY_ROLLING", GroupName: "publicapi:TEN_SECONDLY_ROLLING:12345678", Portals: []int64{12345678}}},
		{"another group name", `{"groupName":"other:x:1"}`, hubspot.APIError{GroupName: "other:x:1"}},
		{"fields of a wrong kind", `{"category":5,"errors":"x","message":["a"],"correlationId":"c"}`, hubspot.APIError{CorrelationID: "c"}},
		{"html", "<html>522</html>", hubspot.APIError{}},
		{"nothing", "", hubspot.APIError{}},
		{"null", "null", hubspot.APIError{}},
		{"list", "[]", hubspot.APIError{}},
		{"cut", `{"category":"X"`, hubspot.APIError{}},
		{"deep", strings.Repeat(`{"errors":[`, 10000), hubspot.APIError{}},
		{"deep list", `{"x":` + strings.Repeat(`[`, 20000) + strings.Repeat(`]`, 20000) + `}`, hubspot.APIError{}},
		{"deep message", `{"category":"VALIDATION_ERROR","message":"` + strings.Repeat("[{", 20000) + `"}`, hubspot.APIError{Category: "VALIDATION_ERROR"}},
		{"huge", `{"category":"` + strings.Repeat("x", hubspot.MaxErrorBody) + `"}`, hubspot.APIError{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := hubspot.ParseError(http.StatusBadRequest, "application/json", []byte(tt.body))
			tt.want.Status = http.StatusBadRequest
			got.Message = ""
			require.Equal(t, tt.want, got)
		})
	}
	require.Equal(t, hubspot.APIError{Status: 502}, hubspot.ParseError(502, "text/html; charset=utf-8", []byte(`{"category":"X"}`)))
}

func TestLimit(t *testing.T) {
	tests := []struct {
		name, body string
		status     int
		want       hubspot.Limit
	}{
		{"daily", `{"message":"You have reached your daily limit.","errorType":"RATE_LIMIT","policyName":"DAILY"}`, 429, hubspot.LimitDaily},
		{"daily by message", `{"message":"You have reached your daily limit."}`, 429, hubspot.LimitDaily},
		{"burst", `{"policyName":"TEN_SECONDLY_ROLLING"}`, 429, hubspot.LimitBurst},
		{"burst by message", `{"message":"You have reached your ten_secondly_rolling limit."}`, 429, hubspot.LimitBurst},
		{"second", `{"policyName":"SECONDLY"}`, 429, hubspot.LimitSecondly},
		{"second by message", `{"message":"You have reached your secondly limit."}`, 429, hubspot.LimitSecondly},
		{"policy before message", `{"policyName":"SECONDLY","message":"daily"}`, 429, hubspot.LimitSecondly},
		{"unknown", `{"message":"slow down"}`, 429, hubspot.LimitUnknown},
		{"html", `<html>`, 429, hubspot.LimitUnknown},
		{"not a 429", `{"policyName":"DAILY"}`, 400, hubspot.LimitNone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, hubspot.ParseError(tt.status, "application/json", []byte(tt.body)).Limit())
		})
	}
}

func TestNumErrors(t *testing.T) {
	for body, want := range map[string]int{
		`{"status":"COMPLETE","results":[{"id":"1"}],"numErrors":2,"errors":[{},{}]}`: 2,
		`{"results":[],"errors":[{},{},{}]}`:                                          3,
		`{"results":[]}`:                                                              0, `{"numErrors":"2"}`: 0, `{"numErrors":-1,"errors":[{}]}`: 1, `{"numErrors":1e99}`: 0, `x`: 0, ``: 0,
	} {
		require.Equal(t, want, hubspot.NumErrors([]byte(body)), body)
	}
}

func FuzzParseError(f *testing.F) {
	for _, s := range []string{`{"category":"VALIDATION_ERROR","message":"x [{\"portalId\":5}]"}`, `{"portalId":1,"errors":[{"context":{"missingScopes":["a"]}}]}`, `<html>`, `{"groupName":"publicapi:X:1"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e := hubspot.ParseError(429, "application/json", body)
		require.NotEqual(t, hubspot.LimitNone, e.Limit())
		for _, p := range e.Portals {
			require.Positive(t, p)
		}
		require.GreaterOrEqual(t, e.NumErrors, 0)
		require.GreaterOrEqual(t, hubspot.NumErrors(body), 0)
	})
}

const details = `{"portalId":12345678,"accountType":"STANDARD","timeZone":"US/Eastern","companyCurrency":"USD","additionalCurrencies":["EUR"],"utcOffset":"-05:00","utcOffsetMilliseconds":-18000000,"uiDomain":"app.hubspot.com","dataHostingLocation":"na1"}`

func TestDecodeAccount(t *testing.T) {
	got, err := hubspot.DecodeAccount([]byte(details))
	require.NoError(t, err)
	require.Equal(t, hubspot.Account{
		PortalID: 12345678, AccountType: "STANDARD", TimeZone: "US/Eastern", DataHostingLocation: "na1",
	}, got)

	got, err = hubspot.DecodeAccount([]byte(` {"portalId": 9007199254740992, "timeZone": 7, "new": {"portalId": 5}} `))
	require.NoError(t, err)
	require.Equal(t, hubspot.Account{PortalID: 1 << 53}, got, "fields of a wrong kind are left out")

	for _, bad := range []string{
		"", "null", "[]", "5", `"x"`, "<html>", `{}`, `{"portalId":null}`, `{"portalId":"12345678"}`, `{"portalId":12345678.0}`, `{"portalId":1e7}`, `{"portalId":-1}`, `{"portalId":0}`,
		`{"portalId":9007199254740993}`, `{"portalId":99999999999999999999}`, `{"portalId":true}`, `{"portalId":[1]}`, `{"PortalId":1}`, `{"portalid":1}`, `{"portalId":1,"portalId":2}`,
		`{"portalId":1,"PORTALID":2}`, `{"portalId":1}{}`, `{"portalId":1} x`, `{"portalId":1`, `{"portalId":1,}`, `{"x":` + strings.Repeat("[", 20000), `{"hubId":1}`, `{"account":{"portalId":1}}`,
	} {
		got, err := hubspot.DecodeAccount([]byte(bad))
		require.Error(t, err, bad)
		require.Zero(t, got)
	}
}

func TestDecodeTokenInfo(t *testing.T) {
	got, err := hubspot.DecodeTokenInfo([]byte(`{"userId":1,"hubId":87654321,"appId":3,"scopes":["oauth","crm.objects.contacts.read"]}`))
	require.NoError(t, err)
	require.Equal(t, hubspot.TokenInfo{HubID: 87654321, Scopes: []string{"oauth", "crm.objects.contacts.read"}}, got)
	for _, bad := range []string{``, `{}`, `{"hubId":"1"}`, `{"hubId":1,"hubid":2}`, `{"hub_id":1}`} {
		_, err := hubspot.DecodeTokenInfo([]byte(bad))
		require.Error(t, err, bad)
	}
}

func TestDecodeUsage(t *testing.T) {
	row := func(s string) []byte {
		return []byte(`{"results":[{"name":"other","usageLimit":1,"currentUsage":1,"fetchStatus":"SUCCESS"},{"name":"private-apps-api-calls-daily",` + s + `}]}`)
	}
	got, err := hubspot.DecodeUsage(row(`"usageLimit":625000,"currentUsage":17,"collectedAt":"2026-11-23T10:00:00.123Z","fetchStatus":"CACHED","resetsAt":"2026-11-24T00:00:00-05:00"`))
	require.NoError(t, err)
	require.Equal(t, hubspot.Usage{
		Limit: 625000, Used: 17, CollectedAt: time.Date(2026, 11, 23, 10, 0, 0, 123e6, time.UTC),
	}, got)
	got, err = hubspot.DecodeUsage(row(`"usageLimit":5,"currentUsage":6,"fetchStatus":"SUCCESS"`))
	require.NoError(t, err)
	require.Equal(t, hubspot.Usage{Limit: 5, Used: 6}, got)
	for _, bad := range []string{
		`"usageLimit":5,"currentUsage":6,"fetchStatus":"TIMEOUT"`, `"usageLimit":5,"currentUsage":6`, `"usageLimit":5,"fetchStatus":"SUCCESS"`,
		`"usageLimit":-5,"currentUsage":6,"fetchStatus":"SUCCESS"`, `"usageLimit":"5","currentUsage":6,"fetchStatus":"SUCCESS"`,
	} {
		_, err := hubspot.DecodeUsage(row(bad))
		require.Error(t, err, bad)
	}
	for _, bad := range []string{``, `{}`, `{"results":[]}`, `[]`, `<html>`} {
		_, err := hubspot.DecodeUsage([]byte(bad))
		require.Error(t, err, bad)
	}
}

func FuzzDecodeAccount(f *testing.F) {
	for _, s := range []string{details, `{"portalId":1,"portalId":2}`, `{"hubId":1}`, `{"portalId":1.0}`, `[]`, `{"results":[{"name":"private-apps-api-calls-daily"}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := hubspot.DecodeAccount(body)
		if err != nil {
			require.Zero(t, a)
		} else {
			require.Positive(t, a.PortalID)
			var plain struct {
				PortalID int64 `json:"portalId"`
			}
			require.NoError(t, json.Unmarshal(body, &plain))
			require.Equal(t, plain.PortalID, a.PortalID, "another reader must see the same portal")
		}
		if i, err := hubspot.DecodeTokenInfo(body); err == nil {
			require.Positive(t, i.HubID)
		}
		if u, err := hubspot.DecodeUsage(body); err == nil {
			require.GreaterOrEqual(t, u.Used, int64(0))
		}
	})
}

func TestThreat10RequestHeaders(t *testing.T) {
	in := http.Header{
		"Accept": {"application/json", "*/*"}, "Content-Type": {"application/json"}, "User-Agent": {"curl/8"}, "Range": {"bytes=0-1"}, "If-Range": {`"x"`}, "If-None-Match": {`"x"`},
		"Authorization": {"Bearer " + token}, "authorization": {"Bearer x"}, "Cookie": {"a=b"}, "Proxy-Authorization": {"Basic x"}, "Proxy-Connection": {"close"},
		"Forwarded": {"for=1"}, "X-Forwarded-For": {"1"}, "x-forwarded-host": {"evil"}, "X-Real-Ip": {"1"}, "Host": {"evil"}, "Hsagent-Reason": {"ticket"}, "hsagent-call-id": {"1"},
		"Connection": {"close, X-Mine", "Authorization"}, "X-Mine": {"1"}, "Keep-Alive": {"1"}, "TE": {"trailers"}, "Trailer": {"Authorization"}, "Transfer-Encoding": {"chunked"},
		"Upgrade": {"h2c"}, "HTTP2-Settings": {"x"}, "Expect": {"100-continue"}, "Accept-Encoding": {"br"}, "Content-Length": {"3"}, "Origin": {"null"}, "Referer": {"x"},
		"Sec-Fetch-Mode": {"cors"}, "Idempotency-Key": {"k"}, "X-Idempotency-Key": {"k"}, "X-HTTP-Method-Override": {"DELETE"}, "X-Original-URL": {"/admin"},
	}
	out, err := hubspot.RequestHeaders(in)
	require.NoError(t, err)
	require.Equal(t, http.Header{
		"Accept": {"application/json", "*/*"}, "Content-Type": {"application/json"}, "User-Agent": {"curl/8"}, "If-None-Match": {`"x"`},
	}, out)
	out["Accept"][0] = "changed"
	out.Set("Authorization", "Bearer")
	require.Equal(t, "application/json", in["Accept"][0], "a set of its own")
	require.Equal(t, "Bearer "+token, in["Authorization"][0])

	out, err = hubspot.RequestHeaders(nil)
	require.NoError(t, err)
	require.NotNil(t, out)
	require.Empty(t, out, "no User-Agent is made up")

	for _, h := range []http.Header{
		{"X-Api-Key": {token}}, {"X-Api-Key": {"a", "Bearer " + strings.ToUpper(token)}}, {"X-Api-Key": {strings.ReplaceAll(token, "-", "%2d")}}, {token: {"x"}}, {"User-Agent": {"x/" + token}},
	} {
		out, err := hubspot.RequestHeaders(h)
		requireCode(t, wire.CodeBadRequest, err)
		require.Nil(t, out)
	}
}

func TestResponseHeaders(t *testing.T) {
	in := http.Header{
		"Content-Type": {"application/json"}, "Location": {"https://elsewhere.example/"}, "Vary": {"a", "b"}, "X-Hubspot-Correlation-Id": {"c"}, "Retry-After": {"1"}, "Content-Length": {"3"},
		"Set-Cookie": {"a=b"}, "Connection": {"X-Hop"}, "X-Hop": {"1"}, "Keep-Alive": {"1"}, "Trailer": {"X"}, "Transfer-Encoding": {"chunked"}, "Alt-Svc": {"h3"}, "Upgrade": {"h2"},
		"Hsagent-Error": {"locked"}, "Hsagent-Call-Id": {"forged"}, "Trailer:X": {"1"}, "Proxy-Authenticate": {"Basic"},
	}
	out := http.Header(maps.Collect(hubspot.ResponseHeaders(in)))
	require.Equal(t, http.Header{
		"Content-Type": {"application/json"}, "Location": {"https://elsewhere.example/"}, "Vary": {"a", "b"}, "X-Hubspot-Correlation-Id": {"c"}, "Retry-After": {"1"}, "Content-Length": {"3"},
	}, out)
}
