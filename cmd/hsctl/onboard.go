package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hsagent/hsagentd/wire"
)

// tokenKinds are the kinds of tokens that HubSpot gives out.
var tokenKinds = []string{"service-key", "private-app", "static-app"}

type onboardOptions struct {
	fleet     fleetOptions
	portalID  int64
	kind      string
	tokenFile string
	dryRun    bool

	hasPortalID bool // the flag was given
}

func newOnboard(e *env) *cobra.Command {
	o := &onboardOptions{}
	cmd := &cobra.Command{
		Use:   "onboard SLUG | --csv FILE",
		Short: "Verify the tokens of one or of many clients and put them into the store",
		Example: `hsctl onboard acme-corp --portal-id 12345678
pass show hubspot/acme | hsctl onboard acme-corp --portal-id 12345678
hsctl onboard acme-corp --token-file acme.token --dry-run
hsctl onboard --csv clients.csv --dry-run
pass show hubspot/clients.csv | hsctl onboard --csv - -o csv >results.csv`,
		Long: `The token comes from a prompt without echo, from stdin, or from a file: never
from an argument. The agent asks HubSpot which portal it opens, and stores it only
if that is the portal of --portal-id, where given.

A CSV has the columns clientSlug,portalToken,expectedPortalId, with commas,
semicolons or TABs. With a header they may stand in any order, beside others and
with the column kind. Empty lines and lines that start with # do not count. A row
that is bad, or whose token is, is named and left out. The store is written once,
at the end: an interrupted run leaves it as it was. JSON is one line a row as
results come, then one line of counts.`,
		Args:              positional(0, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       exits(5, 7, 8, 12, 13),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.hasPortalID = cmd.Flags().Changed("portal-id")
			return o.run(cmd.Context(), e, args)
		},
	}
	o.addFlags(cmd.Flags())
	_ = cmd.RegisterFlagCompletionFunc("kind", words(tokenKinds...)) // fails for unknown flags only
	return cmd
}

func (o *onboardOptions) addFlags(f *pflag.FlagSet) {
	f.Int64Var(&o.portalID, "portal-id", 0, "`ID` of the portal that the token has to open")
	f.StringVar(&o.kind, "kind", "", "`kind` of token: service-key, private-app or static-app")
	f.StringVar(&o.tokenFile, "token-file", "", "read the token from `FILE`, which others may not read")
	f.BoolVar(&o.dryRun, "dry-run", false, "verify only, write nothing")
	o.fleet.addFlags(f)
	f.BoolVar(&o.fleet.resume, "resume", false, "with --csv, do not send tokens of slugs that the store has")
}

func (o *onboardOptions) run(ctx context.Context, e *env, args []string) error {
	slugs, err := parseSlugs(args)
	if err != nil {
		return err
	}
	if err := o.fleet.check(args, o.hasPortalID || o.kind != "" || o.tokenFile != ""); err != nil {
		return err
	}
	if o.fleet.csv != "" {
		return o.fleet.run(ctx, e, "/v1/onboard", o.dryRun)
	}
	switch {
	case o.kind != "" && !slices.Contains(tokenKinds, o.kind):
		return usagef("--kind %s: want %s", wire.Quote(o.kind), strings.Join(tokenKinds, ", "))
	case o.hasPortalID && o.portalID <= 0:
		return usagef("--portal-id %d: want the number of a portal, such as 12345678", o.portalID)
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	token, err := e.token(ctx, o.tokenFile, "token of "+slugs[0].String())
	if err != nil {
		return err
	}
	p, err := c.Onboard(ctx, slugs[0], token, o.portalID, o.kind, o.dryRun)
	if err != nil {
		return err
	}
	if o.dryRun {
		e.note("%s: the token opens portal %d; nothing was written", slugs[0], p.PortalID)
	} else {
		e.note("%s: in the store, portal %d", slugs[0], p.PortalID)
	}
	return e.emitPortal(p)
}

// token reads a token from the file, the terminal or stdin; what says which one.
func (e *env) token(ctx context.Context, file, what string) (wire.Token, error) {
	s, err := e.readToken(ctx, file, what)
	if err != nil {
		return wire.Token{}, fmt.Errorf("read the %s: %w", what, err)
	}
	t := wire.NewToken(strings.TrimSpace(s))
	if err := t.Check(); err != nil {
		return wire.Token{}, usagef("%s: %w", what, err)
	}
	return t, nil
}

func (e *env) readToken(ctx context.Context, file, what string) (string, error) {
	if file != "" {
		f, err := openPrivate(file)
		if err != nil {
			return "", err
		}
		defer func() { _ = f.Close() }() // only read
		return readSecret(ctx, f)
	}
	if _, ok := terminal(e.stdin); ok {
		return e.prompt(ctx, what+" (not shown): ")
	}
	return readSecret(ctx, e.stdin)
}

// openPrivate opens a file with a secret. A regular file that every user of the
// machine may read is refused.
func openPrivate(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o004 != 0 {
		err = usagef("%s: every user of this machine can read it (mode %04o): chmod 600 it first", path, st.Mode().Perm())
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	return f, nil
}
