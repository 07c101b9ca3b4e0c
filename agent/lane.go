package agent

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/quota"
)

// A lane is what calls of one slug share and no other slug touches: its
// connections, its quota, and how many calls use them. It outlives reloads.
type lane struct {
	pool     *hubspot.Pool
	governor *quota.Governor
	inFlight atomic.Int64
	tally    tally
	used     usage
	refresh  refresh
}

// newLane makes the lane of an entry.
func (a *Agent) newLane(e credstore.Entry) (*lane, error) {
	pool, err := a.up.NewPool(e.BaseURL)
	if err != nil {
		return nil, err
	}
	l := &lane{pool: pool}
	l.governor = quota.New(quota.Config{
		Slug:      e.Slug,
		WarnBelow: a.cfg.WarnBelow,
		Warn: func(remaining int64) {
			a.log.Warn("the portal's quota of the day is low", "event", "rate_limit_warning",
				"clientSlug", e.Slug.String(), "portalId", e.PortalID, "dailyRemaining", remaining, "threshold", a.cfg.WarnBelow)
		},
	})
	l.setZone(e.TimeZone)
	return l, nil
}

// setZone tells the governor in which time zone the portal's days begin. A
// name that is none leaves it as it is.
func (l *lane) setZone(name string) {
	if name == "" {
		return
	}
	if zone, err := location(name); err == nil {
		l.governor.SetLocation(zone)
	}
}

var locations sync.Map // name -> *time.Location

// location is [time.LoadLocation], which reads and keeps 4 KiB each time: the
// portals share their zones.
func location(name string) (*time.Location, error) {
	if zone, ok := locations.Load(name); ok {
		return zone.(*time.Location), nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, err
	}
	locations.Store(name, zone)
	return zone, nil
}
