package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// A report says what HubSpot saw, in every figure that HubSpot can count:
// through a real daemon that is killed twice in the middle of 3,000 calls, with
// rotations, refusals, answers that are repeated, and none.
func TestReportIsWhatHubSpotSaw(t *testing.T) {
	const rounds, each, workers = 3, 1000, 8
	s := newSite(t, 3)
	s.hub.SetFaults(
		sandbox.Fault{PathPrefix: "/crm/v3/objects/deals", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"1"}}, Every: 40},
		sandbox.Fault{PathPrefix: "/crm/v3/objects/tickets", Status: http.StatusServiceUnavailable, Every: 9},
		sandbox.Fault{PathPrefix: "/crm/v3/objects/companies", DropBefore: true, Every: 7},
	)
	var made atomic.Int64
	for round := range rounds {
		cmd := s.start()
		next, enough := make(chan int), make(chan struct{})
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for n := range next {
					_, _ = s.whole(callNumber(s.slugs[n%len(s.slugs)], n)) // what became of it is in the sandbox and in the log
					if made.Add(1) == int64(round*each+each*3/4) {
						close(enough)
					}
				}
			})
		}
		go func() {
			defer close(next)
			for i := range each {
				next <- round*each + i
			}
		}()
		for i, slug := range s.slugs {
			token := sandbox.NewToken("na1")
			require.NoError(t, s.hub.Rotate(int64(1000+i), token))
			_, err := s.client.Rotate(t.Context(), slug, token, false)
			require.NoError(t, err)
		}
		<-enough
		if round < rounds-1 {
			require.NoError(t, cmd.Process.Kill())
			_ = cmd.Wait() // it was killed
		}
		wg.Wait()
		if round < rounds-1 {
			s.client.Close()
			continue
		}
		for i, slug := range s.slugs {
			for range i + 1 {
				s.refused(slug, "/oauth/v1/x", http.StatusForbidden)
			}
			for range i + 2 {
				s.refused(slug, "/crm/../x", http.StatusBadRequest)
			}
			_, err := s.whole(callNumber(slug, 8*(each+i))) // the last word on the quota
			require.NoError(t, err)
			s.compareReport(slug, int64(1000+i), map[string]int64{"denied": int64(i + 1), "bad_request": int64(i + 2)})
		}
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait())
	}
}

// callNumber is a call that the sandbox, and the log, can tell from all others.
func callNumber(slug wire.Slug, n int) wire.CallRequest {
	const objects = "/crm/v3/objects/"
	req := wire.CallRequest{Slug: slug, Method: http.MethodGet, Reason: reasonOf(n)}
	body := ""
	switch n % 8 {
	case 0:
		req.Target = objects + "contacts"
	case 1:
		req.Target = objects + "deals"
	case 2:
		req.Target = objects + "tickets"
	case 3:
		req.Target = objects + "companies"
	case 4:
		req.Target = objects + "contacts/" + strconv.Itoa(900+n%50) // there is none
	case 5:
		req.Method, req.Target, body = http.MethodPost, objects+"contacts/search", `{"limit":1}`
	case 6:
		req.Method, req.Target, body = http.MethodPost, objects+"contacts", fmt.Sprintf(`{"properties":{"email":"n%d@example.com"}}`, n)
	case 7:
		seeded := (1000+n%3)*10_000 + 1
		req.Method, req.Target, body = http.MethodPatch, objects+"contacts/"+strconv.Itoa(seeded), `{"properties":{"city":"Berlin"}}`
	}
	req.Target += "?after=" + strconv.Itoa(n)
	if body != "" {
		req.Header = http.Header{"Content-Type": {"application/json"}}
		req.Body, req.Length = strings.NewReader(body), int64(len(body))
	}
	if n/8%2 == 1 {
		retry := false
		req.Retry = &retry
	}
	return req
}

func reasonOf(n int) string { return "batch " + strconv.Itoa(n%3) }

