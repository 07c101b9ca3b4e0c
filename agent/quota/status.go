package quota

import (
	"fmt"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// Quota is what is known of the portal's limits now. PortalID and UsedToday
// are not known here.
func (g *Governor) Quota() wire.Quota {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.turn()
	resets := wire.At(g.day.ends)
	q := wire.Quota{
		Slug:           g.cfg.Slug.String(),
		DailyLimit:     copied(g.day.limit),
		DailyRemaining: g.day.remaining(),
		ResetsAt:       &resets,
		State:          g.state(now),
	}
	if !g.day.told.IsZero() {
		told := wire.At(g.day.told)
		q.ObservedAt = &told
	}
	if w := &g.burst; w.limit > 0 {
		limit, left := int64(w.limit), int64(max(w.limit-w.others.level()-w.ours(), 0))
		q.BurstLimit, q.BurstRemaining, q.IntervalMS = &limit, &left, w.interval.Milliseconds()
	}
	return q
}

// DayStart is when the portal's day began: the last midnight in its time zone.
func (g *Governor) DayStart() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turn()
	return g.day.begins
}

func (g *Governor) state(now time.Time) wire.QuotaState {
	switch {
	case g.parked.After(now):
		return wire.QuotaParked
	case g.day.spent():
		return wire.QuotaExhausted
	case g.day.left == nil:
		return wire.QuotaUnknown
	case *g.day.left < g.cfg.WarnBelow:
		return wire.QuotaLow
	}
	return wire.QuotaOK
}

func copied(n *int64) *int64 {
	if n == nil {
		return nil
	}
	v := *n
	return &v
}

// refusal is the problem of one who may not go before a time. Retry-After is
// at least a second, for at may depend on an answer that is under way.
func (g *Governor) refusal(now, at time.Time, code wire.Code, search bool) *wire.Problem {
	after := max(at.Sub(now), time.Second)
	slug := g.cfg.Slug
	switch code {
	case wire.CodePortalParked:
		return wire.Errorf(code, "HubSpot is migrating %s and takes no calls for it until about %s; other portals are not affected. Try again then", slug, wire.At(at)).After(after)
	case wire.CodeQuotaExhausted:
		return wire.Errorf(code, "HubSpot's calls of the day are used up for %s%s; the next are let through at %s, in %s. See: hsctl quota %s", slug, outOf(g.day.limit), wire.At(at), until(after), slug).After(after)
	}
	what := "calls"
	w := &g.burst
	if _, free := w.place(now, 1); free && search {
		what, w = "searches", &g.search
	}
	limit := ""
	if w.limit > 0 {
		limit = fmt.Sprintf(" (%d in %s)", w.limit, w.interval)
	}
	return wire.Errorf(wire.CodeThrottled, "HubSpot's limit of %s for %s%s is in use; a place is expected in %s. Try again then, or let the call wait longer with %s", what, slug, limit, until(after), wire.HeaderWait).After(after)
}

// outOf tells a limit, if it is known.
func outOf(limit *int64) string {
	if limit == nil {
		return ""
	}
	return fmt.Sprintf(" (%d)", *limit)
}

// until is a duration in whole seconds, rounded up.
func until(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

func errAborted() *wire.Problem {
	return wire.Errorf(wire.CodeClientAbort, "the caller went away while the call was waiting for quota")
}
