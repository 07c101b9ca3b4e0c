package hubspot

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A RateLimit is what one answer says about the portal's quota. A nil figure
// was not in the answer, or made no sense: HubSpot leaves the headers out of
// searches, and whenever it could not gather the data.
type RateLimit struct {
	DailyLimit     *int64        // calls a day, of all private apps of the account
	DailyRemaining *int64        // of them
	BurstLimit     *int64        // calls in one Interval, of this app
	BurstRemaining *int64        // of them
	Interval       time.Duration // the burst window; 0: not said
}

// maxCount bounds what is believed of a figure: a thousand times the largest
// quota that HubSpot sells.
const maxCount = 3_000_000_000

// maxInterval bounds the burst window.
const maxInterval = time.Hour

// ParseRateLimit reads HubSpot's rate-limit headers. The ones of the second
// are deprecated and not enforced, and are not read.
func ParseRateLimit(h http.Header) RateLimit {
	l := RateLimit{
		DailyLimit:     count(h, "X-Hubspot-Ratelimit-Daily"),
		DailyRemaining: count(h, "X-Hubspot-Ratelimit-Daily-Remaining"),
		BurstLimit:     count(h, "X-Hubspot-Ratelimit-Max"),
		BurstRemaining: count(h, "X-Hubspot-Ratelimit-Remaining"),
	}
	if ms := count(h, "X-Hubspot-Ratelimit-Interval-Milliseconds"); ms != nil && *ms <= maxInterval.Milliseconds() {
		l.Interval = time.Duration(*ms) * time.Millisecond
	}
	return l
}

// count reads a header, by its canonical name, that is one plain number.
func count(h http.Header, name string) *int64 {
	v := h[name]
	if len(v) != 1 {
		return nil
	}
	n, ok := digits(v[0])
	if !ok || n > maxCount {
		return nil
	}
	return &n
}

// digits reads decimal digits and nothing else.
func digits(s string) (int64, bool) {
	s = strings.Trim(s, " \t")
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// MaxRetryAfter is the longest wait that HubSpot announces (for a 477); more
// is taken as this.
const MaxRetryAfter = 24 * time.Hour

// ParseRetryAfter reads Retry-After, in seconds or as a date, and tells
// whether there was one that can be read. A date that has passed is 0.
func ParseRetryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := strings.Trim(h.Get("Retry-After"), " \t")
	if v == "" {
		return 0, false
	}
	if unsigned := strings.TrimPrefix(v, "-"); strings.Trim(unsigned, "0123456789") == "" && unsigned != "" {
		n, ok := digits(unsigned)
		switch {
		case unsigned != v:
			return 0, true
		case !ok || n > int64(MaxRetryAfter/time.Second): // more digits than a number can have
			return MaxRetryAfter, true
		}
		return time.Duration(n) * time.Second, true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter), true
}
