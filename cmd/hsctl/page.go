package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// Pages of HTML are written without html/template, which would make every run
// of hsctl slower, and with the same safety from the types: markup is what
// this program's source says, and only a constant becomes markup by itself. A
// string can get onto a page as escaped text alone.

// markup is HTML of our own making.
type markup string

// An htmlPage is HTML in the making.
type htmlPage struct{ b strings.Builder }

// put writes markup in which each % stands for an argument: text, which is
// escaped; a number, whose digits are grouped; or markup.
func (p *htmlPage) put(format markup, args ...any) {
	for _, arg := range args {
		before, after, ok := strings.Cut(string(format), "%")
		p.b.WriteString(before)
		if !ok {
			break // an argument too many: TestPage finds it
		}
		p.arg(arg)
		format = markup(after)
	}
	p.b.WriteString(string(format))
}

func (p *htmlPage) arg(arg any) {
	switch v := arg.(type) {
	case markup:
		p.b.WriteString(string(v))
	case int:
		p.b.WriteString(grouped(int64(v)))
	case int64:
		p.b.WriteString(grouped(v))
	default:
		p.b.WriteString(escapeHTML(fmt.Sprint(v)))
	}
}

var htmlEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#39;")

// escapeHTML makes text fit for an element or an attribute in quotes; what is
// not graphic, such as marks that turn the direction of writing, is shown.
func escapeHTML(s string) string { return htmlEscaper.Replace(wire.Printable(s)) }

// grouped writes a number with narrow spaces between thousands.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// size writes a number of bytes in the unit that suits it.
func size(n int64) string {
	f, unit := float64(n), ""
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if f < 999.5 {
			break
		}
		f, unit = f/1000, u
	}
	switch {
	case unit == "":
		return grouped(n) + "\u00a0B"
	case f < 9.95:
		return fmt.Sprintf("%.1f\u00a0%s", f, unit)
	}
	return fmt.Sprintf("%.0f\u00a0%s", f, unit)
}
