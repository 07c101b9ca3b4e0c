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

	limit     *int64
	remaining *int64    // told, and counted on by our own calls
	told      time.Time // when remaining was
	toldOf    time.Time // when the call was sent whose answer told it

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
		d.exhausted, d.remaining = time.Time{}, nil
	}
}

// spent reports whether none is left, by HubSpot's own word.
func (d *day) spent() bool { return !d.exhausted.IsZero() }

// use counts a call that is being sent.
func (d *day) use() {
	if d.remaining != nil && *d.remaining > 0 {
		*d.remaining--
	}
}

// tell takes what HubSpot said of the day at a time, in answer to a call that
// was sent at another. A word on yesterday, or older than the last, is not
// taken.
func (d *day) tell(now, sent time.Time, limit *int64, remaining int64) {
	if sent.Before(d.begins) || sent.Before(d.toldOf) || remaining < 0 {
		return
	}
	if limit != nil && *limit > 0 {
		n := *limit
		d.limit = &n
	}
	d.remaining, d.told, d.toldOf = &remaining, now, sent
	switch {
	case remaining > 0:
		d.exhausted = time.Time{}
	case now.Sub(d.begins) < earlyDay:
		d.exhausted = now.Add(earlyRetry)
	default:
		d.exhausted = d.ends
	}
}

// fallen reports once that fewer than below are left. It is ready to do so
// again when there clearly are more, and on the next day.
func (d *day) fallen(below int64) bool {
	switch {
	case d.remaining == nil:
	case *d.remaining >= below+below/10:
		d.low = false
	case *d.remaining < below && !d.low:
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
