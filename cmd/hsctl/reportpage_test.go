package main

import (
	"encoding/csv"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

// fullOf is a report in which every list has an entry, and every text is s.
func fullOf(s string) *wire.Report {
	r := &wire.Report{}
	fillValue(reflect.ValueOf(r).Elem(), s)
	return r
}

func fillValue(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Int, reflect.Int64:
		v.SetInt(1234567)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint64:
		v.SetUint(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillValue(v.Elem(), s)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillValue(v.Index(0), s)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[wire.Time]() {
			v.Set(reflect.ValueOf(wire.At(time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC))))
			return
		}
		for i := range v.NumField() {
			fillValue(v.Field(i), s)
		}
	}
}

var (
	quoted  = regexp.MustCompile(`"[^"]*"`)
	anyTag  = regexp.MustCompile(`<[^>]*>`)
	goodTag = regexp.MustCompile(`^</?[a-z][a-z0-9]*( [a-zA-Z0-9-]+="[^"<>]*")*/?>$|^<!DOCTYPE html>$|^<html lang="en">$`)
)

// Whatever stands in the log, a page has no tag, attribute or script that is
// not ours, loads nothing, and says so in its policy.
func TestThreat49Page(t *testing.T) {
	for _, hostile := range []string{
		`"><script>alert(1)</script>`, `' onload='x`, `</style><img src=x>`, "&lt;%", "\x1b[31m\u202e\x00", `%s%d%`, "javascript:x",
	} {
		r := fullOf(hostile)
		pages := map[string]string{
			"breach": reportPage(r),
			"index":  indexPage(r, []indexEntry{{hostile, 7, hostile, r.Totals}}),
		}
		r.Breach, r.From, r.To = nil, "2026-10-01", "2026-10-31"
		r.ByDay[0].Date = "2026-10-02"
		pages["report"] = reportPage(r)
		for name, page := range pages {
			require.NotContains(t, page, "<script")
			require.NotContains(t, page, "<img")
			require.NotContains(t, page, "\x1b")
			require.NotContains(t, page, "\u202e")
			require.NotContains(t, page, "\x00")
			_, body, _ := strings.Cut(page, "</style>")
			for _, tag := range anyTag.FindAllString(body, -1) {
				require.Regexp(t, goodTag, tag, "%s with %q", name, hostile)
				require.NotRegexp(t, " on[a-z]+=", quoted.ReplaceAllString(tag, ""))
			}
			require.NotContains(t, anyTag.ReplaceAllString(body, ""), "<")
			require.Contains(t, page, `content="default-src 'none'; style-src 'sha256-`)
			require.NotRegexp(t, `(src|href)="?(https?:|//|data:)`, page)
		}
		require.Contains(t, pages["report"], `<rect class="a"`, "the chart of days is there")
	}
}

// Every % of a page's markup got its argument, and none was too many.
func TestPagePlaceholders(t *testing.T) {
	r := fullOf("text")
	r.From, r.To = "2026-10-01", "2026-10-31"
	for _, page := range []string{reportPage(r), indexPage(r, []indexEntry{{"acme", 7, "acme.html", r.Totals}})} {
		_, body, _ := strings.Cut(page, "</style>")
		require.NotContains(t, body, "%")
		require.NotContains(t, body, "EXTRA")
		require.Contains(t, body, "1\u202f234\u202f567")
		require.Equal(t, strings.Count(body, "<table"), strings.Count(body, "</table>"))
		for row := range strings.SplitSeq(body, "<thead>") {
			head, rest, ok := strings.Cut(row, "</thead>")
			if !ok {
				continue
			}
			rows, _, _ := strings.Cut(rest, "</table>")
			for tr := range strings.SplitSeq(rows, "<tr>") {
				if n := strings.Count(tr, "</td>"); n > 0 {
					require.Equal(t, strings.Count(head, "</th>"), n, tr)
				}
			}
		}
	}
}

// No cell of a report's CSV can run as a formula, and the columns are those
// that were promised.
func TestThreat49ReportCSV(t *testing.T) {
	for _, hostile := range []string{"=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "＝1", "＋1", "－1", "＠1", "\x1b[31m"} {
		r := fullOf(hostile)
		for _, rep := range []*wire.Report{r, {Slug: "acme", Rows: r.Rows}} {
			var b strings.Builder
			require.NoError(t, reportCSV(&b, []*wire.Report{rep, rep}))
			rows, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
			require.NoError(t, err)
			require.Len(t, rows, 3)
			for _, cell := range append(rows[1], rows[2]...) {
				require.NotRegexp(t, "^[=+\\-@\t\r＝＋－＠]", cell)
				require.NotContains(t, cell, "\x1b")
			}
			if rep.Breach == nil {
				require.Equal(t, "clientSlug,portalId,date,method,objectType,callCount,errorCount,avgDurationMs", strings.Join(rows[0], ","))
			}
		}
		var b strings.Builder
		require.NoError(t, reportText(&b, r, false))
		require.NotContains(t, b.String(), "\x1b")
		require.NotContains(t, b.String(), "\r")
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1\u202f000", -1234567: "-1\u202f234\u202f567", -100: "-100"} {
		require.Equal(t, want, grouped(n))
	}
	for n, want := range map[int64]string{0: "0\u00a0B", 999: "999\u00a0B", 1000: "1.0\u00a0kB", 999_499: "999\u00a0kB", 999_999: "1.0\u00a0MB", 12_345_678: "12\u00a0MB"} {
		require.Equal(t, want, size(n))
	}
	for n, want := range map[int64]int64{1: 2, 2: 2, 3: 4, 5: 6, 9: 10, 11: 20, 41: 60, 99: 100, 100: 100, 101: 200} {
		require.Equal(t, want, niceTop(n), n)
	}
}

func TestBreachArguments(t *testing.T) {
	for _, x := range []struct{ breach, args, slug, from, to string }{
		{"2026-10-01", "acme-corp 2026-10-02", "acme-corp", "2026-10-01", "2026-10-02"},
		{"2026-10-01", "2026-10-02 acme-corp", "acme-corp", "2026-10-01", "2026-10-02"},
		{"2026-10-01T08:00:00Z..2026-10-02", "acme-corp", "acme-corp", "2026-10-01T08:00:00Z", "2026-10-02"},
		{"2026-10-01", "2026-10-02 2026-10-03", "2026-10-02", "2026-10-01", "2026-10-03"}, // a slug that looks like a date stands first
		{"2026-10-01", "acme-corp", "", "", ""}, {"2026-10-01", "", "", "", ""}, {"soon", "acme-corp 2026-10-02", "", "", ""},
		{"2026-10-01", "acme-corp later", "", "", ""}, {"2026-10-01..2026-10-02", "acme-corp 2026-10-02", "", "", ""},
	} {
		o := &reportOptions{breach: x.breach, format: formatCSV}
		slugs, err := o.parse(&env{}, strings.Fields(x.args))
		if x.slug == "" {
			require.Error(t, err, "%+v", x)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, []string{x.slug}, slugs)
		require.Equal(t, []string{x.from, x.to}, []string{o.from, o.to})
	}
}
