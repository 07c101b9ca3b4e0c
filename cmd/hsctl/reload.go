package main

import (
	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

func newReload(e *env) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Make the agent read its store again",
		Example: `hsctl reload
hsctl reload --force`,
		Annotations: exits(7, 8, 12),
		Args:        positional(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.post(cmd.Context(), "/v1/reload", wire.Reload{Force: force}, "the agent has read its store again")
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "take a store whose version went back, or that lost many portals")
	return cmd
}
