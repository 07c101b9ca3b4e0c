package report_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/auditstore/fill"
	"github.com/hsagent/hsagentd/auditstore/report"
	"github.com/hsagent/hsagentd/wire"
)

// records is how many records the generated month has: as many as 20,000 calls
// leave, or REPORT_TEST_RECORDS.
func records(t *testing.T) int {
	if s := os.Getenv("REPORT_TEST_RECORDS"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		return n
	}
	return 41_000
}

// reportOf makes a report of a log as the agent does.
func reportOf(t *testing.T, s *auditstore.Store, o report.Options) *wire.Report {
	t.Helper()
	b := report.New(o)
	require.NoError(t, s.Records(t.Context(), o.Filter(), func(_ []byte, r *chain.Record) error {
		b.Add(r)
		return nil
	}))
	return b.Report(nil)
}

// The figures of a report are those that were counted beside the log, in every
// breakdown, for a month with refusals, repeated attempts, kills, rotations and
// questions of the agent's own in it.
func TestReportFigures(t *testing.T) {
	start := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	s, err := auditstore.Open(t.Context(), auditstore.Config{Dir: t.TempDir(), Actor: "hsagentd/test", MinFree: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	var calls []fill.Call
	events := map[string][]string{}
	n := 0
	require.NoError(t, fill.Generate(fill.Config{Seed: 11, Slugs: 8, Records: records(t), Start: start, End: start.AddDate(0, 1, 0), Kills: 9},
		func(r chain.Record) error {
			if n++; n%4096 == 0 {
				require.NoError(t, s.Flush(t.Context()))
			}
			if r.CallID == "" {
				events[r.ClientSlug] = append(events[r.ClientSlug], eventLine(string(r.Kind), r.TS, r.TokenFingerprint, r.Reason, r.Error))
			}
			return s.AppendLazy(r)
		}, func(c fill.Call) { calls = append(calls, c) }))
	require.NoError(t, s.Flush(t.Context()))

	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	month := report.Options{From: start, To: start.AddDate(0, 1, 0), Zone: time.UTC}
	var all wire.ReportCounts
	tokens := 0
	bySlug := map[string][]fill.Call{}
	for _, c := range calls {
		bySlug[c.Slug] = append(bySlug[c.Slug], c)
	}
	check := func(slug string, o report.Options) *wire.Report {
		o.Slug = slug
		want := newTally()
		in := func(at time.Time) bool { return !at.Before(o.From) && (o.To.IsZero() || at.Before(o.To)) }
		for _, c := range bySlug[slug] {
			if in(c.At) {
				want.add(c, o.Zone)
			}
			want.spend(c, in, o.Zone)
		}
		got := reportOf(t, s, o)
		compare(t, want, got)
		return got
	}
	for slug := range bySlug {
		got := check(slug, month)
		var lines []string
		for _, e := range got.Events {
			lines = append(lines, eventLine(e.Kind, e.TS, e.TokenFingerprint, e.Reason, e.Error))
		}
		require.Equal(t, events[slug], lines)
		plus(&all, got.Totals)
		tokens += len(got.Tokens)
	}
	const quiet = "theta-bv-007"
	for _, o := range []report.Options{
		{From: start.AddDate(0, 0, 9).Add(-2 * time.Hour), To: start.AddDate(0, 0, 11).Add(-2 * time.Hour), Zone: berlin},
		{Zone: berlin}, // all there is
		{From: start.Add(100 * time.Hour), To: start.Add(107*time.Hour + time.Minute), Zone: time.UTC},
	} {
		check(quiet, o)
	}
	require.Positive(t, all.Denied)
	require.Positive(t, all.Interrupted)
	require.Greater(t, all.Attempts, all.Calls)
	require.Greater(t, tokens, len(bySlug), "tokens were rotated")
	t.Logf("%d calls of %d clients, %d errors, %d refused, %d interrupted", all.Calls, len(bySlug), all.Errors, all.Denied, all.Interrupted)

	// What a breach of all the log could have reached.
	want := newTally()
	for _, c := range bySlug[quiet] {
		if !c.Denied && !c.Agent {
			want.add(c, time.UTC)
		}
	}
	got := reportOf(t, s, report.Options{Slug: quiet, Zone: time.UTC, Breach: true})
	require.Len(t, got.Breach.Objects, len(want.breach))
	for _, o := range got.Breach.Objects {
		o.Callers, o.Tokens, o.Paths = nil, nil, nil
		require.Equal(t, *want.breach[[2]string{o.ObjectType, o.ObjectID}], o)
	}

	// Days add up: what is on no day is in no report, and what is on one day
	// is on no other.
	var sum wire.ReportCounts
	for d := range 31 {
		plus(&sum, reportOf(t, s, report.Options{Slug: quiet, From: start.AddDate(0, 0, d), To: start.AddDate(0, 0, d+1), Zone: time.UTC}).Totals)
	}
	month.Slug = quiet
	require.Equal(t, reportOf(t, s, month).Totals, sum)
	require.Equal(t, reportOf(t, s, month), reportOf(t, s, month), "the same log and question give the same report")
}

// eventLine is what an event says, but for its number and caller.
func eventLine(kind string, at wire.Time, more ...string) string {
	return strings.Join(append([]string{kind, at.String()}, more...), " ")
}

// one is a record of a call at a time of the day.
func one(kind chain.Kind, id string, attempt int, clock string, change ...func(*chain.Record)) *chain.Record {
	at, err := time.Parse(time.RFC3339, "2026-10-05T"+clock+"Z")
	if err != nil {
		panic(err)
	}
	r := &chain.Record{Kind: kind, TS: wire.At(at), ClientSlug: "acme", PortalID: 1, CallID: id, Attempt: attempt, Method: "GET",
		Path: "/crm/v3/objects/contacts/7?x=*", ObjectType: "contacts", ObjectID: "7", TokenFingerprint: "aaaaaaaaaaaa",
		Caller: &chain.Caller{UID: 5, User: "ann", Exe: "/bin/x", Unit: "x.service"}}
	if kind == chain.CallOutcome {
		ms, n := int64(10), int64(100)
		r.StatusCode, r.DurationMs, r.RequestBytes, r.ResponseBytes = 200, &ms, &n, &n
	}
	for _, f := range change {
		f(r)
	}
	return r
}

func status(code int) func(*chain.Record) {
	return func(r *chain.Record) { r.StatusCode = code }
}

func build(o report.Options, recs ...*chain.Record) *wire.Report {
	o.Zone = time.UTC
	b := report.New(o)
	for _, r := range recs {
		b.Add(r)
	}
	return b.Report(nil)
}

// A clock that was wrong for a moment takes nothing out of a report: neither
// what came after it, nor that a failed call went on and succeeded.
func TestReportClockJumps(t *testing.T) {
	noon := time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC)
	for _, wrong := range []time.Time{noon.AddDate(10, 0, 0), noon.AddDate(-10, 0, 0)} {
		at := func(r *chain.Record) { r.TS = wire.At(wrong) }
		got := build(report.Options{From: noon, To: noon.Add(time.Hour)},
			one(chain.CallIntent, "before", 1, "12:00:01"),
			one(chain.CallOutcome, "before", 1, "12:00:02", status(503)),
			one(chain.CallIntent, "wrong", 1, "12:00:00", at),
			one(chain.CallOutcome, "wrong", 1, "12:00:00", at, status(500)),
			one(chain.CallIntent, "before", 2, "12:00:03"),
			one(chain.CallOutcome, "before", 2, "12:00:03"),
			one(chain.CallIntent, "after", 1, "12:00:03"),
			one(chain.CallOutcome, "after", 1, "12:00:04", status(503)),
			one(chain.CallIntent, "other", 1, "12:00:05"),
			one(chain.CallOutcome, "other", 1, "12:00:06"),
			one(chain.CallIntent, "after", 2, "12:00:07"),
			one(chain.CallOutcome, "after", 2, "12:00:08"))
		require.Equal(t, int64(3), got.Totals.Calls)
		require.Equal(t, int64(5), got.Totals.Attempts)
		require.Zero(t, got.Totals.Errors)
	}
}

// What lies across the ends of a period is counted on one side alone, and how
// a call ended is what its last attempt says.
func TestReportEdges(t *testing.T) {
	noon := time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC)
	across := []*chain.Record{
		one(chain.CallIntent, "early", 1, "11:59:59"),
		one(chain.CallOutcome, "early", 1, "12:00:01", status(503)),
		one(chain.CallIntent, "early", 2, "12:00:02"),
		one(chain.CallIntent, "inside", 1, "12:59:58"),
		one(chain.CallOutcome, "early", 2, "12:59:59"),
		one(chain.CallOutcome, "inside", 1, "13:00:01", status(429)),
		one(chain.CallIntent, "later", 1, "13:00:02"),
		one(chain.CallIntent, "inside", 2, "13:05:00"),
		one(chain.CallOutcome, "later", 1, "14:00:00"),
		one(chain.CallOutcome, "inside", 2, "14:00:01"),
		one(chain.CallIntent, "much later", 1, "15:00:00", status(500)),
	}
	got := build(report.Options{From: noon, To: noon.Add(time.Hour)}, across...)
	require.Equal(t, wire.ReportCounts{Calls: 1, Attempts: 2, RequestBytes: 200, ResponseBytes: 200}, got.Totals)
	require.Equal(t, []wire.ReportRow{{PortalID: 1, Date: "2026-10-05", Method: "GET", ObjectType: "contacts", CallCount: 1, AvgDurationMs: 20}}, got.Rows)
	require.Empty(t, got.ByCode, "it ended well")
	require.EqualValues(t, 2, got.Quota[0].Used, "both attempts of the hour")
	before := build(report.Options{To: noon}, across...)
	require.Equal(t, wire.ReportCounts{Calls: 1, Attempts: 2, RequestBytes: 200, ResponseBytes: 200}, before.Totals)
	all := build(report.Options{}, across...)
	require.EqualValues(t, 4, all.Totals.Calls)
	require.Zero(t, all.Totals.Errors, "one is under way")
	require.EqualValues(t, 1, all.Objects[0].Uncertain)
	require.Equal(t, "2026-10-05", all.From)

	// A call that is sent again has not failed yet.
	again := []*chain.Record{one(chain.CallIntent, "a", 1, "12:00:00"), one(chain.CallOutcome, "a", 1, "12:00:01", status(429))}
	require.EqualValues(t, 1, build(report.Options{}, again...).Totals.Errors)
	require.Zero(t, build(report.Options{}, append(again, one(chain.CallIntent, "a", 2, "12:00:02"))...).Totals.Errors)

	// A broken answer is an answer; none is an error.
	got = build(report.Options{},
		one(chain.CallIntent, "a", 1, "12:00:00"), one(chain.CallOutcome, "a", 1, "12:00:01", func(r *chain.Record) { r.Error = "client_abort" }),
		one(chain.CallIntent, "b", 1, "12:00:00"), one(chain.CallOutcome, "b", 1, "12:00:01", status(0), func(r *chain.Record) { r.Error = "upstream_timeout" }),
		one(chain.CallIntent, "c", 1, "12:00:00"), one(chain.CallInterrupted, "c", 1, "12:10:01"),
		one(chain.CallDenied, "d", 0, "12:00:00", func(r *chain.Record) { r.Error = "locked" }),
		one(chain.PortalRotated, "", 0, "12:00:00", func(r *chain.Record) { r.CallID = "" }),
	)
	require.Equal(t, wire.ReportCounts{Calls: 3, Attempts: 3, Errors: 2, Denied: 1, Interrupted: 1, RequestBytes: 200, ResponseBytes: 200}, got.Totals)
	require.Equal(t, []wire.ReportCode{{Code: "interrupted", Calls: 1}, {Code: "locked", Calls: 1}, {Code: "upstream_timeout", Calls: 1}}, got.ByCode)
	require.Len(t, got.Events, 1)
}

