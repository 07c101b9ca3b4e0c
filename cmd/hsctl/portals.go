package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

func newPortals(e *env) *cobra.Command {
	stale := ""
	cmd := &cobra.Command{
		Use:   "portals [SLUG]",
		Short: "List the fleet, or show one portal",
		Example: `hsctl portals
hsctl portals acme-corp
hsctl portals --stale 180d
hsctl portals -o csv >portals.csv
hsctl portals | jq -r '.portals[] | select(.state != "ready") | .slug'`,
		Args:              positional(0, 1),
		ValidArgsFunction: completeSlugs(e, 1),
		Annotations:       exits(8, 9),
		RunE:              func(cmd *cobra.Command, args []string) error { return runPortals(cmd.Context(), e, args, stale) },
	}
	cmd.Flags().StringVar(&stale, "stale", "", "only portals whose token is older than `age`, such as 180d or 12h")
	return cmd
}

func runPortals(ctx context.Context, e *env, args []string, stale string) error {
	c, slugs, err := e.clientFor(args)
	if err != nil {
		return err
	}
	defer c.Close()
	var age time.Duration
	if stale != "" {
		if len(slugs) > 0 {
			return usagef("--stale lists the fleet: no slug beside it")
		}
		if age, err = parseAge(stale); err != nil {
			return err
		}
	}
	if len(slugs) == 1 {
		p, err := c.Portal(ctx, slugs[0])
		if err != nil {
			return err
		}
		return e.emitPortal(p)
	}
	portals, err := c.Portals(ctx)
	if err != nil {
		return err
	}
	if stale != "" {
		var undated int
		portals, undated = stalePortals(portals, time.Now().Add(-age))
		if undated > 0 {
			e.note("of %d portals the store does not say how old their tokens are", undated)
		}
	}
	if portals == nil {
		portals = []wire.Portal{}
	}
	return e.emit(wire.Portals{Portals: portals}, func() *table { return portalTable(portals) })
}

// parseAge reads a duration, which may be a number of days: "180d".
func parseAge(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * day
	}
	if err != nil || d <= 0 {
		return 0, usagef("age %s: want a number of days, such as 180d, or hours, such as 12h", wire.Quote(s))
	}
	return d, nil
}

const day = 24 * time.Hour

// stalePortals returns the portals whose token is older than limit, and how
// many have no date.
func stalePortals(portals []wire.Portal, limit time.Time) (stale []wire.Portal, undated int) {
	for _, p := range portals {
		switch at := tokenDate(p); {
		case at.IsZero():
			undated++
		case at.Before(limit):
			stale = append(stale, p)
		}
	}
	return stale, undated
}

// tokenDate is when the portal got the token it has, or the zero time.
func tokenDate(p wire.Portal) time.Time {
	for _, t := range []*wire.Time{p.LastRotatedAt, p.AddedAt} {
		if t != nil && !t.IsZero() {
			return t.Time
		}
	}
	return time.Time{}
}

// emitPortal shows one portal: the object itself in JSON, one row elsewhere.
func (e *env) emitPortal(p *wire.Portal) error {
	return e.emit(p, func() *table { return portalTable([]wire.Portal{*p}) })
}

// portalTable is the fleet as rows. A warning stands where a reason would.
func portalTable(portals []wire.Portal) *table {
	t := &table{header: []string{"slug", "portalId", "state", "datacenter", "lastRotatedAt", "verifiedAt", "tokenFingerprint", "reason"}}
	for _, p := range portals {
		id, why := cell{}, p.Reason
		if p.PortalID != 0 {
			id = text(p.PortalID)
		}
		if why == "" {
			why = p.Warning
		}
		t.rows = append(t.rows, []cell{
			text(p.Slug), id, stateCell(p.State), text(p.Datacenter), moment(p.LastRotatedAt), moment(p.VerifiedAt),
			text(p.TokenFingerprint), text(why),
		})
	}
	return t
}
