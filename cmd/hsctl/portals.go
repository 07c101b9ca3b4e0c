package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

func newPortals(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "portals [SLUG]",
		Short: "List the fleet, or show one portal",
		Example: `hsctl portals
hsctl portals acme-corp
hsctl portals -o csv >portals.csv
hsctl portals | jq -r '.portals[] | select(.state != "ready") | .slug'`,
		Args:              positional(0, 1),
		ValidArgsFunction: completeSlugs(e, 1),
		Annotations:       exits(8, 9),
		RunE:              func(cmd *cobra.Command, args []string) error { return runPortals(cmd.Context(), e, args) },
	}
}

func runPortals(ctx context.Context, e *env, args []string) error {
	slugs, err := parseSlugs(args)
	if err != nil {
		return err
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
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
	if portals == nil {
		portals = []wire.Portal{}
	}
	return e.emit(wire.Portals{Portals: portals}, func() *table { return portalTable(portals) })
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
