package main

import (
	"fmt"

	"github.com/hsagent/hsagentd/wire"
)

// Charts are inline SVG that stretches with the page. Their words stand beside
// them in HTML, so that they stay as large as all others.

// bar is a line of calls with the errors among them, as wide as its share.
func bar(calls, errors, most int64) markup {
	good, bad := share(calls-errors, most, 1000), share(errors, most, 1000)
	return markup(fmt.Sprintf(`<svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true"><rect class="a" width="%d" height="10"/><rect class="b" x="%d" width="%d" height="10"/></svg>`,
		good, good, bad))
}

// share is n of most as a part of whole; what is there at all can be seen.
func share(n, most, whole int64) int64 {
	if n <= 0 || most <= 0 {
		return 0
	}
	return max(2, int64(float64(n)*float64(whole)/float64(most)+0.5))
}

// dayChart draws a bar for each date.
func (p *htmlPage) dayChart(dates []string, counts map[string]wire.ReportCounts) {
	most := int64(0)
	for _, d := range dates {
		most = max(most, counts[d].Calls)
	}
	if most == 0 || len(dates) < 2 {
		return
	}
	top := niceTop(most)
	const high = 1000
	wide := int64(len(dates)) * 10
	p.put(`<figure><div><div class="y" aria-hidden="true"><span>%</span><span>%</span><span>0</span></div>`, top, top/2)
	p.put("<svg viewBox=\"0 0 % %\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Calls per day, from % to %; the table has the figures\">\n",
		plain(wide), plain(high), dates[0], dates[len(dates)-1])
	for _, y := range []int64{0, high / 2, high} {
		p.put(`<line class="g" x1="0" x2="%" y1="%" y2="%"/>`, plain(wide), plain(y), plain(y))
	}
	for i, d := range dates {
		n := counts[d]
		if n.Calls == 0 {
			continue
		}
		good, bad := share(n.Calls-n.Errors, top, high), share(n.Errors, top, high)
		x := plain(int64(i)*10 + 1)
		p.put("\n<g><title>%: % calls, % errors</title><rect class=\"a\" x=\"%\" y=\"%\" width=\"8\" height=\"%\"/><rect class=\"b\" x=\"%\" y=\"%\" width=\"8\" height=\"%\"/></g>",
			d, n.Calls, n.Errors, x, plain(high-good), plain(good), x, plain(high-good-bad), plain(bad))
	}
	p.put("\n</svg>\n<div class=\"x\" aria-hidden=\"true\"><span>%</span><span>%</span></div></div>\n", dates[0], dates[len(dates)-1])
	p.put(`<figcaption><small>Calls per day.<span class="key"><svg><rect class="a" width="99" height="99"/></svg></span>answered<span class="key"><svg><rect class="b" width="99" height="99"/></svg></span>errors</small></figcaption></figure>`)
	p.put("\n")
}

// plain is a number in an attribute, where it has no spaces.
func plain(n int64) markup { return markup(fmt.Sprint(n)) }

// niceTop is the even round number above n: 2, 4, 10, 20, 40, 60, 80, 100 …
func niceTop(n int64) int64 {
	unit := int64(1)
	for unit*10 < n {
		unit *= 10
	}
	for _, f := range []int64{1, 2, 4, 6, 8, 10} {
		if top := f * unit; top >= n && top%2 == 0 {
			return top
		}
	}
	return 10 * unit
}
