package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// countColumns are the columns of figures, behind that of a key.
var countColumns = []string{"calls", "attempts", "errors", "denied", "interrupted", "requestBytes", "responseBytes"}

func countCells(key string, n wire.ReportCounts) []cell {
	row := []cell{text(key), text(n.Calls), text(n.Attempts), text(n.Errors), text(n.Denied), text(n.Interrupted), text(n.RequestBytes), text(n.ResponseBytes)}
	if n.Errors > 0 {
		row[3].sgr = yellow
	}
	if n.Interrupted > 0 {
		row[5].sgr = red
	}
	return row
}

// A line is one line of a breakdown.
type line struct {
	key string
	wire.ReportCounts
}

// A breakdown is one part of a report's figures.
type breakdown struct {
	key, title, head string // as a column of a table, as a heading, as a column of a page
	lines            []line
}

// breakdowns are the parts of a report in the order in which they are shown.
func breakdowns(r *wire.Report) []breakdown {
	days := breakdown{"date", "By day", "Day", nil}
	for _, x := range r.ByDay {
		days.lines = append(days.lines, line{x.Date, x.ReportCounts})
	}
	operations := breakdown{"operation", "By operation", "Operation", nil}
	for _, x := range r.ByOperation {
		operations.lines = append(operations.lines, line{x.Operation, x.ReportCounts})
	}
	methods := breakdown{"method", "By method", "Method", nil}
	for _, x := range r.ByMethod {
		methods.lines = append(methods.lines, line{x.Method, x.ReportCounts})
	}
	types := breakdown{"objectType", "By object type", "Object type", nil}
	for _, x := range r.ByObjectType {
		types.lines = append(types.lines, line{x.ObjectType, x.ReportCounts})
	}
	callers := breakdown{"caller", "By caller", "Caller", nil}
	for _, x := range r.ByCaller {
		callers.lines = append(callers.lines, line{x.Caller, x.ReportCounts})
	}
	reasons := breakdown{"reason", "By reason", "Reason", nil}
	for _, x := range r.ByReason {
		key := x.Reason
		if key == "" {
			key = "(none given)"
		}
		reasons.lines = append(reasons.lines, line{key, x.ReportCounts})
	}
	return []breakdown{days, operations, methods, types, callers, reasons}
}

// reportText writes a report for a terminal.
func reportText(w io.Writer, r *wire.Report, colors bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, portal %d: %s\n\n", wire.Printable(r.Slug), r.PortalID, period(r))
	if r.Breach != nil {
		t := &table{header: breachColumns[1 : len(breachColumns)-1]}
		for _, o := range r.Breach.Objects {
			row := breachRow(o)
			if row[1].text == "" {
				row[1].text = "(any)"
			}
			t.rows = append(t.rows, row[:len(row)-1])
		}
		if err := t.write(&b, colors); err != nil {
			return err
		}
		if r.Breach.More > 0 {
			fmt.Fprintf(&b, "and %d calls about further objects\n", r.Breach.More)
		}
		b.WriteByte('\n')
	}
	if err := (&table{header: append([]string{""}, countColumns...), rows: [][]cell{
		countCells("total", r.Totals), countCells("the agent's own", r.AgentRequests),
	}}).write(&b, colors); err != nil {
		return err
	}
	for _, part := range breakdowns(r) {
		t := &table{header: append([]string{part.key}, countColumns...)}
		for _, l := range part.lines {
			t.rows = append(t.rows, countCells(l.key, l.ReportCounts))
		}
		if err := appendTable(&b, t, colors); err != nil {
			return err
		}
	}
	tokens := &table{header: []string{"token", "calls", "first", "last"}}
	for _, k := range r.Tokens {
		tokens.rows = append(tokens.rows, []cell{text(k.Fingerprint), text(k.Calls), moment(&k.First), moment(&k.Last)})
	}
	events := &table{header: []string{"event", "time", "caller", "token", "detail"}}
	for _, x := range r.Events {
		events.rows = append(events.rows, []cell{text(x.Kind), moment(&x.TS), text(x.Caller), text(x.TokenFingerprint), text(x.Reason)})
	}
	for _, t := range []*table{tokens, events} {
		if err := appendTable(&b, t, colors); err != nil {
			return err
		}
	}
	for _, part := range []struct{ title, text string }{
		{"Checkpoint", r.Checkpoint}, {"To check it again (KEY is what hsctl audit key printed)", strings.Join(r.Recheck, "\n")},
	} {
		b.WriteString("\n" + part.title + ":\n")
		for l := range strings.Lines(part.text) {
			b.WriteString(strings.TrimRight("  "+wire.Printable(strings.TrimRight(l, "\n")), " ") + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// appendTable writes a table that has rows, after an empty line.
func appendTable(b *strings.Builder, t *table, colors bool) error {
	if len(t.rows) == 0 {
		return nil
	}
	b.WriteByte('\n')
	return t.write(b, colors)
}

// period says what a report is about.
func period(r *wire.Report) string {
	if r.From == "" {
		return "no records"
	}
	s := wire.Printable(r.From + " to " + r.To)
	if len(r.From) == len("2006-01-02") && len(r.To) == len(r.From) {
		s += " (" + wire.Printable(r.TZ) + ", both days included)"
	}
	return s
}
