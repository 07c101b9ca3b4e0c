package agent_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/packaging/bench/upstream"
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
func (forgetful) Lines(context.Context, chain.Filter, func(uint64, []byte) error) error { return nil }
func (forgetful) Usage(string, time.Time, time.Time) (int64, error)                     { return 0, nil }
func (forgetful) Wait(context.Context, uint64) error                                    { return nil }
func (forgetful) Verify(context.Context, func(done, total uint64)) (chain.Report, error) {
	return chain.Report{}, nil
}

// BenchmarkRecording is the price of recording: callers that each keep their
// connection make calls through the socket, by turns of an agent with the log
// on disk and of one whose log keeps nothing. The metric audited/unaudited is
// the one's calls per second over the other's.
func BenchmarkRecording(b *testing.B) {
	up, err := upstream.Start()
	require.NoError(b, err)
	b.Cleanup(up.Close)
	audited, unaudited := benchRig(b, up, nil), benchRig(b, up, &forgetful{})
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			b.ReportAllocs()
			var with, without time.Duration
			turn := 20 * callers
			for n := 0; n < b.N; n += turn {
				with += makeCalls(b, audited, callers, turn)
				without += makeCalls(b, unaudited, callers, turn)
			}
			b.ReportMetric(without.Seconds()/with.Seconds(), "audited/unaudited")
			b.ReportMetric(float64((b.N+turn-1)/turn*turn)/with.Seconds(), "audited-calls/s")
		})
	}
}

// benchRig is an agent before the yardstick; log nil is the real one.
func benchRig(b *testing.B, up *upstream.Server, log *forgetful) *rig {
	portals := portalsOf(1)
	portals[0].Token = wire.NewToken(upstream.Token(portals[0].ID))
	ca := filepath.Join(b.TempDir(), "ca.pem")
	require.NoError(b, os.WriteFile(ca, up.CAPEM, 0o600))
	return newRig(b, rigOptions{
		portals: portals, quiet: true,
		upstream: func(c *hubspot.UpstreamConfig) { c.BaseURL, c.CAFile = up.URL, ca },
		config: func(c *agent.Config) {
			if log != nil {
				c.Audit = *log
			}
		},
	})
}

// makeCalls makes n calls by so many callers and returns how long it took.
func makeCalls(b *testing.B, r *rig, callers, n int) time.Duration {
	request := []byte("GET /v1/call/client-0" + upstream.Path + " HTTP/1.1\r\nHost: hsagent\r\n\r\n")
	conns := make([]net.Conn, callers)
	for i := range conns {
		var err error
		conns[i], err = net.Dial("unix", r.socket)
		require.NoError(b, err)
		defer conns[i].Close()
	}
	var wg sync.WaitGroup
	began := time.Now()
	for _, c := range conns {
		wg.Go(func() {
			br := bufio.NewReader(c)
			for range n / callers {
				_, err := c.Write(request)
				if !assert.NoError(b, err) {
					return
				}
				resp, err := http.ReadResponse(br, nil)
				if !assert.NoError(b, err) {
					return
				}
				got, err := io.Copy(io.Discard, resp.Body)
				if !assert.NoError(b, err) || !assert.Equal(b, 200, resp.StatusCode) || !assert.EqualValues(b, len(upstream.Body), got) {
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}