// A breach report has every call that was under way in the window, what it may
// have reached, and by whom; what HubSpot refused is not in it.
func TestReportBreach(t *testing.T) {
	noon := time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC)
	other := func(r *chain.Record) {
		r.Caller, r.TokenFingerprint = &chain.Caller{UID: 6, Exe: "/bin/y"}, "bbbbbbbbbbbb"
	}
	list := func(r *chain.Record) { r.ObjectID, r.Path = "", "/crm/v3/objects/contacts" }
	form := func(r *chain.Record) {
		r.ObjectType, r.ObjectID, r.Path = "", "", "/marketing/v3/forms?limit=9"
	}
	patch := func(r *chain.Record) { r.Method = "PATCH" }
	got := build(report.Options{From: noon, To: noon.Add(time.Hour), Breach: true},
		one(chain.CallIntent, "over", 1, "11:00:00"), one(chain.CallOutcome, "over", 1, "11:59:59"),
		one(chain.CallIntent, "long", 1, "11:59:00"), one(chain.CallOutcome, "long", 1, "12:00:00"),
		one(chain.CallIntent, "patch", 1, "12:00:00", patch, other), one(chain.CallOutcome, "patch", 1, "12:00:01", patch, other),
		one(chain.CallIntent, "refused", 1, "12:00:00", list), one(chain.CallOutcome, "refused", 1, "12:00:01", list, status(403)),
		one(chain.CallIntent, "list", 1, "12:00:00", list), one(chain.CallOutcome, "list", 1, "12:00:01", list),
		one(chain.CallIntent, "form", 1, "12:00:00", form), one(chain.CallOutcome, "form", 1, "12:00:01", form, status(502)),
		one(chain.CallIntent, "open", 1, "12:59:59", patch), one(chain.CallInterrupted, "open", 1, "18:00:00", patch),
		one(chain.CallIntent, "after", 1, "19:00:00"),
	)
	ms := func(clock string) wire.Time { return one(chain.CallIntent, "", 1, clock).TS }
	require.Equal(t, []wire.BreachObject{
		{ObjectType: "contacts", Reads: 1, ResponseBytes: 100, First: ms("12:00:00"), Last: ms("12:00:01"),
			Callers: []string{"ann x.service /bin/x"}, Tokens: []string{"aaaaaaaaaaaa"}},
		{ObjectType: "contacts", ObjectID: "7", Reads: 1, Changes: 1, Uncertain: 1, ResponseBytes: 200, First: ms("12:00:00"), Last: ms("18:00:00"),
			Callers: []string{"6 /bin/y", "ann x.service /bin/x"}, Tokens: []string{"aaaaaaaaaaaa", "bbbbbbbbbbbb"}},
		{ObjectType: "other", Uncertain: 1, ResponseBytes: 100, First: ms("12:00:00"), Last: ms("12:00:01"),
			Callers: []string{"ann x.service /bin/x"}, Tokens: []string{"aaaaaaaaaaaa"}, Paths: []string{"/marketing/v3/forms"}},
	}, got.Breach.Objects)
}

