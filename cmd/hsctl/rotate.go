package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

type rotateOptions struct {
	fleet     fleetOptions
	tokenFile string
	dryRun    bool
}

func newRotate(e *env) *cobra.Command {
	o := &rotateOptions{}
	cmd := &cobra.Command{
		Use:   "rotate SLUG | --csv FILE",
		Short: "Give clients new tokens, and show what is left to do about the old ones",
		Example: `hsctl rotate acme-corp
pass show hubspot/acme-new | hsctl rotate acme-corp --dry-run
hsctl rotate --csv new-tokens.csv
hsctl rotate status acme-corp
hsctl rotate done acme-corp 'CI secrets'`,
		Long: `In HubSpot choose "Rotate and expire later", so that the old token goes on working for
7 days, and give the new one here: the agent takes it if it opens the same portal, and
calls leave with it from then on. Then give it to everybody else on the checklist that
"hsctl rotate status" shows, and only when all of them have it let HubSpot expire the
old one.

The token comes from a prompt without echo, from stdin, or from a file: never from an
argument. A CSV is the same as for "hsctl onboard". For a client whose slug is "status"
or "done", put -- before the slug.`,
		Args:              positional(0, 1),
		ValidArgsFunction: completeSlugs(e, 1),
		Annotations:       exits(5, 7, 8, 9, 10, 11, 12, 13),
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), e, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.tokenFile, "token-file", "", "read the new token from `FILE`, which others may not read")
	f.BoolVar(&o.dryRun, "dry-run", false, "verify only, write nothing")
	o.fleet.addFlags(f)
	cmd.AddCommand(newRotateStatus(e), newRotateDone(e))
	return cmd
}

func (o *rotateOptions) run(ctx context.Context, e *env, args []string) error {
	slugs, err := parseSlugs(args)
	if err != nil {
		return err
	}
	if err := o.fleet.check(args, o.tokenFile != ""); err != nil {
		return err
	}
	if o.fleet.csv != "" {
		return o.fleet.run(ctx, e, "/v1/rotate", o.dryRun)
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	slug := slugs[0]
	token, err := e.token(ctx, o.tokenFile, "new token of "+slug.String())
	if err != nil {
		return err
	}
	p, err := c.Rotate(ctx, slug, token, o.dryRun)
	if err != nil {
		return err
	}
	if o.dryRun {
		e.note("%s: the new token opens the same portal, %d; nothing was written", slug, p.PortalID)
		return e.emitPortal(p)
	}
	e.note("%s: calls leave with the new token now, portal %d", slug, p.PortalID)
	if e.format() == formatTable {
		if r, err := c.Rotation(ctx, slug); err == nil {
			return e.emitRotation(r)
		}
		e.note("%s: see what is left to do: hsctl rotate status %s", slug, slug)
	}
	return e.emitPortal(p)
}

func newRotateStatus(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "status [SLUG]",
		Short: "Show how far the rotations are, or the checklist of one",
		Example: `hsctl rotate status
hsctl rotate status acme-corp
hsctl rotate status -o json | jq -r '.rotations[] | select(.state != "confirmed") | .slug'`,
		Args:              positional(0, 1),
		ValidArgsFunction: completeSlugs(e, 1),
		Annotations:       exits(8, 9),
		RunE:              func(cmd *cobra.Command, args []string) error { return runRotateStatus(cmd.Context(), e, args) },
	}
}

func runRotateStatus(ctx context.Context, e *env, args []string) error {
	c, slugs, err := e.clientFor(args)
	if err != nil {
		return err
	}
	defer c.Close()
	if len(slugs) == 1 {
		r, err := c.Rotation(ctx, slugs[0])
		if err != nil {
			return err
		}
		return e.emitRotation(r)
	}
	all, err := c.Rotations(ctx)
	if err != nil {
		return err
	}
	if all == nil {
		all = []wire.Rotation{}
	}
	return e.emit(wire.Rotations{Rotations: all}, func() *table { return rotationTable(all) })
}

func newRotateDone(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "done SLUG CONSUMER",
		Short: "Say that a consumer outside the agent has the new token",
		Example: `hsctl rotate done acme-corp 'CI secrets'
hsctl rotate done acme-corp zapier`,
		Args:              positional(2, 2),
		ValidArgsFunction: completeConsumers(e),
		Annotations:       exits(8, 9, 12),
		RunE:              func(cmd *cobra.Command, args []string) error { return runRotateDone(cmd.Context(), e, args) },
	}
}

func runRotateDone(ctx context.Context, e *env, args []string) error {
	c, slugs, err := e.clientFor(args[:1])
	if err != nil {
		return err
	}
	defer c.Close()
	if args[1] == "" || hasToken(args[1]) {
		return usagef("consumer %s: want a name from the checklist: hsctl rotate status %s", wire.Quote(args[1]), slugs[0])
	}
	r, err := c.ConfirmConsumer(ctx, slugs[0], args[1])
	if err != nil {
		return err
	}
	if waiting := unconfirmed(r); len(waiting) > 0 {
		e.note("%s: %s has the new token; not confirmed yet: %s", r.Slug, args[1], strings.Join(waiting, ", "))
	} else {
		e.note("%s: %s has the new token, and with it everybody", r.Slug, args[1])
	}
	return e.emitRotation(r)
}

// completeConsumers completes SLUG CONSUMER: the consumers that have not
// confirmed.
func completeConsumers(e *env) cobra.CompletionFunc {
	slugs := completeSlugs(e, 1)
	return func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return slugs(cmd, args, word)
		}
		const directive = cobra.ShellCompDirectiveNoFileComp
		slug, err := wire.ParseSlug(args[0])
		if err != nil {
			return nil, directive
		}
		c, err := e.client()
		if err != nil {
			return nil, directive
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completionBudget)
		defer cancel()
		r, err := c.Rotation(ctx, slug)
		if err != nil {
			return nil, directive // a prompt is no place for an error message
		}
		return unconfirmed(r), directive
	}
}
