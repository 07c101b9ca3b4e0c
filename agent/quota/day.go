package quota

import "time"

// How the end of a day is met.
const (
	// earlyDay is the time after midnight in which a limit that is still used
	// up is taken for yesterday's: HubSpot's clock need not be ours.
	earlyDay = 5 * time.Minute
	// earlyRetry is when the next call may find out.
	earlyRetry = time.Minute
)

// A day is a portal's daily limit. It is guarded by its Governor's mutex.
type day struct {
	zone   *time.Location
	begins time.Time // the last midnight
	ends   time.Time // the next

	limit  *int64
	said   int64     // what is left by HubSpot's last word, if left is not nil
	left   *int64    // said, less our calls that it may not include; may be negative
	told   time.Time // when HubSpot last said something of it
	latest time.Time // when the newest answer came: one to a later call is newer

	exhausted time.Time // none left until then; the zero time otherwise
	low       bool      // it was said that little is left
}

// setZone changes the time zone; nil is UTC.
func (d *day) setZone(now time.Time, zone *time.Location) {
	if zone == nil {
		zone = time.UTC
	}
	wasToTheEnd := d.exhausted.Equal(d.ends) && !d.ends.IsZero()
	d.zone = zone
	d.begins, d.ends = midnight(now, zone, 0), midnight(now, zone, 1)
	if wasToTheEnd {
		d.exhausted = d.ends
	}
}

// turn begins a new day after midnight.
func (d *day) turn(now time.Time) {
	if now.Before(d.ends) {
		return
	}
	*d = day{zone: d.zone, limit: d.limit, exhausted: d.exhausted}
	d.begins, d.ends = midnight(now, d.zone, 0), midnight(now, d.zone, 1)
	d.over(now)
}

// over ends an exhaustion whose time has come.
func (d *day) over(now time.Time) {
	if !d.exhausted.IsZero() && !now.Before(d.exhausted) {
		d.exhausted, d.left = time.Time{}, nil
	}
}

// spent reports whether none is left, by HubSpot's own word.
func (d *day) spent() bool { return !d.exhausted.IsZero() }

// use counts a call that is being sent.
func (d *day) use() {
	if d.left != nil {
		*d.left--
	}
}

// tell takes what the answer to a says of the day. Unseen is how many of our
// other calls it may not include. An answer to a call that was sent before
// midnight is about yesterday.
//
// What is left only falls, unless the client buys more. Of calls that were on
// their way together, the one of which the answer names the smallest number was
// therefore counted last, and it includes those of which the answers name
// larger ones.
func (d *day) tell(a attempt, limit *int64, said, unseen int64) {
	if a.sent.Before(d.begins) || said < 0 {
		return
	}
	newer := d.left == nil || !a.sent.Before(d.latest)
	if limit != nil && *limit > 0 && (newer || d.limit == nil) {
		n := *limit
		d.limit = &n
	}
	d.told = a.done
	if !newer && said >= d.said {
		*d.left++ // it is included in the last word, and need not be taken off
		return
	}
	left := said - unseen
	d.said, d.left = said, &left
	if newer {
		d.latest = a.done
	}
	switch {
	case said > 0:
		d.exhausted = time.Time{}
	case a.done.Sub(d.begins) < earlyDay:
		d.exhausted = a.done.Add(earlyRetry)
	default:
		d.exhausted = d.ends
	}
}

// remaining is how many calls are left, as far as is known; nil if nothing is.
func (d *day) remaining() *int64 {
	if d.left == nil {
		return nil
	}
	n := max(*d.left, 0)
	return &n
}

// fallen reports once that fewer than below are left. It is ready to do so
// again when there clearly are more, and on the next day.
func (d *day) fallen(below int64) bool {
	switch {
	case d.left == nil:
	case *d.left >= below+below/10:
		d.low = false
	case *d.left < below && !d.low:
		d.low = true
		return true
	}
	return false
}

// midnight is the first instant of the day that is so many days after now's in
// zone. Where clocks jump over midnight, it is the instant of the jump; where
// they strike it twice, the first.
func midnight(now time.Time, zone *time.Location, days int) time.Time {
	y, m, d := now.In(zone).Date()
	t := time.Date(y, m, d+days, 0, 0, 0, 0, zone)
	start, end := t.ZoneBounds()
	if want := time.Date(y, m, d+days, 12, 0, 0, 0, zone); t.Day() != want.Day() {
		return end // time.Date chose the hour before the jump
	}
	if !start.IsZero() {
		_, offset := t.Zone()
		_, before := start.Add(-1).Zone()
		earlier := t.Add(time.Duration(offset-before) * time.Second)
		if earlier.Before(start) && earlier.Day() == t.Day() {
			return earlier
		}
	}
	return t
}
