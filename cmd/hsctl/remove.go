package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func newRemove(e *env) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove SLUG",
		Short: "Take a client's token out of the store; its audit records stay",
		Example: `hsctl remove acme-corp
hsctl remove acme-corp --yes`,
		Long: `The token goes on working until it is revoked in HubSpot. On a terminal hsctl asks
first.`,
		Args:              positional(1, 1),
		ValidArgsFunction: completeSlugs(e, 1),
		Annotations:       exits(7, 8, 9, 12),
		RunE:              func(cmd *cobra.Command, args []string) error { return runRemove(cmd.Context(), e, args, yes) },
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func runRemove(ctx context.Context, e *env, args []string, yes bool) error {
	c, slugs, err := e.clientFor(args)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, ok := terminal(e.stdin); ok && !yes {
		p, err := c.Portal(ctx, slugs[0])
		if err != nil {
			return err
		}
		ok, err := e.confirm(ctx, fmt.Sprintf("remove %s (portal %d) from the store?", p.Slug, p.PortalID))
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("nothing was removed")
		}
	}
	if err := c.Remove(ctx, slugs[0]); err != nil {
		return err
	}
	e.note("%s: removed; its audit records stay, and its token works until it is revoked in HubSpot", slugs[0])
	return nil
}
