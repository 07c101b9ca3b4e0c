package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

// verifyAtOnce is how many portals are verified at the same time. Each one asks
// HubSpot once, within the portal's own quota.
const verifyAtOnce = 8

type verifyOptions struct {
	all        bool
	tokenStdin bool
	portalID   int64

	hasPortalID bool // the flag was given
}

func newVerify(e *env) *cobra.Command {
	o := &verifyOptions{}
	cmd := &cobra.Command{
		Use:   "verify [SLUG...] [--all] [--token-stdin]",
		Short: "Ask HubSpot again which portals the tokens open",
		Example: `hsctl verify acme-corp
hsctl verify --all
pass show hubspot/new | hsctl verify --token-stdin --portal-id 12345678`,
		Long: `With --token-stdin it asks about a token that is not in the store, and stores
nothing: "OK — portal 12345678 (STANDARD)", or "MISMATCH — token belongs to portal
87654321, expected 12345678" and exit code 13.`,
		Args:              positional(0, -1),
		ValidArgsFunction: completeSlugs(e, 0),
		Annotations:       exits(5, 7, 8, 9, 10, 11, 12, 13),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.hasPortalID = cmd.Flags().Changed("portal-id")
			return o.run(cmd.Context(), e, args)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "verify every portal")
	f.BoolVar(&o.tokenStdin, "token-stdin", false, "check the token on stdin, which is not in the store")
	f.Int64Var(&o.portalID, "portal-id", 0, "with --token-stdin, `ID` of the portal that the token has to open")
	return cmd
}

func (o *verifyOptions) run(ctx context.Context, e *env, args []string) error {
	switch {
	case o.hasPortalID && !o.tokenStdin:
		return usagef("verify: --portal-id wants --token-stdin; a slug's portal is in the store")
	case o.hasPortalID && o.portalID <= 0:
		return usagef("--portal-id %d: want the number of a portal, such as 12345678", o.portalID)
	case o.tokenStdin && (o.all || len(args) > 0), !o.tokenStdin && o.all == (len(args) > 0):
		return usagef("verify: want either slugs, --all or --token-stdin")
	case o.tokenStdin:
		return runTokenCheck(ctx, e, o.portalID)
	}
	c, slugs, err := e.clientFor(args)
	if err != nil {
		return err
	}
	defer c.Close()
	if len(slugs) == 1 {
		p, err := c.Verify(ctx, slugs[0])
		if err != nil {
			return err
		}
		if err := e.emitPortal(p); err != nil {
			return err
		}
		return verified(p)
	}
	if o.all {
		portals, err := c.Portals(ctx)
		if err != nil {
			return err
		}
		for _, p := range portals {
			s, err := wire.ParseSlug(p.Slug)
			if err != nil {
				e.complain(fmt.Sprintf("not verified: %v", err)) // a rejected entry: its slug is what is bad
				continue
			}
			slugs = append(slugs, s)
		}
	}
	return verifyMany(ctx, e, c, slugs)
}

// verifyMany verifies all slugs, shows those that answered, and complains about
// the others. Its error has the exit code of what went wrong most.
func verifyMany(ctx context.Context, e *env, c *wire.Client, slugs []wire.Slug) error {
	portals, errs := make([]*wire.Portal, len(slugs)), make([]error, len(slugs))
	slots := make(chan struct{}, verifyAtOnce)
	var wg sync.WaitGroup
	for i, s := range slugs {
		slots <- struct{}{}
		wg.Go(func() {
			portals[i], errs[i] = c.Verify(ctx, s)
			<-slots
		})
	}
	wg.Wait()

	shown, bad, code := []wire.Portal{}, 0, 0
	for i, p := range portals {
		err := errs[i]
		if err == nil {
			shown = append(shown, *p)
			err = verified(p)
		} else {
			err = fmt.Errorf("%s: %w", slugs[i], err)
		}
		if err == nil {
			continue
		}
		bad++
		e.complain(message(err))
		if code == 0 || exitCode(ctx, err) == wire.ExitVerification {
			code = exitCode(ctx, err)
		}
	}
	if err := e.emit(wire.Portals{Portals: shown}, func() *table { return portalTable(shown) }); err != nil {
		return err
	}
	if bad > 0 {
		return &exitError{code, fmt.Errorf("%d of %d portals are not verified", bad, len(slugs))}
	}
	e.note("%d portals verified", len(slugs))
	return nil
}

// verified is nil if p is ready.
func verified(p *wire.Portal) error {
	if p.State == wire.StateReady {
		return nil
	}
	return &exitError{wire.ExitVerification, fmt.Errorf("%s is %s: %s", p.Slug, p.State, p.Reason)}
}
