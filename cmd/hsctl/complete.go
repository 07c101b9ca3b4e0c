package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// completionBudget is how long a TAB waits for the agent.
const completionBudget = 200 * time.Millisecond

// words completes from a fixed list.
func words(list ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)
}

// completeSlugs completes up to limit slugs (0: any number) from the agent's
// fleet, and is silent when there is no agent.
func completeSlugs(e *env, limit int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		const directive = cobra.ShellCompDirectiveNoFileComp
		if limit > 0 && len(args) >= limit {
			return nil, directive
		}
		c, err := e.client()
		if err != nil {
			return nil, directive
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completionBudget)
		defer cancel()
		portals, err := c.Portals(ctx)
		if err != nil {
			return nil, directive // a prompt is no place for an error message
		}
		list := make([]cobra.Completion, len(portals))
		for i, p := range portals {
			list[i] = cobra.CompletionWithDesc(p.Slug, fmt.Sprintf("%d %s", p.PortalID, p.State))
		}
		return list, directive
	}
}

// completeCall completes SLUG METHOD PATH.
func completeCall(e *env) cobra.CompletionFunc {
	slugs := completeSlugs(e, 1)
	return func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return methods, cobra.ShellCompDirectiveNoFileComp
		}
		return slugs(cmd, args, word)
	}
}

// newCompletion prints a shell's completion script.
func newCompletion(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print the completion script of a shell: bash, zsh, fish or powershell",
		Example: `. <(hsctl completion bash)
hsctl completion zsh >"${fpath[1]}/_hsctl"
hsctl completion fish >~/.config/fish/completions/hsctl.fish`,
		Args:              positional(1, 1),
		ValidArgsFunction: words("bash", "zsh", "fish", "powershell"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(e.stdout, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(e.stdout)
			case "fish":
				return cmd.Root().GenFishCompletion(e.stdout, true)
			case "powershell":
				return cmd.Root().GenPowerShellCompletionWithDesc(e.stdout)
			}
			return usagef("shell %q: want bash, zsh, fish or powershell", args[0])
		},
	}
}
