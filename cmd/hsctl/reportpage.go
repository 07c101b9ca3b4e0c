package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// begin writes what stands before a page's own content.
func (p *htmlPage) begin(title string) {
	sum := sha256.Sum256([]byte(pageStyle))
	p.put(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-%'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>%</title>
<style>%</style>
</head>
<body>
<main>
`, base64.StdEncoding.EncodeToString(sum[:]), title, markup(pageStyle))
}

func (p *htmlPage) end() string {
	p.put("</main>\n</body>\n</html>\n")
	return p.b.String()
}

// reportPage is a report as one page that needs nothing else.
func reportPage(r *wire.Report) string {
	p := new(htmlPage)
	title := "HubSpot calls for " + r.Slug
	if r.Breach != nil {
		title = "What could have been reached: " + r.Slug
	}
	p.begin(title + ", " + period(r))
	p.put("<h1>%</h1>\n<p class=\"dim\">Portal %. %.</p>\n", title, markup(text(r.PortalID).text), period(r))
	if r.Breach != nil {
		p.breach(r)
	}
	p.tiles(r)
	p.days(r)
	for _, part := range breakdowns(r)[1:] {
		p.part(part)
	}
	p.codes(r)
	p.objects(r)
	p.tokens(r)
	p.article30(r)
	p.evidence(r)
	return p.end()
}

func (p *htmlPage) tiles(r *wire.Report) {
	p.put("<dl class=\"tiles\">\n")
	for _, x := range []struct {
		name  string
		value any
	}{
		{"Calls", r.Totals.Calls}, {"Errors", r.Totals.Errors}, {"Refused", r.Totals.Denied}, {"Interrupted", r.Totals.Interrupted},
		{"Sent", size(r.Totals.RequestBytes)}, {"Received", size(r.Totals.ResponseBytes)},
	} {
		p.put("<div><dt>%</dt><dd>%</dd></div>\n", x.name, x.value)
	}
	p.put("</dl>\n")
	if r.Totals.Calls+r.Totals.Denied == 0 {
		p.put("<p>No calls were made for this client in this period.</p>\n")
	}
}

// head writes the beginning of a table; a name that starts with # is that of a
// column of figures, one with ? is left out on a narrow screen.
func (p *htmlPage) head(columns ...string) {
	p.put("<div class=\"wrap\"><table>\n<thead><tr>")
	for _, c := range columns {
		p.put("<th scope=\"col\"%>%</th>", classOf(c), strings.TrimLeft(c, "#?|"))
	}
	p.put("</tr></thead>\n<tbody>\n")
}

func classOf(column string) markup {
	switch marks := column[:len(column)-len(strings.TrimLeft(column, "#?|"))]; marks {
	case "#":
		return ` class="n"`
	case "?":
		return ` class="opt"`
	case "#?":
		return ` class="n opt"`
	case "|":
		return ` class="t"`
	}
	return ""
}

func (p *htmlPage) foot() { p.put("</tbody></table></div>\n") }

// maxLines is how many lines of a breakdown are shown by themselves.
const maxLines = 20

// part writes a breakdown, its busiest lines first.
func (p *htmlPage) part(b breakdown) {
	if len(b.lines) == 0 {
		return
	}
	lines := slices.Clone(b.lines)
	slices.SortStableFunc(lines, func(x, y line) int { return cmp.Or(cmp.Compare(y.Calls, x.Calls), cmp.Compare(y.Denied, x.Denied)) })
	if len(lines) > maxLines {
		rest := line{key: "all others"}
		for _, l := range lines[maxLines-1:] {
			add(&rest.ReportCounts, l.ReportCounts)
		}
		lines = append(lines[:maxLines-1:maxLines-1], rest)
	}
	most := int64(1)
	for _, l := range lines {
		most = max(most, l.Calls)
	}
	p.put("<h2>%</h2>\n", b.title)
	p.head(b.head, "", "#Calls", "#Errors", "#?Refused", "#?Sent", "#?Received")
	for _, l := range lines {
		p.put("<tr><td>%</td><td class=\"bar\">%</td><td class=\"n\">%</td><td class=\"n\">%</td><td class=\"n opt\">%</td><td class=\"n opt\">%</td><td class=\"n opt\">%</td></tr>\n",
			l.key, bar(l.Calls, l.Errors, most), l.Calls, l.Errors, l.Denied, size(l.RequestBytes), size(l.ResponseBytes))
	}
	p.foot()
}

func add(sum *wire.ReportCounts, n wire.ReportCounts) {
	sum.Calls += n.Calls
	sum.Attempts += n.Attempts
	sum.Errors += n.Errors
	sum.Denied += n.Denied
	sum.Interrupted += n.Interrupted
	sum.RequestBytes += n.RequestBytes
	sum.ResponseBytes += n.ResponseBytes
}

// days writes the chart and the table of days.
func (p *htmlPage) days(r *wire.Report) {
	if len(r.ByDay)+len(r.Quota) == 0 {
		return
	}
	counts, quota := map[string]wire.ReportCounts{}, map[string]wire.ReportQuota{}
	var dates []string
	for _, d := range r.ByDay {
		counts[d.Date] = d.ReportCounts
		dates = append(dates, d.Date)
	}
	for _, d := range r.Quota {
		quota[d.Date] = d
		if _, ok := counts[d.Date]; !ok {
			dates = append(dates, d.Date)
		}
	}
	slices.Sort(dates)
	p.put("<h2>By day</h2>\n")
	p.dayChart(calendar(r, dates), counts)
	p.head("|Day", "#Calls", "#Errors", "#Refused", "#?Sent", "#?Received", "#?Quota used", "#?Least left")
	for _, date := range dates {
		n, q := counts[date], quota[date]
		left := ""
		if q.Remaining != nil {
			left = grouped(*q.Remaining)
		}
		p.put("<tr><td class=\"t\">%</td><td class=\"n\">%</td><td class=\"n\">%</td><td class=\"n\">%</td><td class=\"n opt\">%</td><td class=\"n opt\">%</td><td class=\"n opt\">%</td><td class=\"n opt\">%</td></tr>\n",
			date, n.Calls, n.Errors, n.Denied, size(n.RequestBytes), size(n.ResponseBytes), q.Used, left)
	}
	p.foot()
	p.put("<p><small>Quota used counts attempts, those of the agent's own % requests among them. Least left is the lowest figure of HubSpot's, for all apps of the account.</small></p>\n",
		r.AgentRequests.Calls)
}

// calendar is every day of the period, if it is not too long for a chart.
func calendar(r *wire.Report, dates []string) []string {
	from, err1 := time.Parse(time.DateOnly, r.From)
	to, err2 := time.Parse(time.DateOnly, r.To)
	if err1 != nil || err2 != nil || to.Sub(from) > 400*24*time.Hour {
		return dates
	}
	var out []string
	for ; !from.After(to); from = from.AddDate(0, 0, 1) {
		out = append(out, from.Format(time.DateOnly))
	}
	return out
}

func (p *htmlPage) codes(r *wire.Report) {
	if len(r.ByCode) == 0 {
		return
	}
	p.put("<h2>Errors and refusals</h2>\n")
	p.head("Code", "#Calls")
	for _, c := range r.ByCode {
		p.put("<tr><td>%</td><td class=\"n\">%</td></tr>\n", c.Code, c.Calls)
	}
	p.foot()
	p.put("<p><small>A number is the status of HubSpot's last answer. Words are the agent's own codes: it refused the call, or had no answer for it. An interrupted call was under way when the agent ended, and may have been carried out.</small></p>\n")
}

func (p *htmlPage) objects(r *wire.Report) {
	if len(r.Objects) == 0 {
		return
	}
	p.put("<h2>Objects touched</h2>\n")
	p.head("Object type", "#Objects named", "#Reads", "#Changes", "#Uncertain")
	for _, o := range r.Objects {
		named := markup(grouped(o.Named))
		if o.More {
			named = "over " + named
		}
		p.put("<tr><td>%</td><td class=\"n\">%</td><td class=\"n\">%</td><td class=\"n\">%</td><td class=\"n\">%</td></tr>\n", o.ObjectType, named, o.Reads, o.Changes, o.Uncertain)
	}
	p.foot()
	p.put("<p><small>Lists, searches and batches name no objects in their path. Uncertain calls had no answer, or a 5xx: they may have been carried out.</small></p>\n")
}

func (p *htmlPage) tokens(r *wire.Report) {
	if len(r.Tokens) > 0 {
		p.put("<h2>Tokens in use</h2>\n")
		p.head("Fingerprint", "#Calls", "|First call (UTC)", "|Last call (UTC)")
		for _, k := range r.Tokens {
			p.put("<tr><td><code>%</code></td><td class=\"n\">%</td><td class=\"t\">%</td><td class=\"t\">%</td></tr>\n", k.Fingerprint, k.Calls, clock(k.First), clock(k.Last))
		}
		p.foot()
	}
	if len(r.Events) > 0 {
		p.put("<h2>Events</h2>\n")
		p.head("|Time (UTC)", "Event", "Caller", "?Token", "?Detail")
		for _, x := range r.Events {
			p.put("<tr><td class=\"t\">%</td><td>%</td><td>%</td><td class=\"opt\"><code>%</code></td><td class=\"opt\">%</td></tr>\n",
				clock(x.TS), strings.TrimPrefix(x.Kind, "portal."), x.Caller, x.TokenFingerprint, x.Reason)
		}
		p.foot()
	}
}

func clock(t wire.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

func (p *htmlPage) article30(r *wire.Report) {
	a := r.Article30
	p.put("<h2>For the record of processing (GDPR, Article 30)</h2>\n<p>What the log proves; it says nothing of contracts or legal bases beyond the reasons that callers gave.</p>\n")
	p.head("Purpose given", "#Calls")
	for _, x := range a.Purposes {
		p.put("<tr><td>%</td><td class=\"n\">%</td></tr>\n", x.Reason, x.Calls)
	}
	p.put("<tr><td class=\"dim\">no purpose given</td><td class=\"n\">%</td></tr>\n", a.WithoutReason)
	p.foot()
	if len(a.Categories) > 0 {
		p.head("Category of data", "What it holds", "#Reads", "#Changes")
		for _, x := range a.Categories {
			p.put("<tr><td>%</td><td>%</td><td class=\"n\">%</td><td class=\"n\">%</td></tr>\n", x.ObjectType, x.Description, x.Reads, x.Changes)
		}
		p.foot()
	}
	if len(a.Recipients) > 0 {
		p.head("Recipient of answers", "Program", "Unit", "#Received")
		for _, x := range a.Recipients {
			p.put("<tr><td>%</td><td>%</td><td>%</td><td class=\"n\">%</td></tr>\n", x.Caller, x.Exe, x.Unit, size(x.ResponseBytes))
		}
		p.foot()
	}
	if first := a.Retention.FirstRecord; first != nil {
		p.put("<p>Retention: the oldest record of this client that the log keeps is of % UTC", clock(*first))
		if a.Retention.Erased > 0 {
			p.put("; % before it were erased", a.Retention.Erased)
		}
		p.put(".</p>\n")
	}
}

func (p *htmlPage) evidence(r *wire.Report) {
	p.put("<h2>Evidence</h2>\n")
	if r.Checkpoint == "" {
		p.put("<p>This report was made without a checkpoint: the agent could not sign one.</p>\n")
		return
	}
	p.put("<p>This checkpoint covers every record that the report was made from. Whoever holds it can tell whether the log was changed since:</p>\n<pre>%</pre>\n", preformatted(r.Checkpoint))
	p.put("<p>To check it again, with the log's public key (<code>hsctl audit key</code>):</p>\n<pre>%</pre>\n", preformatted(strings.Join(r.Recheck, "\n")))
	p.put("<p><small>Calls are counted once, on the day of their first attempt, whatever the number of attempts. Errors are calls that ended with a status of 400 or more, or without an answer. Refused calls were stopped by the agent: nothing left.</small></p>\n")
}

// preformatted is text whose lines stay.
func preformatted(s string) markup {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range lines {
		lines[i] = escapeHTML(lines[i])
	}
	return markup(strings.Join(lines, "\n"))
}

func (p *htmlPage) breach(r *wire.Report) {
	p.put("<p>Every call that was under way in this window, save those that HubSpot refused. Uncertain ones had no answer, or a 5xx: they may have been carried out. Where no object is named, the call was a list, a search or a batch: it may have reached any object of that type.</p>\n")
	if len(r.Breach.Objects) == 0 {
		p.put("<p><strong>Nothing was reached.</strong></p>\n")
		return
	}
	p.head("Object type", "Object", "#Reads", "#Changes", "#Uncertain", "|First (UTC)", "|Last (UTC)", "By", "Token")
	for _, o := range r.Breach.Objects {
		id := markup("any")
		if o.ObjectID != "" {
			id = markup(escapeHTML(o.ObjectID))
		}
		kind := escapeHTML(o.ObjectType)
		for _, path := range o.Paths {
			kind += "<br><small>" + escapeHTML(path) + "</small>"
		}
		p.put("<tr><td>%</td><td>%</td><td class=\"n\">%</td><td class=\"n\">%</td><td class=\"n\">%</td><td class=\"t\">%</td><td class=\"t\">%</td><td>%</td><td><code>%</code></td></tr>\n",
			markup(kind), id, o.Reads, o.Changes, o.Uncertain, clock(o.First), clock(o.Last), strings.Join(o.Callers, "; "), strings.Join(o.Tokens, " "))
	}
	p.foot()
	if r.Breach.More > 0 {
		p.put("<p>And % calls about further objects.</p>\n", r.Breach.More)
	}
}

// indexPage lists the reports of a directory; one tells the period.
func indexPage(one *wire.Report, entries []indexEntry) string {
	p := new(htmlPage)
	p.begin("HubSpot calls by client, " + period(one))
	p.put("<h1>HubSpot calls by client</h1>\n<p class=\"dim\">%.</p>\n", period(one))
	most := int64(1)
	for _, x := range entries {
		most = max(most, x.Totals.Calls)
	}
	p.head("Client", "", "?Portal", "#Calls", "#Errors", "#?Refused", "#?Interrupted", "#?Received")
	for _, x := range entries {
		p.put("<tr><td><a href=\"%\">%</a></td><td class=\"bar\">%</td><td class=\"opt\">%</td><td class=\"n\">%</td><td class=\"n\">%</td><td class=\"n opt\">%</td><td class=\"n opt\">%</td><td class=\"n opt\">%</td></tr>\n",
			x.File, x.Slug, bar(x.Totals.Calls, x.Totals.Errors, most), markup(text(x.PortalID).text), x.Totals.Calls, x.Totals.Errors, x.Totals.Denied, x.Totals.Interrupted, size(x.Totals.ResponseBytes))
	}
	p.foot()
	return p.end()
}
