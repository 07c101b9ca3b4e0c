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
	portalID  int64
	kind      string
	tokenFile string
	dryRun    bool

	hasPortalID bool // the flag was given
}

func newOnboard(e *env) *cobra.Command {
	o := &onboardOptions{}
	cmd := &cobra.Command{
		Use:   "onboard SLUG",
		Short: "Verify a client's token and put it into the store",
		Example: `hsctl onboard acme-corp --portal-id 12345678
pass show hubspot/acme | hsctl onboard acme-corp --portal-id 12345678
hsctl onboard acme-corp --token-file acme.token --dry-run`,
		Long: `The token comes from a prompt without echo, from stdin, or from a file: never
from an argument. The agent asks HubSpot which portal it opens, and stores it only
if that is the portal of --portal-id, where given.`,
		Args:              positional(1, 1),
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
}

func (o *onboardOptions) run(ctx context.Context, e *env, args []string) error {
	slugs, err := parseSlugs(args)
	if err != nil {
		return err
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
	token, err := o.token(ctx, e, slugs[0])
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
		e.note("%s: onboarded, portal %d", slugs[0], p.PortalID)
	}
	return e.emitPortal(p)
}

// token reads the token from the file, the terminal or stdin.
func (o *onboardOptions) token(ctx context.Context, e *env, slug wire.Slug) (wire.Token, error) {
	s, err := o.readToken(ctx, e, slug)
	if err != nil {
		return wire.Token{}, fmt.Errorf("read the token of %s: %w", slug, err)
	}
	t := wire.NewToken(strings.TrimSpace(s))
	if err := t.Check(); err != nil {
		return wire.Token{}, usagef("%s: %w", slug, err)
	}
	return t, nil
}

func (o *onboardOptions) readToken(ctx context.Context, e *env, slug wire.Slug) (string, error) {
	if o.tokenFile != "" {
		f, err := openPrivate(o.tokenFile)
		if err != nil {
			return "", err
		}
		defer func() { _ = f.Close() }() // only read
		return readSecret(ctx, f)
	}
	if _, ok := terminal(e.stdin); ok {
		return e.prompt(ctx, fmt.Sprintf("token of %s (not shown): ", slug))
	}
	return readSecret(ctx, e.stdin)
}

// openPrivate opens a file with a secret. A regular file that every user of the
// machine may read is refused.
func openPrivate(path string) (io.ReadCloser, error) {
	f, err := os.Open(path) //nolint:gosec // the user names the file
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
