package standing_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/packaging/standing"
	"github.com/hsagent/hsagentd/wire"
)

// records is a log of records that nobody hashed.
type records []chain.Record

func (l records) Records(_ context.Context, _ chain.Filter, fn func(raw []byte, r *chain.Record) error) error {
	for i := range l {
		if err := fn(fmt.Appendf(nil, "%+v", l[i]), &l[i]); err != nil {
			return err
		}
	}
	return nil
}

func (records) Verify(context.Context, func(done, total uint64)) (chain.Report, error) {
	return chain.Report{}, nil
}

// failing is a test that may fail.
type failing struct {
	testing.TB
	said string
}

func (*failing) Helper()                        {}
func (f *failing) Errorf(s string, args ...any) { f.said += fmt.Sprintf(s, args...) }
func (f *failing) FailNow()                     { panic(f) }
func (f *failing) Failed() bool                 { return f.said != "" }
func (f *failing) run(fn func(t testing.TB)) bool {
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(f) {
				panic(p)
			}
		}()
		fn(f)
	}()
	return f.Failed()
}

// whole is a log of two calls of two slugs, and what arrived of them.
func whole() (records, []sandbox.Request) {
	var log records
	var came []sandbox.Request
	for i := range 2 {
		token, first := fmt.Sprintf("f%d", i), uint64(0)
		second := uint64(1)
		in := chain.Record{
			Seq: uint64(2 * i), Kind: chain.CallIntent, ClientSlug: fmt.Sprintf("client-%d", i), PortalID: int64(1000 + i), SlugSeq: &first,
			CallID: fmt.Sprintf("call-%d", i), Attempt: 1, Method: "GET", Path: "/crm/v3/objects/contacts?limit=1", TokenFingerprint: token,
		}
		out := in
		out.Seq, out.Kind, out.SlugSeq, out.StatusCode = in.Seq+1, chain.CallOutcome, &second, 200
		log = append(log, in, out)
		came = append(came, sandbox.Request{PortalID: in.PortalID, TokenFingerprint: token, Method: "GET", Target: in.Path})
	}
	return log, came
}

// Each breach is seen.
func TestBreaches(t *testing.T) {
	tests := []struct {
		name string
		do   func(log records, came []sandbox.Request) (records, []sandbox.Request)
		says string
	}{
		{"none", func(l records, c []sandbox.Request) (records, []sandbox.Request) { return l, c }, ""},
		{"an intent that never left", func(l records, c []sandbox.Request) (records, []sandbox.Request) { return l, c[:1] }, ""},
		{"a gap", func(l records, c []sandbox.Request) (records, []sandbox.Request) { return slices.Delete(l, 1, 2), c }, "a gap in seq"},
		{"a gap within a slug", func(l records, c []sandbox.Request) (records, []sandbox.Request) {
			l[2].SlugSeq = l[1].SlugSeq
			return l, c
		}, "a gap in slugSeq"},
		{"no end", func(l records, c []sandbox.Request) (records, []sandbox.Request) { return l[:3], c }, "intents without an end"},
		{"two ends", func(l records, c []sandbox.Request) (records, []sandbox.Request) {
			l[3].CallID, l[3].ClientSlug = "call-0", ""
			return l, c
		}, "an end without an open intent"},
		{"an attempt twice", func(l records, c []sandbox.Request) (records, []sandbox.Request) {
			l[2].CallID = "call-0"
			return l, c
		}, "two intents of one attempt"},
		{"sent twice", func(l records, c []sandbox.Request) (records, []sandbox.Request) { return l, append(c, c[0]) }, "arrived more often than recorded"},
		{"another path", func(l records, c []sandbox.Request) (records, []sandbox.Request) {
			c[0].Target = "/crm/v3/objects/deals"
			return l, c
		}, "arrived more often than recorded"},
		{"another portal", func(l records, c []sandbox.Request) (records, []sandbox.Request) {
			l[0].PortalID = 1001
			return l, c
		}, "calls with the token f0"},
		{"meant for another portal", func(l records, c []sandbox.Request) (records, []sandbox.Request) {
			c[0].PortalID, l[0].PortalID = 7, 7
			return l, c
		}, "came with another portal's token"},
		{"a token in a record", func(l records, c []sandbox.Request) (records, []sandbox.Request) {
			l[1].Reason = secret
			return l, c
		}, "a token came out"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log, came := tt.do(whole())
			f := &failing{TB: t}
			failed := f.run(func(t testing.TB) {
				seen := standing.Walk(t, log, standing.NewTokens(wire.NewToken(secret)), nil)
				seen.Ended(t)
				seen.Arrived(t, came, func(r *sandbox.Request) int64 {
					if r.TokenFingerprint == "f0" {
						return 1000
					}
					return 0
				})
			})
			require.Equal(t, tt.says != "", failed, f.said)
			require.Contains(t, f.said, tt.says)
		})
	}
}
