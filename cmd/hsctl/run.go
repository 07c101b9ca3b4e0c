package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

// run does what args ask for and returns the exit code.
func run(ctx context.Context, args []string, e *env) int {
	root := newRoot(e)
	// Scripts run call again and again: it does not wait for the making of
	// commands that it is not.
	if len(args) > 0 && args[0] == "call" {
		root.AddCommand(newCall(e))
	} else {
		addCommands(root, e)
	}
	for _, cmd := range root.Commands() {
		showVersion(cmd)
	}
	root.SetArgs(slices.Concat([]string{}, args)) // never nil: cobra would take os.Args
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	err := root.ExecuteContext(ctx)
	e.report(ctx, err)
	return exitCode(ctx, err)
}

// newRoot makes the command that holds all others.
func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "hsctl",
		Short: "Make HubSpot calls for a client by its slug, through hsagentd, without its token",
		Example: `hsctl call acme-corp GET /crm/v3/objects/contacts --query limit=10
hsctl call acme-corp POST /crm/v3/objects/contacts -f properties.email=ann@example.com
hsctl portals
hsctl audit tail -f
hsctl onboard beta-inc --portal-id 87654321 <token.txt`,
		Annotations:       exits(4, 5, 7, 8, 9, 10, 11, 12, 13),
		Version:           wire.Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.Args, root.RunE = subcommandNeeded, missing
	root.SetVersionTemplate("hsctl {{.Version}}\n")
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { help(cmd) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { help(cmd); return nil })
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if errors.Is(err, strconv.ErrSyntax) || errors.Is(err, strconv.ErrRange) {
			what, _, _ := strings.Cut(err.Error(), ": strconv.")
			return usagef("%s: want a whole number; see %s --help", what, cmd.CommandPath())
		}
		return usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return e.checkGlobal() }
	f := root.PersistentFlags()
	f.StringVar(&e.global.socket, "socket", "", "`path` of the agent's socket (default $HSAGENT_SOCK, else the user's or the system's agent)")
	f.StringVarP(&e.global.output, "output", "o", "", "`format` of data: table, json or csv (default table on a terminal, else json)")
	f.BoolVar(&e.global.quiet, "quiet", false, "say nothing on stderr but errors")
	f.BoolVar(&e.global.noColor, "no-color", false, "no colours (also NO_COLOR)")
	_ = root.RegisterFlagCompletionFunc("output", words(formatTable, formatJSON, formatCSV)) // fails for unknown flags only

	root.SetHelpCommand(newHelp())
	return root
}

// showVersion lets a command, and those below it, take the root's --version.
func showVersion(cmd *cobra.Command) {
	cmd.Version = wire.Version
	f := cmd.Flags()
	f.BoolP("version", "v", false, "")
	f.Lookup("version").Hidden = true // it is the root's to list
	for _, sub := range cmd.Commands() {
		showVersion(sub)
	}
}

// addCommands adds every command.
func addCommands(root *cobra.Command, e *env) {
	root.AddCommand(
		newCall(e), newPortals(e), newStatus(e), newOnboard(e), newRotate(e), newVerify(e), newResume(e), newRemove(e), newQuota(e), newReport(e), newAudit(e),
		newExec(e), newPolicy(e), newConfirm(e), newLock(e), newUnlock(e), newReload(e), newDoctor(e), newEnv(e), newVersion(e), newCompletion(e),
	)
}

// checkGlobal refuses values that no command takes.
func (e *env) checkGlobal() error {
	if o := e.global.output; o != "" && !slices.Contains([]string{formatTable, formatJSON, formatCSV}, o) {
		return usagef("--output %s: want table, json or csv", wire.Quote(o))
	}
	return nil
}

// subcommandNeeded refuses words that are no command, with those close to it.
func subcommandNeeded(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	msg := fmt.Sprintf("%s has no command %s", cmd.CommandPath(), wire.Quote(args[0]))
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		msg += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usagef("%s; see %s --help", msg, cmd.CommandPath())
}

// missing is the run of a command that only holds others.
func missing(cmd *cobra.Command, _ []string) error {
	return usagef("which command? See %s --help", cmd.CommandPath())
}

// positional wants from low to high arguments (high < 0: any number).
func positional(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && (high < 0 || len(args) <= high) {
			return nil
		}
		if slices.ContainsFunc(args, func(a string) bool { return wire.MaskTokens(a) != a }) {
			return usagef("a token stands among the arguments, where the process list and the shell's history show it: rotate it, " +
				"and give tokens on stdin, at the prompt or in a file")
		}
		return usagef("want: %s", cmd.UseLine())
	}
}

// parseSlugs parses all of args.
func parseSlugs(args []string) ([]wire.Slug, error) {
	slugs := make([]wire.Slug, len(args))
	for i, a := range args {
		s, err := wire.ParseSlug(a)
		if err != nil {
			return nil, &exitError{wire.ExitUsage, err}
		}
		slugs[i] = s
	}
	return slugs, nil
}

// clientFor is a client, and the slugs that args are.
func (e *env) clientFor(args []string) (*wire.Client, []wire.Slug, error) {
	slugs, err := parseSlugs(args)
	if err != nil {
		return nil, nil, err
	}
	c, err := e.client()
	return c, slugs, err
}
