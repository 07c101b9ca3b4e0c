package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// of compares a figure of two peers round by round and takes the median, so
// that a slow minute of the machine meets both.
func (r *report) of(a, b *row, get func(a, b measure) float64) (float64, bool) {
	if a == nil || b == nil {
		return 0, false
	}
	v := make([]float64, 0, len(a.Rounds))
	for i := range min(len(a.Rounds), len(b.Rounds)) {
		v = append(v, get(a.Rounds[i], b.Rounds[i]))
	}
	return middle(v), len(v) > 0
}

// judgePeers works out the targets that this bench can tell of.
func (r *report) judgePeers() {
	rps := func(a, b measure) float64 { return a.RPS / b.RPS }
	cpu := func(a, b measure) float64 { return a.CPU / b.CPU }
	p50 := func(a, b measure) float64 { return a.P50 - b.P50 }
	p99 := func(a, b measure) float64 { return a.P99 - b.P99 }
	ours := func(conns int, slow bool) *row { return r.row(hsagentd, conns, slow) }
	for _, j := range []struct {
		target, what string
		a, b         *row
		get          func(a, b measure) float64
		unit         float64 // of the figure
		least        bool
		want         float64
	}{
		{"T1", "calls/s at 64 connections / nginx", ours(64, false), r.row(nginx, 64, false), rps, 1, true, 0.6},
		{"T2", "calls/s at 64 connections / ReverseProxy", ours(64, false), r.row(proxy, 64, false), rps, 1, true, 12},
		{"T2", "calls/s at 64 connections / ReverseProxy tuned", ours(64, false), r.row(tuned, 64, false), rps, 1, true, 1.2},
		{"T4", "p50 at 1 connection over nginx's, in fdatasyncs", ours(1, false), r.row(nginx, 1, false), p50, r.Fdatasync, false, 2},
		{"T5", "upstream of 50 ms, 1 connection: p50 over direct, ms", ours(1, true), r.row(direct, 1, true), p50, 1000, false, 1},
		{"T5", "upstream of 50 ms, 64 connections: p99 over direct, ms", ours(64, true), r.row(direct, 64, true), p99, 1000, false, 4},
		{"T6", "CPU per call at 64 connections / nginx", ours(64, false), r.row(nginx, 64, false), cpu, 1, false, 2.2},
		{"", "calls/s at 16 connections / nginx", ours(16, false), r.row(nginx, 16, false), rps, 1, true, math.NaN()},
		{"", "calls/s at 1 connection / nginx", ours(1, false), r.row(nginx, 1, false), rps, 1, true, math.NaN()},
	} {
		if got, ok := r.of(j.a, j.b, j.get); ok {
			r.judge(j.target, j.what, got/j.unit, j.least, j.want)
		}
	}
}

// judge adds a ratio. Without a number that is wanted it is only shown.
func (r *report) judge(target, what string, got float64, least bool, want float64) {
	x := ratio{Target: target, What: what, Got: math.Round(got*1000) / 1000}
	switch {
	case math.IsNaN(want):
		x.Met = true
	case least:
		x.Want, x.Met = fmt.Sprintf(">= %g", want), got >= want
	default:
		x.Want, x.Met = fmt.Sprintf("<= %g", want), got <= want
	}
	r.Ratios = append(r.Ratios, x)
}

// print prints everything as tables in Markdown.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %s, `%s`\n%s\n\n", r.When.Format("2006-01-02 15:04"), r.Version, r.Command, r.Machine)
	if len(r.Missing) > 0 {
		fmt.Fprintf(w, "Missing here: %s\n\n", strings.Join(r.Missing, "; "))
	}
	if r.Fdatasync > 0 {
		fmt.Fprintf(w, "fdatasync of 300 bytes appended: p50 %.0f us\n\n", r.Fdatasync)
	}
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	if len(r.Rows) > 0 {
		line(t, "peer", "connections", "upstream", "requests/s", "spread", "p50 us", "p99 us", "CPU us/request", "RSS MiB", "bad")
		line(t, "---", "---", "---", "---", "---", "---", "---", "---", "---", "---")
		for _, x := range r.Rows {
			m, kind := x.Median, "at once"
			if x.Slow {
				kind = delay.String()
			}
			line(t, x.Peer, strconv.Itoa(x.Conns), kind, fmt.Sprintf("%.0f", m.RPS), spread(x.Rounds), fmt.Sprintf("%.0f", m.P50), fmt.Sprintf("%.0f", m.P99),
				blank("%.0f", m.CPU), blank("%.1f", r.RSS[x.Peer]), bad(m))
		}
		_ = t.Flush() // w is a terminal or a pipe
		fmt.Fprintln(w)
	}
	r.printFigures(w)
	line(t, "target", "what", "want", "got", "met")
	line(t, "---", "---", "---", "---", "---")
	for _, x := range r.Ratios {
		met := map[bool]string{true: "yes", false: "no"}[x.Met]
		if x.Want == "" {
			met = ""
		}
		line(t, x.Target, x.What, x.Want, fmt.Sprintf("%.2f", x.Got), met)
	}
	_ = t.Flush() // as above
}

func line(w io.Writer, cells ...string) { fmt.Fprintf(w, "| %s\t|\n", strings.Join(cells, "\t| ")) }

// spread is how far the rounds lie apart.
func spread(ms []measure) string {
	low, high := math.Inf(1), 0.0
	for _, m := range ms {
		low, high = min(low, m.RPS), max(high, m.RPS)
	}
	return fmt.Sprintf("%.0f-%.0f", low, high)
}

func blank(format string, v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

func bad(m measure) string {
	if m.Bad == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", m.Bad, m.Error)
}

// numbers reads numbers with commas between them.
func numbers(s string) ([]int, error) {
	var ns []int
	for f := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q: want numbers with commas between them", s)
		}
		ns = append(ns, n)
	}
	return ns, nil
}
