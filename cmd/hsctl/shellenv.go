package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

// shells are those that env writes for, and how each sets a variable.
var shells = map[string]string{
	"sh":   "export HSAGENT_SOCK=%s\n",
	"bash": "export HSAGENT_SOCK=%s\n",
	"zsh":  "export HSAGENT_SOCK=%s\n",
	"fish": "set -gx HSAGENT_SOCK %s\n",
}

func newEnv(e *env) *cobra.Command {
	shell := "sh"
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the line that tells other programs where the agent is",
		Example: `eval "$(hsctl env)"
hsctl env --shell fish | source`,
		Args: positional(0, 0),
		RunE: func(*cobra.Command, []string) error { return runEnv(e, shell) },
	}
	cmd.Flags().StringVar(&shell, "shell", shell, "`shell` to write for: sh, bash, zsh or fish")
	_ = cmd.RegisterFlagCompletionFunc("shell", words("sh", "bash", "zsh", "fish")) // fails for unknown flags only
	return cmd
}

func runEnv(e *env, shell string) error {
	form, ok := shells[shell]
	if !ok {
		return usagef("--shell %s: want sh, bash, zsh or fish", wire.Quote(shell))
	}
	if _, err := e.client(); err != nil {
		return err
	}
	path, err := filepath.Abs(e.socket())
	if err != nil {
		return fmt.Errorf("socket %s: %w", e.socket(), err)
	}
	quoted := "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	if shell == "fish" {
		quoted = "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(path) + "'"
	}
	_, err = fmt.Fprintf(e.stdout, form, quoted)
	return err
}
