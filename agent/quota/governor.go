package quota

import (
	"context"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// Config says for whom a Governor works.
type Config struct {
	Slug      wire.Slug             // for messages
	WarnBelow int64                 // calls left today that count as low; 0: none do
	Warn      func(remaining int64) // called once each time that the day's rest falls below WarnBelow; nil for none
}

// DefaultWarnBelow is the usual WarnBelow.
const DefaultWarnBelow = 50_000

// A Governor lets the calls for one portal through as its limits allow.
type Governor struct {
	cfg Config
}

// New returns a Governor that knows nothing of its portal's limits yet.
func New(cfg Config) *Governor { return &Governor{cfg: cfg} }

// SetLocation sets the portal's time zone; nil is UTC.
func (g *Governor) SetLocation(*time.Location) {}

// SetDaily takes the day's usage as account-info tells it.
func (g *Governor) SetDaily(limit, used int64, collectedAt time.Time) {}

// Quota is what is known of the portal's limits now.
func (g *Governor) Quota() wire.Quota { return wire.Quota{Slug: g.cfg.Slug.String(), State: wire.QuotaUnknown} }

// An Ask is a request for one attempt.
type Ask struct {
	Caller string        // calls of different callers take turns
	Search bool          // a search of CRM objects, which has a limit of its own
	Wait   time.Duration // how long the attempt may queue; 0: answer at once
}

// Acquire waits for a place.
func (g *Governor) Acquire(ctx context.Context, ask Ask) (*Grant, *wire.Problem) {
	return &Grant{g: g}, nil
}

// A Grant is leave for one attempt.
type Grant struct {
	g *Governor
}

// Sent says that the attempt's first byte is about to leave.
func (gr *Grant) Sent() {}

// Done says how the attempt ended; it must be called exactly once.
func (gr *Grant) Done(a Answer) {}

// An Answer is what HubSpot's answer to an attempt said of the limits.
type Answer struct {
	Got    bool // there was an answer
	Status int

	DailyLimit, DailyRemaining *int64
	BurstLimit, BurstRemaining *int64
	Interval                   time.Duration

	Limit         string // of a 429: "daily", "burst", "secondly" or "unknown"
	RetryAfter    time.Duration
	HasRetryAfter bool
}
