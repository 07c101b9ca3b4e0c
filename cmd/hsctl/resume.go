package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

func newResume(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "resume SLUG",
		Short: "Lift a portal's quarantine, once its cause is mended",
		Example: `hsctl portals acme-corp
hsctl resume acme-corp`,
		Args:              positional(1, 1),
		ValidArgsFunction: completeSlugs(e, 1),
		Annotations:       exits(5, 7, 8, 9, 10, 12, 13),
		RunE:              func(cmd *cobra.Command, args []string) error { return runResume(cmd.Context(), e, args) },
	}
}

func runResume(ctx context.Context, e *env, args []string) error {
	c, slugs, err := e.clientFor(args)
	if err != nil {
		return err
	}
	defer c.Close()
	p := &wire.Portal{}
	if err := c.Do(ctx, http.MethodPost, "/v1/portals/"+slugs[0].String()+"/resume", nil, nil, p); err != nil {
		return err
	}
	e.note("%s: resumed, now %s", slugs[0], p.State)
	return e.emitPortal(p)
}
