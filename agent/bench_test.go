package agent_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// forgetful is an audit log that keeps nothing: what recording costs is the
// difference to it.
type forgetful struct{}

func (forgetful) Checkpoint(context.Context) (string, error) { return "", nil }
func (forgetful) Key() string                                { return "" }
func (forgetful) Prove(context.Context, uint64) (*chain.Proof, error) {
	return nil, chain.ErrNoRecord
}
func (forgetful) Export(context.Context, wire.Slug, time.Time, time.Time, io.Writer) error {
	return nil
}
func (forgetful) Prune(context.Context, string, time.Time, *chain.Caller) (uint64, error) {
	return 0, nil
}
func (forgetful) Append(context.Context, chain.Record) (chain.Receipt, error) {
	return chain.Receipt{}, nil
}
func (forgetful) AppendLazy(chain.Record) error { return nil }
func (forgetful) Flush(context.Context) error   { return nil }
func (forgetful) Status() wire.AuditStatus      { return wire.AuditStatus{} }
func (forgetful) Records(context.Context, chain.Filter, func([]byte, *chain.Record) error) error {
	return nil
}
func (forgetful) Usage(string, time.Time, time.Time) (int64, error) { return 0, nil }
func (forgetful) Wait(context.Context, uint64) error                { return nil }
func (forgetful) Verify(context.Context, func(done, total uint64)) (chain.Report, error) {
	return chain.Report{}, nil
}

// BenchmarkCall measures calls through the socket to the sandbox over TLS, by
// callers that each keep their connection, with the log on disk and without.
func BenchmarkCall(b *testing.B) {
	for _, audited := range []bool{true, false} {
		for _, callers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("audited=%t/callers=%d", audited, callers), func(b *testing.B) {
				r := newRig(b, rigOptions{portals: portalsOf(1), quiet: true, config: func(c *agent.Config) {
					if !audited {
						c.Audit = forgetful{}
					}
				}})
				r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/fast", Status: 200, Body: `{"results":[]}`})
				one := func() {
					req, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://hsagent/v1/call/client-0/fast/v3", nil)
					resp, err := r.http().RoundTrip(req)
					require.NoError(b, err)
					_, _ = io.Copy(io.Discard, resp.Body) // a short body
					_ = resp.Body.Close()
					require.Equal(b, http.StatusOK, resp.StatusCode)
				}
				one()
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for i := range callers {
					wg.Go(func() {
						for n := i; n < b.N; n += callers {
							one()
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
			})
		}
	}
}
