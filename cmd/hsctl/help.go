package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

// exitsKey is the annotation that lists a command's exit codes.
const exitsKey = "exits"

// exits annotates a command with the exit codes it may end with, besides those
// that every command has.
func exits(codes ...int) map[string]string {
	s := make([]string, len(codes))
	for i, c := range codes {
		s[i] = strconv.Itoa(c)
	}
	return map[string]string{exitsKey: strings.Join(s, ",")}
}

// help writes a command's help: what it does, examples first, the exit status
// last.
func help(cmd *cobra.Command) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", cmd.Short)
	section(&b, "EXAMPLES", cmd.Example)
	section(&b, "USAGE", cmd.UseLine())
	if cmd.Long != "" {
		section(&b, "DESCRIPTION", cmd.Long)
	}
	if cmd.HasAvailableSubCommands() {
		var list strings.Builder
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(&list, "%-12s%s\n", c.Name(), c.Short)
			}
		}
		section(&b, "COMMANDS", list.String())
	}
	if f := cmd.LocalNonPersistentFlags(); f.HasAvailableFlags() {
		section(&b, "OPTIONS", unindent(f.FlagUsages()))
	}
	if f := cmd.Root().PersistentFlags(); f.HasAvailableFlags() {
		section(&b, "GLOBAL OPTIONS", unindent(f.FlagUsages()))
	}
	section(&b, "EXIT STATUS", exitStatus(cmd))
	_, _ = fmt.Fprint(cmd.OutOrStdout(), b.String()) // a reader that has closed stdout wants no help
}

// newHelp shows the help of the command that its arguments name.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND...]",
		Short:   "Show the help of a command",
		Example: `hsctl help audit query`,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return errors.Join(err, subcommandNeeded(about, rest))
			}
			return about.Help()
		},
	}
}

// section writes a heading and the text below it, indented.
func section(b *strings.Builder, heading, body string) {
	fmt.Fprintf(b, "\n%s\n", heading)
	for line := range strings.Lines(strings.TrimRight(body, "\n") + "\n") {
		if line != "\n" {
			b.WriteString("  ")
		}
		b.WriteString(line)
	}
}

// unindent takes away the two columns that pflag leaves before every flag.
func unindent(usages string) string {
	var b strings.Builder
	for line := range strings.Lines(usages) {
		b.WriteString(strings.TrimPrefix(line, "  "))
	}
	return b.String()
}

// exitStatus lists the command's exit codes.
func exitStatus(cmd *cobra.Command) string {
	codes := map[int]bool{
		wire.ExitOK: true, wire.ExitFailed: true, wire.ExitUsage: true, wire.ExitUnreachable: true, wire.ExitInterrupted: true,
	}
	for s := range strings.SplitSeq(cmd.Annotations[exitsKey], ",") {
		if n, err := strconv.Atoi(s); err == nil {
			codes[n] = true
		}
	}
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(codes)) {
		fmt.Fprintf(&b, "%-5d%s\n", n, exitTexts[n])
	}
	return b.String()
}
