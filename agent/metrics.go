package agent

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// A tally counts the wire attempts of one slug by how they ended.
type tally struct {
	classes [6]atomic.Int64 // by the status's first digit; 0: no answer
}

func (t *tally) count(status int) {
	class := status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	t.classes[class].Add(1)
}

// refusals counts calls that were refused, by code.
type refusals struct {
	mu     sync.Mutex
	byCode map[wire.Code]int64
}

func (r *refusals) count(c wire.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byCode == nil {
		r.byCode = map[wire.Code]int64{}
	}
	r.byCode[c]++
}

func (r *refusals) counts() map[wire.Code]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.byCode)
}

// getMetrics answers in Prometheus' text format.
func (a *Agent) getMetrics(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	a.writeMetrics(w, a.visible(r))
	return nil
}

func (a *Agent) writeMetrics(w io.Writer, visible func(slug string) bool) {
	st, k := a.Status(), a.keys.Load()
	m := metrics{w: w}
	m.family("hsagent_build_info", "gauge", "Version of the agent.")
	m.sample(1, "version", st.Version)
	m.family("hsagent_uptime_seconds", "gauge", "Time since the start.")
	m.sample(time.Since(a.started).Seconds())
	m.family("hsagent_locked", "gauge", "1 while the agent holds no tokens.")
	m.sample(truth(st.Locked))
	m.family("hsagent_calls_in_flight", "gauge", "Calls under way.")
	m.sample(float64(st.CallsInFlight))
	used, limit := openFDs()
	m.family("hsagent_connections", "gauge", "Connections of callers.")
	m.sample(float64(a.doors.count()))
	m.family("process_open_fds", "gauge", "File descriptors that are open.")
	m.sample(float64(used))
	m.family("process_max_fds", "gauge", "File descriptors that may be open.")
	m.sample(float64(limit))
	m.family("go_goroutines", "gauge", "Goroutines.")
	m.sample(float64(runtime.NumGoroutine()))
	m.family("hsagent_audit_records", "gauge", "Records in the audit log.")
	m.sample(float64(st.Audit.Size))
	m.family("hsagent_audit_durable_records", "gauge", "Records in the audit log that are synced to disk.")
	m.sample(float64(st.Audit.Durable))
	m.family("hsagent_audit_shut", "gauge", "1 while the audit log takes no records, and no call is made.")
	m.sample(truth(st.Audit.LastError != ""))
	m.family("hsagent_store_version", "gauge", "Version of the store that serves.")
	m.sample(float64(st.Store.Version))
	m.family("hsagent_store_refused", "gauge", "1 while the store on disk is refused and an older one serves.")
	m.sample(truth(st.Store.LastError != ""))
	m.family("hsagent_calls_refused_total", "counter", "Calls refused here, of which nothing was sent.")
	refused := a.refused.counts()
	for _, code := range slices.Sorted(maps.Keys(refused)) {
		m.sample(float64(refused[code]), "code", string(code))
	}
	if k == nil {
		return
	}
	m.family("hsagent_portal_state", "gauge", "1 for the state that the portal is in.")
	for _, p := range k.views(visible) {
		m.sample(1, "slug", p.Slug, "state", string(p.State))
	}
	m.family("hsagent_attempts_total", "counter", "Requests sent to HubSpot, by the class of the answer's status; none where there was no answer.")
	for _, slug := range k.slugs {
		if c := k.creds[slug]; c != nil && visible(slug) {
			for class, name := range []string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"} {
				if n := c.lane.tally.classes[class].Load(); n > 0 {
					m.sample(float64(n), "slug", slug, "status", name)
				}
			}
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// metrics writes the text format: a family, then its samples.
type metrics struct {
	w    io.Writer
	name string // of the family at hand
}

func (m *metrics) family(name, kind, help string) {
	m.name = name
	_, _ = fmt.Fprintf(m.w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) // the caller may have gone
}

// escapeLabel escapes a label's value as the format wants it.
var escapeLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (m *metrics) sample(value float64, labels ...string) {
	var b strings.Builder
	for i := 0; i+1 < len(labels); i += 2 {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		b.WriteString(sep + labels[i] + `="` + escapeLabel.Replace(labels[i+1]) + `"`)
	}
	if b.Len() > 0 {
		b.WriteByte('}')
	}
	_, _ = fmt.Fprintf(m.w, "%s%s %g\n", m.name, b.String(), value) // the caller may have gone
}
