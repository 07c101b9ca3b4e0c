package secret

import (
	"math/bits"
	"sync"
)

// A Kind tells how well pages are kept from others.
type Kind string

// The kinds of pages, from the best.
const (
	Hidden Kind = "hidden" // the kernel itself does not map them
	Locked Kind = "locked" // neither swapped nor dumped
	Plain  Kind = "plain"  // not dumped where the system allows to say so
)

var rank = map[Kind]int{Hidden: 0, Locked: 1, Plain: 2}

const (
	chunk   = 64 << 10 // what is asked of the kernel at a time
	minSlot = 5        // log2 of the smallest slot
	maxSlot = 12       // log2 of the largest: what is longer has pages of its own
)

// pages are the process's secret pages. There is one set of them, as there is
// one heap.
var pages arena

// An arena hands out slots of its pages.
type arena struct {
	mu    sync.Mutex
	free  [maxSlot + 1][][]byte // by log2 of their size
	worst Kind                  // of all pages so far
	used  int                   // bytes in slots that are taken
}

// Memory tells of what kind the process's secret pages are: the worst kind
// that it had to take so far.
func Memory() Kind {
	pages.mu.Lock()
	defer pages.mu.Unlock()
	if pages.worst == "" {
		slot := pages.takeLocked(1)
		pages.giveLocked(slot)
	}
	return pages.worst
}

// InUse is how many bytes of secret pages are taken.
func InUse() int {
	pages.mu.Lock()
	defer pages.mu.Unlock()
	return pages.used
}

// class is the log2 of the slot for n bytes.
func class(n int) int { return max(bits.Len(uint(n-1)), minSlot) }

// take returns zeroed memory of at least n bytes.
func (a *arena) take(n int) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.takeLocked(n)
}

func (a *arena) takeLocked(n int) []byte {
	c := class(n)
	if c > maxSlot {
		slot := a.mapLocked((n + 4095) &^ 4095)
		a.used += len(slot)
		return slot
	}
	if len(a.free[c]) == 0 {
		b := a.mapLocked(chunk)
		for size := 1 << c; len(b) > 0; b = b[size:] {
			a.free[c] = append(a.free[c], b[:size:size])
		}
	}
	last := len(a.free[c]) - 1
	slot := a.free[c][last]
	a.free[c] = a.free[c][:last]
	a.used += len(slot)
	return slot
}

// mapLocked asks the kernel for n bytes, of the best kind that it gives.
func (a *arena) mapLocked(n int) []byte {
	b, kind := mapPages(n)
	if a.worst == "" || rank[kind] > rank[a.worst] {
		a.worst = kind
	}
	return b
}

// give erases a slot and takes it back.
func (a *arena) give(slot []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.giveLocked(slot)
}

func (a *arena) giveLocked(slot []byte) {
	clear(slot)
	a.used -= len(slot)
	if len(slot) > 1<<maxSlot {
		unmapPages(slot)
		return
	}
	c := class(len(slot))
	a.free[c] = append(a.free[c], slot)
}
