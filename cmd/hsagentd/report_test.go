package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// A report says what HubSpot saw: through a real daemon that is killed again
// and again, with refusals, answers that are repeated, and none.
func TestReportIsWhatHubSpotSaw(t *testing.T) {
	const kills, each = 5, 120
	s := newSite(t, 3)
	s.hub.SetFaults(sandbox.Fault{PathPrefix: "/crm/v3/objects/deals", Status: 429, Every: 11},
		sandbox.Fault{PathPrefix: "/crm/v3/objects/tickets", Status: 503, Every: 5},
		sandbox.Fault{PathPrefix: "/crm/v3/objects/companies", DropBefore: true, Every: 7})
	denied := make([]int, len(s.slugs))
	types := []string{"contacts", "deals", "tickets", "companies", "contacts/999"}
	for round := range kills + 1 {
		cmd := s.start()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		killed := make(chan struct{})
		for w := range 4 {
			wg.Go(func() {
				for i := range each / 4 {
					n := round*each + w*each/4 + i
					resp, err := s.client.Call(ctx, wire.CallRequest{Slug: s.slugs[n%len(s.slugs)], Method: http.MethodGet,
						Target: fmt.Sprintf("/crm/v3/objects/%s?after=%d", types[n%len(types)], n)})
					if err == nil {
						_ = resp.Body.Close() // what became of it is in the sandbox and in the log
					}
				}
			})
		}
		if round < kills {
			time.AfterFunc(time.Duration(20+rand.IntN(400))*time.Millisecond, func() { _ = cmd.Process.Kill(); close(killed) }) // the random point
			<-killed
			_ = cmd.Wait() // it was killed
			cancel()
			wg.Wait()
			s.client.Close()
			continue
		}
		wg.Wait()
		for i, slug := range s.slugs {
			for range i + 1 {
				resp, err := s.client.Call(ctx, wire.CallRequest{Slug: slug, Method: http.MethodGet, Target: "/oauth/v1/x"})
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, http.StatusForbidden, resp.StatusCode)
				denied[i]++
			}
		}
		for i, slug := range s.slugs {
			rep, err := s.client.Report(ctx, slug, "", "", "", false)
			require.NoError(t, err)
			s.compareReport(rep, int64(1000+i), int64(denied[i]))
		}
		cancel()
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait())
	}
}

// compareReport compares a report with the arrivals of a portal. A call that
// was interrupted may have arrived or not: the log knows which ones were.
func (s *site) compareReport(rep *wire.Report, portalID, denied int64) {
	t := s.t
	interrupted := map[string]bool{}
	resp, err := s.client.Stream(t.Context(), http.MethodGet, "/v1/audit/records", url.Values{"slug": {rep.Slug}, "kind": {"call.interrupted"}}, nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		var r chain.Record
		require.NoError(t, json.Unmarshal(lines.Bytes(), &r))
		if r.Caller == nil || !r.Caller.Agent {
			interrupted[r.Path] = true
		}
	}
	require.NoError(t, lines.Err())
	last, attempts := map[string]int{}, map[string]int64{}
	for _, r := range s.hub.Requests() {
		if r.PortalID == portalID && strings.HasPrefix(r.Path, "/crm/") && !interrupted[r.Target] {
			last[r.Target] = r.Status
			attempts[r.Target]++
		}
	}
	var calls, errs, sent int64
	kinds := map[string]int64{}
	for target, status := range last {
		calls++
		sent += attempts[target]
		if status == 0 || status >= 400 {
			errs++
		}
		kinds[strings.Split(strings.Split(target, "?")[0], "/")[4]]++
	}
	n := int64(len(interrupted))
	require.Equal(t, denied, rep.Totals.Denied)
	require.Equal(t, n, rep.Totals.Interrupted)
	require.Equal(t, calls, rep.Totals.Calls-n)
	require.Equal(t, errs, rep.Totals.Errors-n)
	require.GreaterOrEqual(t, rep.Totals.Attempts, sent)
	sum := int64(0)
	for _, x := range rep.ByObjectType {
		if x.ObjectType != "other" {
			require.Equal(t, kinds[x.ObjectType], x.Calls-x.Interrupted, x.ObjectType)
		}
		sum += x.Calls
	}
	require.Equal(t, rep.Totals.Calls, sum)
	t.Logf("%s: %d calls, %d errors, %d refused, %d interrupted", rep.Slug, calls, errs, denied, n)
}