func TestOperation(t *testing.T) {
	for path, want := range map[string]string{
		"GET /crm/v3/objects/contacts": "read", "HEAD /x": "read", "DELETE /crm/v3/objects/contacts/1": "delete",
		"PATCH /x": "update", "PUT /x": "update", "OPTIONS /x": "other",
		"POST /crm/v3/objects/contacts":                "create",
		"POST /crm/v3/objects/contacts?idProperty=x":   "create",
		"POST /crm/v3/objects/contacts/search":         "search",
		"POST /crm/v3/objects/contacts/batch/read":     "read",
		"POST /crm/v3/objects/contacts/batch/create":   "create",
		"POST /crm/v3/objects/contacts/batch/update/":  "update",
		"POST /crm/v3/objects/contacts/batch/upsert":   "update",
		"POST /crm/v3/objects/contacts/batch/archive":  "delete",
		"POST /crm/v3/objects/contacts/gdpr-delete":    "delete",
		"POST /crm/v3/objects/contacts/merge":          "update",
		"POST /crm/v4/associations/a/b/batch/labels/x": "create",
		"POST ": "create",
	} {
		for i := range path {
			if path[i] == ' ' {
				require.Equal(t, want, report.Operation(path[:i], path[i+1:]), path)
				break
			}
		}
	}
}

// What callers choose cannot grow the report without end, and nothing is lost
// from its sums.
func TestReportBounds(t *testing.T) {
	var recs []*chain.Record
	for i := range 3000 {
		id := strconv.Itoa(i)
		odd := func(r *chain.Record) { r.Reason, r.ObjectType, r.Caller.User = "ticket "+id, "type-"+id, "user"+id }
		recs = append(recs, one(chain.CallIntent, id, 1, "12:00:00", odd), one(chain.CallOutcome, id, 1, "12:00:01", odd))
	}
	got := build(report.Options{}, recs...)
	require.Len(t, got.ByReason, 1001)
	require.Len(t, got.ByObjectType, 1001)
	require.Len(t, got.Callers, 1001)
	sum := int64(0)
	for _, x := range got.ByReason {
		sum += x.Calls
	}
	require.EqualValues(t, 3000, sum)
	require.Equal(t, report.More, got.ByReason[0].Reason)
	require.EqualValues(t, 2000, got.ByReason[0].Calls)
}
