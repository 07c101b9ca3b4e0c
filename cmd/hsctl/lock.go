package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

func newLock(e *env) *cobra.Command {
	return &cobra.Command{
		Use:         "lock",
		Short:       "Make the agent forget all tokens until it is unlocked",
		Example:     `hsctl lock`,
		Args:        positional(0, 0),
		Annotations: exits(8, 12),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.post(cmd.Context(), "/v1/lock", nil, "the agent is locked: it holds no tokens now")
		},
	}
}

func newUnlock(e *env) *cobra.Command {
	fd := -1
	cmd := &cobra.Command{
		Use:   "unlock",
		Short: "Let the agent decrypt its store again",
		Example: `hsctl unlock
hsctl unlock </run/secrets/passphrase
hsctl unlock --passphrase-fd 3 3</run/secrets/passphrase`,
		Long: `The passphrase comes from --passphrase-fd, from the file or descriptor that
HSAGENT_PASSPHRASE_FILE names, from a prompt without echo, or from stdin. It is
empty for an identity that needs none.`,
		Args:        positional(0, 0),
		Annotations: exits(7, 8, 12),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("passphrase-fd") && fd < 0 {
				return usagef("--passphrase-fd %d: want the number of an open descriptor", fd)
			}
			return runUnlock(cmd.Context(), e, fd)
		},
	}
	cmd.Flags().IntVar(&fd, "passphrase-fd", -1, "read the passphrase from descriptor `N`")
	cmd.Flags().Lookup("passphrase-fd").DefValue = "" // -1 is no news
	return cmd
}

func runUnlock(ctx context.Context, e *env, fd int) error {
	s, err := readPassphrase(ctx, e, fd)
	if err != nil {
		return fmt.Errorf("read the passphrase: %w", err)
	}
	s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
	return e.post(ctx, "/v1/unlock", wire.Unlock{Passphrase: s}, "the agent is unlocked")
}

// readPassphrase reads from the first source that was named.
func readPassphrase(ctx context.Context, e *env, fd int) (string, error) {
	name := e.getenv("HSAGENT_PASSPHRASE_FILE")
	if n, err := strconv.Atoi(name); err == nil && fd < 0 {
		fd = n
	}
	switch _, atTerminal := terminal(e.stdin); {
	case fd >= 0:
		name = "/dev/fd/" + strconv.Itoa(fd)
	case name != "":
	case atTerminal:
		return e.prompt(ctx, "passphrase (not shown): ")
	default:
		return readSecret(ctx, e.stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", &exitError{wire.ExitUsage, err}
	}
	defer func() { _ = f.Close() }() // only read
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o044 != 0 {
		e.note("others can read the passphrase in %s (mode %04o): chmod 600 it", wire.Quote(name), st.Mode().Perm())
	}
	return readSecret(ctx, f)
}

// post sends a request that has no data to show, and says when it is done.
func (e *env) post(ctx context.Context, path string, in any, done string) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Do(ctx, http.MethodPost, path, nil, in, nil); err != nil {
		return err
	}
	e.note("%s", done)
	return nil
}
