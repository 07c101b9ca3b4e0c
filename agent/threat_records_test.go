package agent_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// One portal's flood of calls loses nobody's records, and everybody's come in
// turn.
func TestThreat44ManyCallsOfOnePortal(t *testing.T) {
	r := newRig(t, rigOptions{portals: portalsOf(4), quiet: true})
	r.ready(4)
	const flood, others = 600, 20
	var wg sync.WaitGroup
	for w := range 30 {
		wg.Go(func() {
			for i := range flood / 30 {
				if got := r.call("client-0", "GET", fmt.Sprintf("%s?limit=1&after=%d", contacts, w*1000+i), nil); got.status != 200 {
					t.Errorf("flood: %d %s", got.status, got.body)
				}
			}
		})
	}
	for c := range 3 {
		wg.Go(func() {
			for range others {
				if got := r.call(fmt.Sprintf("client-%d", c+1), "GET", contacts, nil); got.status != 200 {
					t.Errorf("another: %d %s", got.status, got.body)
				}
			}
		})
	}
	wg.Wait()
	bySlug := map[string]int{}
	for _, rec := range r.checkLog() {
		bySlug[rec.ClientSlug]++
	}
	require.Equal(t, map[string]int{"client-0": flood, "client-1": others, "client-2": others, "client-3": others}, bySlug)
}

// HubSpot hangs, trickles, or never ends its headers.
func TestThreat45SlowAnswers(t *testing.T) {
	tests := []struct {
		name  string
		fault sandbox.Fault
		code  wire.Code // of the outcome
	}{
		{"never answers", sandbox.Fault{Hang: true}, wire.CodeUpstreamTimeout},
		{"waits too long", sandbox.Fault{Delay: time.Minute}, wire.CodeUpstreamTimeout},
		{"headers of a mebibyte", sandbox.Fault{Raw: []byte("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n")}, wire.CodeUpstreamInvalid},
		{"100,000 headers", sandbox.Fault{Raw: []byte("HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 100_000) + "\r\n")}, wire.CodeUpstreamInvalid},
		{"random bytes", sandbox.Fault{Raw: []byte("\x00\x01\x02 garbage\r\n\r\n")}, wire.CodeUpstreamInvalid},
		{"nothing at all", sandbox.Fault{DropBefore: true}, wire.CodeUpstreamUnreachable},
	}
	r := newRig(t, rigOptions{quiet: true, upstream: func(c *hubspot.UpstreamConfig) { c.HeaderTimeout = time.Second }})
	for _, slug := range []string{"client-0", "client-1", "client-2"} { // on a busy machine the first question may take too long
		eventually(t, func() bool { return r.call(slug, "GET", contacts, nil).status == 200 }, "%s is ready", slug)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.fault.Portal, tt.fault.PathPrefix = 1000, "/crm"
			r.hubspot.SetFaults(tt.fault)
			defer r.hubspot.ClearFaults()
			got := r.call("client-0", "POST", contacts, strings.NewReader("{}"), wire.HeaderRetry, "off")
			got.refused(t, tt.code)
			require.Equal(t, 200, r.call("client-1", "GET", contacts, nil).status, "it is that portal's trouble alone")
		})
	}
	r.checkLog()
}

// What a caller writes into a path, a query or a reason cannot look like
// another line, nor make a record of any size.
func TestThreat51HostileRecords(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.ready(3)
	long := strings.Repeat("x", 1<<20)
	hostile := []struct{ target, reason string }{
		{contacts + "?a=%0d%0a%7B%22seq%22:1%7D", `"}` + "\t" + `{"seq":0,"kind":"agent.stopped"}`},
		{contacts + "/%E2%80%AE1", "\u202e\u2028"},
		{contacts + "?" + strings.Repeat("name=v&", 900), strings.Repeat("r", wire.MaxReasonBytes)},
		{contacts + "/" + strings.Repeat("%2E.", 10), "dots"},
		{"/" + strings.Repeat("p", hubspot.MaxPath-1), "long"},
	}
	for _, h := range hostile {
		r.call("client-0", "GET", h.target, nil, wire.HeaderReason, h.reason)
	}
	req, err := http.NewRequest("GET", "http://hsagent/", nil)
	require.NoError(t, err)
	got := r.try(req, "/v1/call/client-0/"+long)
	require.Contains(t, []int{0, 400, 414, 431}, got.status)
	_ = r.checkLog()
	var cut []string // of two calls that differ behind what a record keeps
	for _, last := range []string{"one", "other"} {
		got := r.call("client-0", "GET", contacts+"?"+strings.Repeat("n=v&", 1500)+last+"=1", nil)
		cut = append(cut, r.outcomeOf(got).Path)
		require.Regexp(t, `…#[0-9a-f]{16}$`, cut[len(cut)-1])
	}
	require.NotEqual(t, cut[0], cut[1])
	lines := 0
	require.NoError(t, r.audit.Records(t.Context(), chain.Filter{}, func(raw []byte, _ *chain.Record) error {
		lines++
		require.LessOrEqual(t, len(raw), chain.MaxRecord)
		require.True(t, json.Valid(raw))
		require.Equal(t, wire.Printable(string(raw)), string(raw), "nothing in it is invisible or ends a line")
		return nil
	}))
	require.Equal(t, int(r.audit.Status().Size), lines)
}

// Addresses in paths and queries stay out of every file of the log.
func TestThreat52PersonalDataStaysOut(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.ready(3)
	var seeded []string
	for i := range 40 {
		name := fmt.Sprintf("Erika.Mustermann%d", i)
		seeded = append(seeded, name, strings.ToLower(name))
		mail := name + "@example.com"
		for _, target := range []string{
			contacts + "/" + mail + "?idProperty=email",
			contacts + "/" + url.PathEscape(mail),
			contacts + "/" + strings.ReplaceAll(mail, "@", "%40"),
			contacts + "?email=" + url.QueryEscape(mail),
			contacts + "?" + url.QueryEscape(mail) + "=1",
			contacts + "?filter=" + mail + "&q=" + name,
		} {
			r.call("client-0", "GET", target, nil)
		}
	}
	require.GreaterOrEqual(t, len(r.checkLog()), 200)
	r.stop()
	dir := filepath.Join(r.dir, "audit")
	files := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, s := range seeded {
			require.NotContains(t, string(b), s, path)
		}
		return nil
	}))
	require.Greater(t, files, 3)
}

// What is not in the table of requests is not there, whatever tools expect.
func TestThreat62NoOtherRoutes(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	doc, err := os.ReadFile("../docs/api.md")
	require.NoError(t, err)
	require.NotEmpty(t, regexp.MustCompile(`/v1/status`).Find(doc))
	for _, path := range []string{
		"/", "/debug", "/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine?debug=2", "/debug/pprof/cmdline",
		"/debug/vars", "/debug/requests", "/debug/events", "/v1", "/v1/", "/v2/status", "/v1/debug", "/v1/config", "/v1/env", "/v1/tokens",
		"/v1/token/client-0", "/v1/portals/client-0/token", "/v1/store", "/v1/identity", "/v1/keyring", "/healthz", "/health", "/statusz",
		"/metrics/", "/v1/metrics", "/.well-known/openid-configuration", "/favicon.ico", "/v1/audit", "/v1/report",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
			got := r.api(method, path, "")
			require.GreaterOrEqual(t, got.status, 400, "%s %s: %s", method, path, got.body)
			require.Less(t, got.status, 500, "%s %s: %s", method, path, got.body)
			r.clean(path, got.body)
		}
	}
}
