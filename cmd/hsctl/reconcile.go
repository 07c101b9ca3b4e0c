package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

func newAuditReconcile(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "reconcile [SLUG...]",
		Short: "Compare today's calls in the log with HubSpot's own count",
		Example: `hsctl audit reconcile
hsctl audit reconcile acme-corp -o json | jq '.portals[].elsewhere'`,
		Long: `HubSpot is asked first. elsewhere is what HubSpot counted today beyond the calls in
this agent's log: calls that other programs made for the portal, past the agent. A
day begins at midnight in the portal's time zone. HubSpot's figure can lag behind by
some calls. A portal that it has not told of is left without figures.`,
		Args:              positional(0, -1),
		ValidArgsFunction: completeSlugs(e, 0),
		Annotations:       exits(5, 7, 8, 9, 12),
		RunE: func(cmd *cobra.Command, args []string) error {
			return reconcile(cmd.Context(), e, args)
		},
	}
}

// A reconciled portal is HubSpot's count of the day beside ours.
type reconciled struct {
	Slug       string     `json:"slug"`
	PortalID   int64      `json:"portalId,omitempty"`
	HubSpot    *int64     `json:"hubspot,omitempty"`   // calls of the day by HubSpot's count
	Logged     *int64     `json:"logged,omitempty"`    // calls of the day in the audit log
	Elsewhere  *int64     `json:"elsewhere,omitempty"` // what HubSpot counted beyond that
	ObservedAt *wire.Time `json:"observedAt,omitempty"`
}

func reconcile(ctx context.Context, e *env, args []string) error {
	c, slugs, err := e.clientFor(args)
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.Quota(ctx, true)
	if err != nil {
		return err
	}
	if len(slugs) > 0 {
		if all, err = pickQuotas(ctx, c, all, slugs); err != nil {
			return err
		}
	}
	rows, silent := make([]reconciled, len(all)), 0
	for i, q := range all {
		if rows[i] = compare(q); rows[i].HubSpot == nil {
			silent++
		}
	}
	if silent > 0 {
		e.note("HubSpot has not told its count of %d of %d portals: hsctl portals says if one cannot be asked", silent, len(rows))
	}
	return e.emit(map[string]any{"portals": rows}, func() *table {
		t := &table{header: []string{"slug", "portalId", "hubspot", "logged", "elsewhere", "observedAt"}}
		for _, r := range rows {
			cells := []cell{text(r.Slug), text(positive(r.PortalID)), text(number(r.HubSpot)), text(number(r.Logged)), text(number(r.Elsewhere)), moment(r.ObservedAt)}
			if r.Elsewhere != nil && *r.Elsewhere > 0 {
				cells[4].sgr = yellow
			}
			t.rows = append(t.rows, cells)
		}
		return t
	})
}

// compare sets HubSpot's count of a portal's day against the log's.
func compare(q wire.Quota) reconciled {
	r := reconciled{Slug: q.Slug, PortalID: q.PortalID, Logged: q.UsedToday, ObservedAt: q.ObservedAt}
	if q.DailyLimit == nil || q.DailyRemaining == nil {
		return r
	}
	used := *q.DailyLimit - *q.DailyRemaining
	r.HubSpot = &used
	if q.UsedToday != nil {
		elsewhere := max(used-*q.UsedToday, 0) // what HubSpot has not counted yet is no calls of others
		r.Elsewhere = &elsewhere
	}
	return r
}
