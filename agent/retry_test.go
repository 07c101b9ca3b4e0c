package agent_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

func TestRepeatedCalls(t *testing.T) {
	const read, write, search = "GET /crm/v3/objects/contacts", "POST /crm/v3/objects/contacts", "POST /crm/v3/objects/contacts/search"
	body := map[string]string{write: `{"properties":{"email":"a%d@example.com"}}`, search: `{"limit":1}`}
	tests := []struct {
		name     string
		call     string
		fault    sandbox.Fault
		header   []string
		status   int
		arrivals int
	}{
		{"a burst 429 of a write", write, sandbox.Fault{Status: 429, Times: 1}, nil, 201, 2},
		{"a burst 429 of a read", read, sandbox.Fault{Status: 429, Times: 2}, nil, 200, 3},
		{"a 429 that stays", read, sandbox.Fault{Status: 429}, nil, 429, 4},
		{"a daily 429", read, sandbox.Fault{Status: 429, Policy: "DAILY", Times: 1}, nil, 429, 1},
		{"a lock", write, sandbox.Fault{Status: 423, Times: 1}, nil, 201, 2},
		{"a migration beyond the wait", write, sandbox.Fault{Status: 477, Times: 1}, nil, 477, 1},
		{"a migration within the wait", write, sandbox.Fault{Status: 477, Times: 1, Header: http.Header{"Retry-After": {"1"}}}, nil, 201, 2},
		{"a 503 of a read", read, sandbox.Fault{Status: 503, Times: 1}, nil, 200, 2},
		{"a 502 of a search", search, sandbox.Fault{Status: 502, Times: 1}, nil, 200, 2},
		{"a 502 of a write", write, sandbox.Fault{Status: 502, Times: 1}, nil, 502, 1},
		{"a broken connection of a write", write, sandbox.Fault{DropBefore: true, Times: 1}, nil, 502, 1},
		{"a broken connection of a search", search, sandbox.Fault{DropBefore: true, Times: 1}, nil, 200, 2},
		{"retry off", read, sandbox.Fault{Status: 429, Times: 1}, []string{wire.HeaderRetry, "off"}, 429, 1},
		{"no wait", read, sandbox.Fault{Status: 503, Times: 1}, []string{wire.HeaderWait, "0s"}, 503, 1},
		{"not found", "GET /crm/v3/objects/contacts/1", sandbox.Fault{}, nil, 404, 1},
	}
	portals := portalsOf(len(tests))
	r := newRig(t, rigOptions{portals: portals})
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			slug := portals[i].Slug
			// The portal is confirmed before its requests go wrong.
			require.Equal(t, 200, r.call(slug, "GET", "/crm/v3/objects/companies", nil).status)
			tt.fault.Portal, tt.fault.PathPrefix = portals[i].ID, "/crm/v3/objects/contacts"
			if tt.fault.Status != 0 || tt.fault.DropBefore {
				r.hubspot.AddFault(tt.fault)
			}
			method, path, _ := strings.Cut(tt.call, " ")
			text := body[tt.call]
			if strings.Contains(text, "%d") {
				text = fmt.Sprintf(text, i)
			}
			var got answer
			if text == "" {
				got = r.call(slug, method, path, nil, tt.header...)
			} else {
				got = r.call(slug, method, path, strings.NewReader(text), append(tt.header, "Content-Type", "application/json")...)
			}
			require.NoError(t, got.err)
			require.Equal(t, tt.status, got.status, got.body)

			arrived := 0
			for _, req := range r.hubspot.Requests() {
				if req.PortalID == portals[i].ID && strings.HasPrefix(req.Path, "/crm/v3/objects/contacts") {
					arrived++
				}
			}
			require.Equal(t, tt.arrivals, arrived)
			intents, outcomes := 0, 0
			for _, rec := range r.records(chain.Filter{Slug: slug}) {
				if !strings.HasPrefix(rec.Path, "/crm/v3/objects/contacts") {
					continue
				}
				switch rec.Kind {
				case chain.CallIntent:
					intents++
					require.Equal(t, intents, rec.Attempt)
				case chain.CallOutcome:
					outcomes++
					require.Equal(t, outcomes, rec.Attempt)
				}
			}
			require.Equal(t, tt.arrivals, intents)
			require.Equal(t, tt.arrivals, outcomes)
		})
	}
}

// Where HubSpot closes a kept connection while an intent is written, nothing has
// left: another attempt is made at once, for a write too.
func TestWritesThatNeverLeftAreRepeated(t *testing.T) {
	var r *rig
	r = newRig(t, rigOptions{config: func(c *agent.Config) {
		c.Audit = &tap{Store: c.Audit.(*auditstore.Store), before: func(rec chain.Record) error {
			if rec.Kind == chain.CallIntent && rec.Method == "POST" && rec.Attempt == 1 {
				r.upstream.HangUp()
			}
			return nil
		}}
	}})
	r.ready(3)
	for i := range 100 { // the sandbox may not know yet that a connection is idle
		got := r.call("client-0", "POST", contacts, strings.NewReader(fmt.Sprintf(`{"properties":{"email":"a%d@example.com"}}`, i)), "Content-Type", "application/json")
		require.Equal(t, 201, got.status, got.body)
		require.Len(t, r.came(), i+1, "nothing is sent twice")
		intents := r.records(chain.Filter{CallID: got.header.Get(wire.HeaderCallID), Kind: chain.CallIntent})
		if len(intents) == 2 {
			r.checkLog()
			return
		}
	}
	require.Fail(t, "no connection was closed in time")
}

// An attempt that cannot be recorded is not tried again, whatever the one before
// it met.
func TestUnrecordedAttemptsAreNotRepeated(t *testing.T) {
	var r *rig
	var refused atomic.Int64
	r = newRig(t, rigOptions{config: func(c *agent.Config) {
		c.Audit = &tap{Store: c.Audit.(*auditstore.Store), before: func(rec chain.Record) error {
			switch {
			case rec.Kind != chain.CallIntent || !ofCalls(rec):
			case rec.Attempt == 1:
				r.upstream.HangUp()
			default:
				refused.Add(1)
				return errors.New("no record")
			}
			return nil
		}}
	}})
	r.ready(3)
	for range 100 { // the sandbox may not know yet that a connection is idle
		if got := r.call("client-0", "GET", contacts, nil); got.status != 200 {
			got.refused(t, wire.CodeAuditUnavailable)
			require.EqualValues(t, 1, refused.Load())
			return
		}
	}
	require.Fail(t, "no connection was closed in time")
}
