package quota

import (
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// A queue holds those who wait for one kind of place. Callers take turns;
// within one caller the first to come is the first to go. It is guarded by its
// Governor's mutex. All its methods but each take constant time.
type queue struct {
	lines map[string]*line
	front *line // whose turn it is; the lines form a ring
	n     int
}

// A line is one caller's part of a queue. It is in the queue's ring as long as
// somebody stands in it.
type line struct {
	caller      string
	next, prev  *line
	first, last *waiter
	n           int
}

// A waiter waits for a place.
type waiter struct {
	line       *line // nil once it stands in none
	next, prev *waiter

	search   bool
	deadline time.Time
	got      chan verdict // takes exactly one
}

// A verdict ends a wait: one of the two is set.
type verdict struct {
	grant   *Grant
	problem *wire.Problem
}

// position is how many would be served up to and with one who joined caller's
// line now, as long as nobody else comes.
func (q *queue) position(caller string) int {
	if q.n == 0 {
		return 1
	}
	rings, rounds := len(q.lines), 1
	if l := q.lines[caller]; l != nil {
		rounds += l.n
	} else {
		rings++
	}
	return min(q.n+1, rings*rounds)
}

// join puts w at the end of caller's line. A caller who had none is the last
// to have its turn.
func (q *queue) join(caller string, w *waiter) {
	l := q.lines[caller]
	if l == nil {
		l = &line{caller: caller}
		if q.lines == nil {
			q.lines = map[string]*line{}
		}
		q.lines[caller] = l
		if q.front == nil {
			l.next, l.prev = l, l
			q.front = l
		} else {
			l.next, l.prev = q.front, q.front.prev
			l.next.prev, l.prev.next = l, l
		}
	}
	w.line, w.prev = l, l.last
	if l.last == nil {
		l.first = w
	} else {
		l.last.next = w
	}
	l.last = w
	l.n++
	q.n++
}

// pop takes out the one whose turn it is. The queue is not empty.
func (q *queue) pop() *waiter {
	l := q.front
	w := l.first
	q.front = l.next
	q.leave(w)
	return w
}

// leave takes w out of the queue, if it still is there.
func (q *queue) leave(w *waiter) {
	l := w.line
	if l == nil {
		return
	}
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.line, w.next, w.prev = nil, nil, nil
	l.n--
	q.n--
	if l.n > 0 {
		return
	}
	delete(q.lines, l.caller)
	l.next.prev, l.prev.next = l.prev, l.next
	switch {
	case l.next == l:
		q.front = nil
	case q.front == l:
		q.front = l.next
	}
}

// each calls f with everyone who waits; f may let that one leave.
func (q *queue) each(f func(*waiter)) {
	for _, l := range q.lines {
		for w := l.first; w != nil; {
			next := w.next
			f(w)
			w = next
		}
	}
}
