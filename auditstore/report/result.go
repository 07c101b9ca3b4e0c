package report

import (
	"cmp"
	"maps"
	"slices"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// Seen reports whether any record lay in the period.
func (b *Builder) Seen() bool { return !b.first.IsZero() }

// Report returns what was counted. first is the oldest record of the client
// that the log still has, or nil. Where the period had no beginning or no end,
// the first or the last record's date stands for it.
func (b *Builder) Report(first *chain.Record) *wire.Report {
	b.unanswered()
	rep := &wire.Report{
		Slug: b.o.Slug, PortalID: b.portalID, TZ: b.o.Zone.String(),
		Totals: b.totals,
		ByDay:  lines(b.days, func(k string, n wire.ReportCounts) wire.ReportDay { return wire.ReportDay{Date: k, ReportCounts: n} }),
		ByMethod: lines(b.methods, func(k string, n wire.ReportCounts) wire.ReportMethod {
			return wire.ReportMethod{Method: k, ReportCounts: n}
		}),
		ByObjectType: lines(b.types, func(k string, n wire.ReportCounts) wire.ReportType {
			return wire.ReportType{ObjectType: k, ReportCounts: n}
		}),
		ByCaller: lines(b.callers, func(k string, n wire.ReportCounts) wire.ReportCaller {
			return wire.ReportCaller{Caller: k, ReportCounts: n}
		}),
		ByReason: lines(b.reasons, func(k string, n wire.ReportCounts) wire.ReportReason {
			return wire.ReportReason{Reason: k, ReportCounts: n}
		}),
		ByOperation: lines(b.operations, func(k string, n wire.ReportCounts) wire.ReportOperation {
			return wire.ReportOperation{Operation: k, ReportCounts: n}
		}),
		ByCode:        b.byCode(),
		Rows:          b.rowList(),
		Tokens:        b.tokenList(),
		Quota:         []wire.ReportQuota{},
		Events:        append([]wire.ReportEvent{}, b.events...),
		Callers:       b.processList(),
		Objects:       []wire.ReportObjects{},
		AgentRequests: b.agent,
	}
	if b.Seen() {
		rep.From, rep.To = b.date(b.first), b.date(b.last)
	}
	for _, date := range sortedKeys(b.quota) {
		rep.Quota = append(rep.Quota, *b.quota[date])
	}
	for _, kind := range sortedKeys(b.objects.types) {
		rep.Objects = append(rep.Objects, *b.objects.types[kind])
	}
	if b.o.Breach {
		rep.Breach = b.breach.report()
	}
	rep.Article30 = article30(rep, first)
	return rep
}

// unanswered counts the calls whose attempt has no outcome yet: they may have
// been carried out.
func (b *Builder) unanswered() {
	for _, id := range sortedKeys(b.live) {
		c := b.live[id]
		if !c.open || c.agent || c.effect != nil {
			continue
		}
		b.effect(c, &chain.Record{TS: wire.At(b.at)}, 0)
	}
}

func (b *Builder) byCode() []wire.ReportCode {
	out := []wire.ReportCode{}
	for _, code := range sortedKeys(b.codes) {
		if n := b.codes[code]; n > 0 {
			out = append(out, wire.ReportCode{Code: code, Calls: n})
		}
	}
	return out
}

func (b *Builder) rowList() []wire.ReportRow {
	out := []wire.ReportRow{}
	for k, r := range b.rows {
		row := wire.ReportRow{ClientSlug: b.o.Slug, PortalID: k.portalID, Date: k.date, Method: k.method, ObjectType: k.kind,
			CallCount: r.calls, ErrorCount: r.errors}
		if r.timed > 0 {
			row.AvgDurationMs = (r.ms + r.timed/2) / r.timed
		}
		out = append(out, row)
	}
	slices.SortFunc(out, func(x, y wire.ReportRow) int {
		return cmp.Or(cmp.Compare(x.PortalID, y.PortalID), cmp.Compare(x.Date, y.Date), cmp.Compare(x.Method, y.Method), cmp.Compare(x.ObjectType, y.ObjectType))
	})
	return out
}

func (b *Builder) tokenList() []wire.ReportToken {
	out := []wire.ReportToken{}
	for _, t := range b.tokens {
		out = append(out, *t)
	}
	slices.SortFunc(out, func(x, y wire.ReportToken) int {
		return cmp.Or(x.First.Compare(y.First.Time), cmp.Compare(x.Fingerprint, y.Fingerprint))
	})
	return out
}

func (b *Builder) processList() []wire.ReportProcess {
	keys := slices.SortedFunc(maps.Keys(b.processes.lines), func(x, y chain.Caller) int {
		return cmp.Or(cmp.Compare(x.UID, y.UID), cmp.Compare(x.User, y.User), cmp.Compare(x.Unit, y.Unit), cmp.Compare(x.Exe, y.Exe))
	})
	out := []wire.ReportProcess{}
	for _, k := range keys {
		out = append(out, wire.ReportProcess{UID: k.UID, User: k.User, Exe: k.Exe, Unit: k.Unit, ReportCounts: *b.processes.lines[k]})
	}
	return out
}

// categories describe what HubSpot keeps in its own object types.
var categories = map[string]string{
	"contacts":  "persons: names, e-mail addresses, telephone numbers, marketing data",
	"companies": "organisations, and who belongs to them",
	"deals":     "business transactions and their stages",
	"tickets":   "requests for support and their course",
	"owners":    "users of the portal",
	"lists":     "which persons or organisations are on which list",
	"imports":   "files of records brought in",
	"exports":   "files of records taken out",

	"properties": "names of fields: no personal data",
	"pipelines":  "names of stages: no personal data",
	"schemas":    "names of object types: no personal data",
	other:        "of no known object type: see the paths in the log",
}

// article30 takes out of a report what belongs into a record of processing.
func article30(rep *wire.Report, first *chain.Record) wire.ReportArticle30 {
	out := wire.ReportArticle30{
		Purposes: []wire.ReportPurpose{}, Categories: []wire.ReportCategory{}, Recipients: []wire.ReportRecipient{},
	}
	for _, r := range rep.ByReason {
		switch {
		case r.Reason == "":
			out.WithoutReason = r.Calls
		case r.Calls > 0:
			out.Purposes = append(out.Purposes, wire.ReportPurpose{Reason: r.Reason, Calls: r.Calls})
		}
	}
	for _, o := range rep.Objects {
		text, ok := categories[o.ObjectType]
		if !ok {
			text = "a custom or other object type of the portal"
		}
		out.Categories = append(out.Categories, wire.ReportCategory{ObjectType: o.ObjectType, Description: text, Reads: o.Reads, Changes: o.Changes})
	}
	for _, p := range rep.Callers {
		if p.ResponseBytes > 0 {
			name := (&chain.Caller{UID: p.UID, User: p.User}).Name()
			out.Recipients = append(out.Recipients, wire.ReportRecipient{Caller: name, Exe: p.Exe, Unit: p.Unit, ResponseBytes: p.ResponseBytes})
		}
	}
	if first != nil {
		ts := first.TS
		out.Retention.FirstRecord = &ts
		if first.SlugSeq != nil {
			out.Retention.Erased = int64(*first.SlugSeq) //nolint:gosec // far below
		}
	}
	return out
}

// Recheck are the commands that prove a report: that the log is whole, and
// what the client can check for itself.
func Recheck(slug string) []string {
	return []string{
		"hsctl audit verify",
		"hsctl audit export --slug " + slug + " --proofs -O " + slug + ".jsonl",
		"hsctl audit verify " + slug + ".jsonl --key KEY",
	}
}
