package chain

import (
	"strconv"
	"strings"
	"time"
)

// A Filter selects records. Zero fields select everything.
type Filter struct {
	Slug       string
	From       time.Time // inclusive
	To         time.Time // exclusive
	Method     string
	ObjectType string
	Status     string // "404", or a class such as "4xx"
	CallID     string
	Caller     string // user name, uid, executable or unit
	Reason     string // a part of it, in any case
	Kind       Kind
	After      *uint64 // only greater sequences
	Limit      int     // 0: no limit

	// Begin leaves out what the log holds before the first day that reaches
	// this time, and End what it holds after the last day that begins before
	// that one. Nothing in between is left out, whatever its time: what began
	// then and how it ended.
	Begin, End time.Time
}

// Match reports whether r is among the selected. Limit, Begin and End are not
// looked at.
func (f *Filter) Match(r *Record) bool {
	switch {
	case f.Slug != "" && f.Slug != r.ClientSlug,
		!f.From.IsZero() && r.TS.Before(f.From),
		!f.To.IsZero() && !r.TS.Before(f.To),
		f.Method != "" && f.Method != r.Method,
		f.ObjectType != "" && f.ObjectType != r.ObjectType,
		f.Status != "" && !matchStatus(f.Status, r.StatusCode),
		f.CallID != "" && f.CallID != r.CallID,
		f.Caller != "" && !r.Caller.is(f.Caller),
		f.Reason != "" && !contains(r.Reason, f.Reason),
		f.Kind != "" && f.Kind != r.Kind,
		f.After != nil && r.Seq <= *f.After:
		return false
	}
	return true
}

// NeedsHead reports whether Match looks at nothing but what a [Head] has.
func (f *Filter) NeedsHead() bool {
	return f.Method == "" && f.ObjectType == "" && f.Status == "" && f.CallID == "" && f.Caller == "" && f.Reason == ""
}

// matchStatus takes "404" and "4xx". A record without a status matches none.
func matchStatus(want string, code int) bool {
	if code == 0 {
		return false
	}
	s := strconv.Itoa(code)
	if len(want) == 3 && (want[1:] == "xx" || want[1:] == "XX") {
		return len(s) == 3 && s[0] == want[0]
	}
	return s == want
}

func contains(s, part string) bool {
	return strings.Contains(strings.ToLower(s), strings.ToLower(part))
}

func (c *Caller) is(name string) bool {
	return c != nil && (name == c.User || name == c.Exe || name == c.Unit || name == strconv.Itoa(c.UID))
}
