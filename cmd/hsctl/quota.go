package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

type quotaOptions struct {
	refresh bool
	below   int64

	hasBelow bool // the flag was given
}

func newQuota(e *env) *cobra.Command {
	o := &quotaOptions{}
	cmd := &cobra.Command{
		Use:   "quota [SLUG...]",
		Short: "Show how many calls are left to each portal",
		Example: `hsctl quota
hsctl quota acme-corp beta-inc --refresh
hsctl quota --below 50000 || mail -s 'HubSpot quota' ops@example.com </dev/null
hsctl quota -o json | jq -r '.portals[] | select(.state == "low") | .slug'`,
		Long: `The figures are HubSpot's, as old as observedAt says: each of its answers brings
them. --refresh asks HubSpot for them now, except for the portals whose calls are
stopped, and tells how old the oldest figure still is. Other programs that call the
portal use its quota up too; usedToday counts only the calls made here. What HubSpot
has not told stays empty.`,
		Args:              positional(0, -1),
		ValidArgsFunction: completeSlugs(e, 0),
		Annotations:       exits(5, 7, 8, 9, 11),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.hasBelow = cmd.Flags().Changed("below")
			return o.run(cmd.Context(), e, args)
		},
	}
	cmd.Flags().BoolVar(&o.refresh, "refresh", false, "ask HubSpot first")
	cmd.Flags().Int64Var(&o.below, "below", 0, "mark portals with less than `N` calls left today; exit 11 if there is one")
	return cmd
}

// A quotaRow is a portal's quota with its mark.
type quotaRow struct {
	wire.Quota
	Below bool `json:"below,omitempty"` // less is left than --below asks for
}

func (o *quotaOptions) run(ctx context.Context, e *env, args []string) error {
	if o.hasBelow && o.below < 1 {
		return usagef("--below %d: want a number of calls", o.below)
	}
	c, slugs, err := e.clientFor(args)
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.Quota(ctx, o.refresh)
	if err != nil {
		return err
	}
	if len(slugs) > 0 {
		if all, err = pickQuotas(ctx, c, all, slugs); err != nil {
			return err
		}
	}
	rows, below, unknown := make([]quotaRow, len(all)), 0, 0
	for i, q := range all {
		rows[i].Quota = q
		switch {
		case q.DailyRemaining == nil:
			unknown++
		case *q.DailyRemaining < o.below:
			rows[i].Below = true
			below++
		}
	}
	if err := e.emit(map[string]any{"portals": rows}, func() *table { return o.table(rows) }); err != nil {
		return err
	}
	if o.refresh {
		e.tellAge(all)
	}
	if o.hasBelow && unknown > 0 {
		e.note("HubSpot has not told how much is left to %d of %d portals", unknown, len(rows))
	}
	if below > 0 {
		return &exitError{wire.ExitThrottled, fmt.Errorf("%d of %d portals have less than %d calls left today", below, len(rows), o.below)}
	}
	return nil
}

// tellAge tells how old HubSpot's own figures are: what it counts of the day
// can lag behind, also when it was asked just now.
func (e *env) tellAge(all []wire.Quota) {
	var oldest *wire.Quota
	for i, q := range all {
		if q.ObservedAt != nil && (oldest == nil || q.ObservedAt.Before(oldest.ObservedAt.Time)) {
			oldest = &all[i]
		}
	}
	if oldest != nil {
		age := max(time.Since(oldest.ObservedAt.Time), 0).Round(time.Second)
		e.note("the oldest of HubSpot's figures, that of %s, is %s old", oldest.Slug, age)
	}
}

// pickQuotas returns the quotas of slugs, in their order.
func pickQuotas(ctx context.Context, c *wire.Client, all []wire.Quota, slugs []wire.Slug) ([]wire.Quota, error) {
	picked := make([]wire.Quota, len(slugs))
	for i, s := range slugs {
		k := slices.IndexFunc(all, func(q wire.Quota) bool { return q.Slug == s.String() })
		if k >= 0 {
			picked[i] = all[k]
			continue
		}
		p, err := c.Portal(ctx, s) // the agent says best what is wrong with the slug
		if err != nil {
			return nil, err
		}
		picked[i] = wire.Quota{Slug: p.Slug, PortalID: p.PortalID, State: wire.QuotaUnknown}
	}
	return picked, nil
}

func (o *quotaOptions) table(rows []quotaRow) *table {
	t := &table{header: []string{"slug", "portalId", "dailyLimit", "dailyRemaining", "usedToday", "resetsAt", "observedAt", "state"}}
	if o.hasBelow {
		t.header = append(t.header, "below")
	}
	for _, q := range rows {
		row := []cell{
			text(q.Slug), text(positive(q.PortalID)), text(number(q.DailyLimit)), text(number(q.DailyRemaining)),
			text(number(q.UsedToday)), moment(q.ResetsAt), moment(q.ObservedAt), quotaCell(q.State),
		}
		if o.hasBelow {
			mark := cell{}
			if q.Below {
				mark, row[3].sgr = cell{fmt.Sprintf("below %d", o.below), red}, red
			}
			row = append(row, mark)
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// quotaCell makes a cell of a quota's state.
func quotaCell(s wire.QuotaState) cell {
	c := text(s)
	switch s {
	case wire.QuotaOK:
		c.sgr = green
	case wire.QuotaLow, wire.QuotaParked:
		c.sgr = yellow
	case wire.QuotaExhausted:
		c.sgr = red
	}
	return c
}