// whole makes a call, takes its whole answer, and returns its status.
func (s *site) whole(req wire.CallRequest) (status int, err error) {
	resp, err := s.client.Call(s.t.Context(), req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func (s *site) refused(slug wire.Slug, target string, want int) {
	status, err := s.whole(wire.CallRequest{Slug: slug, Method: http.MethodGet, Target: target})
	require.NoError(s.t, err)
	require.Equal(s.t, want, status)
}

// An arrival is one call as the sandbox saw it.
type arrival struct {
	method, path, token string
	number              int
	statuses            []int // of its attempts
	bytes               int64
}

// arrivals are the calls that reached a portal, by their target, and how many
// other requests did, which are the agent's own. Charged is how many of all
// used up the day's quota.
func (s *site) arrivals(portalID int64) (calls map[string]*arrival, own, charged int64) {
	calls = map[string]*arrival{}
	for _, r := range s.hub.Requests() {
		require.NotZero(s.t, r.PortalID, "a token that opens nothing: %s", r.Target)
		if r.PortalID != portalID {
			continue
		}
		switch r.Status {
		case 0, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		default:
			charged++
		}
		_, number, ok := strings.Cut(r.RawQuery, "after=")
		if !ok {
			own++
			continue
		}
		c := calls[r.Target]
		if c == nil {
			n, err := strconv.Atoi(number)
			require.NoError(s.t, err)
			c = &arrival{method: r.Method, path: r.Path, token: r.TokenFingerprint, number: n}
			calls[r.Target] = c
		}
		c.statuses = append(c.statuses, r.Status)
		c.bytes += r.BodyBytes
	}
	return calls, own, charged
}

// lost are the calls that a kill broke off, by their path. What of them had
// arrived, and what became of it, the log cannot know: here it is asked only
// which ones they were, and how often it says that each may have left.
func (s *site) lost(slug wire.Slug) (calls map[string][]chain.Record, own int64) {
	intents, calls := map[string][]chain.Record{}, map[string][]chain.Record{}
	resp, err := s.client.Stream(s.t.Context(), http.MethodGet, "/v1/audit/records", url.Values{"slug": {slug.String()}, "limit": {"0"}}, nil)
	require.NoError(s.t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		var r chain.Record
		require.NoError(s.t, json.Unmarshal(lines.Bytes(), &r))
		switch {
		case r.Kind == chain.CallIntent:
			intents[r.CallID] = append(intents[r.CallID], r)
		case r.Kind == chain.CallInterrupted && r.Caller != nil && r.Caller.Agent:
			own++
		case r.Kind == chain.CallInterrupted:
			calls[r.Path] = intents[r.CallID]
		}
	}
	require.NoError(s.t, lines.Err())
	return calls, own
}

// seen is a report as the sandbox's arrivals make it.
type seen struct {
	total   wire.ReportCounts
	by      map[string]wire.ReportCounts
	codes   map[string]int64
	tokens  map[string]int64
	objects map[string]*wire.ReportObjects
	named   map[string]bool
}

// add counts a call by its last status: 0 is none. Interrupted ones are known
// by attempts alone.
func (v *seen) add(a *arrival, attempts, bytes int64, last int, interrupted bool) {
	n := wire.ReportCounts{Calls: 1, Attempts: attempts, RequestBytes: bytes}
	kind := strings.Split(a.path, "/")[4]
	code := strconv.Itoa(last)
	switch {
	case interrupted:
		n.Interrupted, code = 1, "interrupted"
	case last == 0:
		code = "upstream_unreachable"
	}
	if last == 0 || last >= 400 {
		n.Errors = 1
		v.codes[code]++
	}
	operation := map[string]string{"GET": "read", "POST": "create", "PATCH": "update"}[a.method]
	if strings.HasSuffix(a.path, "/search") {
		operation = "search"
	}
	v.tokens[a.token]++
	plusCounts(&v.total, n)
	for _, key := range []string{"method " + a.method, "type " + kind, "operation " + operation, "reason " + reasonOf(a.number)} {
		sum := v.by[key]
		plusCounts(&sum, n)
		v.by[key] = sum
	}
	row := v.by["row "+a.method+" "+kind]
	row.Calls, row.Errors = row.Calls+1, row.Errors+n.Errors
	v.by["row "+a.method+" "+kind] = row
	if last >= 400 && last < 500 {
		return
	}
	o := v.objects[kind]
	if o == nil {
		o = &wire.ReportObjects{ObjectType: kind}
		v.objects[kind] = o
	}
	switch {
	case last == 0 || last >= 500:
		o.Uncertain++
	case operation == "read" || operation == "search":
		o.Reads++
	default:
		o.Changes++
	}
	id := ""
	switch parts := strings.Split(a.path, "/"); {
	case last == http.StatusCreated:
		id = "made by " + strconv.Itoa(a.number)
	case len(parts) > 5 && parts[5] != "search":
		id = parts[5]
	}
	if id != "" && !v.named[kind+id] {
		v.named[kind+id] = true
		o.Named++
	}
}

func plusCounts(sum *wire.ReportCounts, n wire.ReportCounts) {
	sum.Calls += n.Calls
	sum.Attempts += n.Attempts
	sum.Errors += n.Errors
	sum.Denied += n.Denied
	sum.Interrupted += n.Interrupted
	sum.RequestBytes += n.RequestBytes
}

// compareReport compares a client's report with the arrivals at its portal.
func (s *site) compareReport(slug wire.Slug, portalID int64, refused map[string]int64) {
	t := s.t
	rep, err := s.client.Report(t.Context(), slug, "", "", "", false)
	require.NoError(t, err)
	arrived, own, charged := s.arrivals(portalID)
	lost, ownLost := s.lost(slug)

	want := &seen{by: map[string]wire.ReportCounts{}, codes: map[string]int64{}, tokens: map[string]int64{}, objects: map[string]*wire.ReportObjects{}, named: map[string]bool{}}
	lostAttempts, lostArrivals := int64(0), int64(0)
	for target, a := range arrived {
		if lost[target] == nil {
			want.add(a, int64(len(a.statuses)), a.bytes, a.statuses[len(a.statuses)-1], false)
		}
	}
	for target, intents := range lost {
		path, _, _ := strings.Cut(target, "?")
		_, number, _ := strings.Cut(target, "after=")
		n, err := strconv.Atoi(number)
		require.NoError(t, err)
		a := &arrival{method: intents[0].Method, path: path, token: intents[0].TokenFingerprint, number: n}
		want.add(a, int64(len(intents)), 0, 0, true)
		lostAttempts += int64(len(intents))
		if got := arrived[target]; got != nil {
			require.LessOrEqual(t, len(got.statuses), len(intents), "what had no intent has left: %s", target)
			lostArrivals += int64(len(got.statuses))
		}
	}
	denied := int64(0)
	for code, n := range refused {
		denied += n
		want.codes[code] = n
	}

	got := &seen{by: map[string]wire.ReportCounts{}, codes: map[string]int64{}, tokens: map[string]int64{}, objects: map[string]*wire.ReportObjects{}}
	note := func(key string, n wire.ReportCounts) {
		n.ResponseBytes, n.Denied = 0, 0 // the sandbox counts neither
		if n != (wire.ReportCounts{}) {
			got.by[key] = n
		}
	}
	var days wire.ReportCounts
	for _, x := range rep.ByDay {
		plusCounts(&days, x.ReportCounts)
	}
	require.Equal(t, denied, days.Denied)
	days.Denied = 0
	require.Equal(t, want.total, days)
	for _, x := range rep.ByMethod {
		note("method "+x.Method, x.ReportCounts)
	}
	for _, x := range rep.ByObjectType {
		note("type "+x.ObjectType, x.ReportCounts)
	}
	for _, x := range rep.ByOperation {
		note("operation "+x.Operation, x.ReportCounts)
	}
	for _, x := range rep.ByReason {
		note("reason "+x.Reason, x.ReportCounts)
	}
	for _, x := range rep.Rows { // two days', if midnight lies between
		key := "row " + x.Method + " " + x.ObjectType
		row := got.by[key]
		row.Calls, row.Errors = row.Calls+x.CallCount, row.Errors+x.ErrorCount
		got.by[key] = row
	}
	for _, x := range rep.ByCode {
		got.codes[x.Code] = x.Calls
	}
	for _, x := range rep.Tokens {
		got.tokens[x.Fingerprint] = x.Calls
	}
	for _, x := range rep.Objects {
		got.objects[x.ObjectType] = &x
	}
	require.Equal(t, want.by, got.by)
	require.Equal(t, want.codes, got.codes)
	require.Equal(t, want.tokens, got.tokens)
	require.Equal(t, want.objects, got.objects)
	require.Len(t, rep.ByCaller, 1)
	require.Equal(t, rep.Totals, rep.ByCaller[0].ReportCounts)
	s.compareQuota(rep, want.total.Attempts, own, ownLost, charged)
	t.Logf("%s: %+v, %d arrivals of %d lost attempts, %d of the agent's own, tokens %v", slug, want.total, lostArrivals, lostAttempts, own, got.tokens)
}

// compareQuota compares what the day took of the quota.
func (s *site) compareQuota(rep *wire.Report, attempts, own, ownLost, charged int64) {
	t := s.t
	require.LessOrEqual(t, own, rep.AgentRequests.Attempts)
	require.GreaterOrEqual(t, own, rep.AgentRequests.Attempts-ownLost)
	used, left := int64(0), rep.Quota[0].Remaining
	for _, x := range rep.Quota {
		used += x.Used
		if left == nil || x.Remaining != nil && *x.Remaining < *left {
			left = x.Remaining
		}
	}
	require.Equal(t, attempts+rep.AgentRequests.Attempts, used)
	var limit *int64
	var quotas wire.Quotas
	require.NoError(t, s.client.Do(context.WithoutCancel(t.Context()), http.MethodGet, "/v1/quota", nil, nil, &quotas))
	for _, q := range quotas.Portals {
		if q.Slug == rep.Slug {
			limit = q.DailyLimit
		}
	}
	requests := s.hub.Requests()
	zone, err := time.LoadLocation(quotaZone)
	require.NoError(t, err)
	day := func(at time.Time) string { return at.In(zone).Format(time.DateOnly) }
	if day(requests[0].Time) == day(requests[len(requests)-1].Time) { // midnight gives all of it back
		require.Equal(t, *limit-charged, *left)
	}
}

// quotaZone is where the sandbox's days end.
const quotaZone = "US/Eastern"
