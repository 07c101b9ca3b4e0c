package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// barWidth is how many characters show how far the work has come.
const barWidth = 30

// A progress tells on stderr how much of some work is done: as a bar on a
// terminal, elsewhere as a line whenever another tenth is done.
type progress struct {
	e           *env
	bar         bool
	what        string // is counted
	total, done int
	begun       time.Time
}

func newProgress(e *env, what string, total int) *progress {
	_, ok := terminal(e.stderr)
	p := &progress{e: e, bar: ok && e.getenv("TERM") != "dumb", what: what, total: total, begun: time.Now()}
	p.draw()
	return p
}

// step counts one more as done.
func (p *progress) step() { p.reach(p.done + 1) }

// reach tells that so many are done.
func (p *progress) reach(n int) {
	before := p.done * 10 / p.total
	p.done = n
	if after := p.done * 10 / p.total; !p.bar && after > before {
		p.e.note("%d of %d %s (%d %%)", p.done, p.total, p.what, after*10)
	}
	p.draw()
}

// draw shows the bar.
func (p *progress) draw() {
	if !p.bar || p.e.global.quiet || p.done >= p.total {
		return
	}
	full := p.done * barWidth / p.total
	left := ""
	if p.done > 0 {
		per := time.Since(p.begun) / time.Duration(p.done)
		left = fmt.Sprintf(", about %s left", (per * time.Duration(p.total-p.done)).Round(time.Second))
	}
	_, _ = fmt.Fprintf(p.e.stderr, "\r[%s%s] %d of %d %s%s\x1b[K", // a bar that cannot be shown is no loss
		strings.Repeat("#", full), strings.Repeat(".", barWidth-full), p.done, p.total, p.what, left)
}

// erase takes the bar away, to make room for other lines.
func (p *progress) erase() {
	if p.bar && !p.e.global.quiet {
		_, _ = io.WriteString(p.e.stderr, "\r\x1b[K") // see draw
	}
}
