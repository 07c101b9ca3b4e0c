package report_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/auditstore/fill"
	"github.com/hsagent/hsagentd/wire"
)

// A tally counts calls by what the generator says became of them: not one of
// its figures comes from a record.
type tally struct {
	totals                                                wire.ReportCounts
	day, method, kind, caller, reason, operation, process map[string]wire.ReportCounts
	agent                                                 wire.ReportCounts
	rows                                                  map[string][3]int64 // calls, errors, average
	rowMs                                                 map[string][2]int64
	codes                                                 map[string]int64
	tokens                                                map[string]*wire.ReportToken
	quota                                                 map[string]*wire.ReportQuota
	objects                                               map[string]*wire.ReportObjects
	named                                                 map[[2]string]bool
	breach                                                map[[2]string]*wire.BreachObject
}

func newTally() *tally {
	m := func() map[string]wire.ReportCounts { return map[string]wire.ReportCounts{} }
	return &tally{day: m(), method: m(), kind: m(), caller: m(), reason: m(), operation: m(), process: m(),
		rows: map[string][3]int64{}, rowMs: map[string][2]int64{}, codes: map[string]int64{},
		tokens: map[string]*wire.ReportToken{}, quota: map[string]*wire.ReportQuota{},
		objects: map[string]*wire.ReportObjects{}, named: map[[2]string]bool{}, breach: map[[2]string]*wire.BreachObject{}}
}

// add counts a call that began in the period.
func (c *tally) add(call fill.Call, zone *time.Location) {
	n := wire.ReportCounts{Attempts: int64(call.Attempts), RequestBytes: call.RequestBytes, ResponseBytes: call.ResponseBytes}
	switch {
	case call.Denied:
		n.Denied = 1
	default:
		n.Calls = 1
		if call.Failed() {
			n.Errors = 1
		}
		if call.Interrupted {
			n.Interrupted = 1
		}
	}
	if call.Agent {
		plus(&c.agent, n)
		return
	}
	plus(&c.totals, n)
	date, kind := call.At.In(zone).Format(time.DateOnly), call.ObjectType
	if kind == "" {
		kind = "other"
	}
	user := call.Caller.User
	if user == "" {
		user = strconv.Itoa(call.Caller.UID)
	}
	for at, m := range map[string]map[string]wire.ReportCounts{
		date: c.day, call.Method: c.method, kind: c.kind, user: c.caller, "reason:" + call.Reason: c.reason, call.Operation: c.operation,
		call.Caller.Exe + call.Caller.Unit + user: c.process,
	} {
		sum := m[at]
		plus(&sum, n)
		m[at] = sum
	}
	switch {
	case call.Code != "":
		c.codes[call.Code]++
	case call.Failed():
		c.codes[strconv.Itoa(call.Status)]++
	}
	if call.Denied {
		return
	}
	token := c.tokens[call.Token]
	if token == nil {
		token = &wire.ReportToken{Fingerprint: call.Token, First: wire.At(call.At)}
		c.tokens[call.Token] = token
	}
	token.Calls++
	token.Last = wire.At(call.At)
	key := date + " " + call.Method + " " + kind
	row, ms := c.rows[key], c.rowMs[key]
	row[0]++
	row[1] += n.Errors
	if call.Timed {
		ms[0]++
		ms[1] += call.DurationMs
		row[2] = int64(float64(ms[1])/float64(ms[0]) + 0.5)
	}
	c.rows[key], c.rowMs[key] = row, ms
	c.touch(call, kind)
}

// touch counts what the call's last attempt did to the portal's objects, and
// what each of them could have done.
func (c *tally) touch(call fill.Call, kind string) {
	changes := call.Operation == "create" || call.Operation == "update" || call.Operation == "delete"
	if call.Status < 400 || call.Status >= 500 {
		o := c.objects[kind]
		if o == nil {
			o = &wire.ReportObjects{ObjectType: kind}
			c.objects[kind] = o
		}
		switch {
		case call.Status == 0 || call.Status >= 500:
			o.Uncertain++
		case changes:
			o.Changes++
		default:
			o.Reads++
		}
		if id := [2]string{kind, call.ObjectID}; call.ObjectID != "" && !c.named[id] {
			c.named[id] = true
			o.Named++
		}
	}
	for _, try := range call.Tries {
		if try.Status >= 400 && try.Status < 500 {
			continue
		}
		o := c.breach[[2]string{kind, call.ObjectID}]
		if o == nil {
			o = &wire.BreachObject{ObjectType: kind, ObjectID: call.ObjectID, First: wire.At(call.At)}
			c.breach[[2]string{kind, call.ObjectID}] = o
		}
		switch {
		case try.Status == 0 || try.Status >= 500:
			o.Uncertain++
		case changes:
			o.Changes++
		default:
			o.Reads++
		}
		o.ResponseBytes += try.Bytes
		if try.Ended.After(o.Last.Time) {
			o.Last = wire.At(try.Ended)
		}
	}
}

