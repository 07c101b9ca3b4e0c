package hubspot

import (
	"net/http"
	"time"
)

// A RateLimit is what one answer says about the portal's quota. A nil figure
// was not in the answer, or made no sense.
type RateLimit struct {
	DailyLimit     *int64
	DailyRemaining *int64
	BurstLimit     *int64
	BurstRemaining *int64
	Interval       time.Duration // of the burst window; 0: not said
}

// ParseRateLimit reads HubSpot's rate-limit headers.
func ParseRateLimit(h http.Header) RateLimit { return RateLimit{} }

// ParseRetryAfter reads Retry-After.
func ParseRetryAfter(h http.Header, now time.Time) (time.Duration, bool) { return 0, false }