// spend counts what a call took of the portal's quota in the period, whenever
// it began.
func (c *tally) spend(call fill.Call, in func(time.Time) bool, zone *time.Location) {
	day := func(at time.Time) *wire.ReportQuota {
		date := at.In(zone).Format(time.DateOnly)
		if c.quota[date] == nil {
			c.quota[date] = &wire.ReportQuota{Date: date}
		}
		return c.quota[date]
	}
	for _, try := range call.Tries {
		if in(try.Sent) {
			day(try.Sent).Used++
		}
		if try.Left != nil && in(try.Ended) {
			if d := day(try.Ended); d.Remaining == nil || *d.Remaining > *try.Left {
				d.Remaining = try.Left
			}
		}
	}
}

func plus(sum *wire.ReportCounts, n wire.ReportCounts) {
	sum.Calls += n.Calls
	sum.Attempts += n.Attempts
	sum.Errors += n.Errors
	sum.Denied += n.Denied
	sum.Interrupted += n.Interrupted
	sum.RequestBytes += n.RequestBytes
	sum.ResponseBytes += n.ResponseBytes
}

func compare(t *testing.T, want *tally, got *wire.Report) {
	t.Helper()
	require.Equal(t, want.totals, got.Totals)
	require.Equal(t, want.agent, got.AgentRequests)
	day, method, kind, caller := map[string]wire.ReportCounts{}, map[string]wire.ReportCounts{}, map[string]wire.ReportCounts{}, map[string]wire.ReportCounts{}
	reason, process := map[string]wire.ReportCounts{}, map[string]wire.ReportCounts{}
	for _, x := range got.ByDay {
		day[x.Date] = x.ReportCounts
	}
	for _, x := range got.ByMethod {
		method[x.Method] = x.ReportCounts
	}
	for _, x := range got.ByObjectType {
		kind[x.ObjectType] = x.ReportCounts
	}
	for _, x := range got.ByCaller {
		caller[x.Caller] = x.ReportCounts
	}
	for _, x := range got.ByReason {
		reason["reason:"+x.Reason] = x.ReportCounts
	}
	for _, x := range got.Callers {
		user := x.User
		if user == "" {
			user = strconv.Itoa(x.UID)
		}
		process[x.Exe+x.Unit+user] = x.ReportCounts
	}
	require.Equal(t, want.day, day)
	require.Equal(t, want.method, method)
	require.Equal(t, want.kind, kind)
	require.Equal(t, want.caller, caller)
	require.Equal(t, want.reason, reason)
	require.Equal(t, want.process, process)
	operation := map[string]wire.ReportCounts{}
	for _, x := range got.ByOperation {
		operation[x.Operation] = x.ReportCounts
	}
	require.Equal(t, want.operation, operation)
	rows := map[string][3]int64{}
	for _, r := range got.Rows {
		rows[r.Date+" "+r.Method+" "+r.ObjectType] = [3]int64{r.CallCount, r.ErrorCount, r.AvgDurationMs}
	}
	require.Equal(t, want.rows, rows)
	codes, tokens := map[string]int64{}, map[string]*wire.ReportToken{}
	for _, x := range got.ByCode {
		codes[x.Code] = x.Calls
	}
	for _, x := range got.Tokens {
		tokens[x.Fingerprint] = &x
	}
	require.Equal(t, want.codes, codes)
	require.Equal(t, want.tokens, tokens)
	quota, objects := map[string]*wire.ReportQuota{}, map[string]*wire.ReportObjects{}
	for _, x := range got.Quota {
		quota[x.Date] = &x
	}
	for _, x := range got.Objects {
		objects[x.ObjectType] = &x
	}
	require.Equal(t, want.quota, quota)
	require.Equal(t, want.objects, objects)
	compareArticle30(t, want, got.Article30)
}

func compareArticle30(t *testing.T, want *tally, got wire.ReportArticle30) {
	t.Helper()
	purposes, recipients := map[string]int64{}, map[string]int64{}
	for reason, n := range want.reason {
		if reason != "reason:" && n.Calls > 0 {
			purposes[reason] = n.Calls
		}
	}
	for process, n := range want.process {
		if n.ResponseBytes > 0 {
			recipients[process] = n.ResponseBytes
		}
	}
	require.Equal(t, want.reason["reason:"].Calls, got.WithoutReason)
	for _, x := range got.Purposes {
		require.Equal(t, purposes["reason:"+x.Reason], x.Calls)
	}
	for _, x := range got.Recipients {
		require.Equal(t, recipients[x.Exe+x.Unit+x.Caller], x.ResponseBytes)
	}
	for _, x := range got.Categories {
		o := want.objects[x.ObjectType]
		require.Equal(t, [2]int64{o.Reads, o.Changes}, [2]int64{x.Reads, x.Changes})
	}
	require.Equal(t, []int{len(purposes), len(recipients), len(want.objects)}, []int{len(got.Purposes), len(got.Recipients), len(got.Categories)})
}
