package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

// What the shell says of a command that it cannot run.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// A childError ends hsctl with the exit code of the program that it ran, which
// has said itself what was wrong.
type childError struct{ code int }

func (e *childError) Error() string { return fmt.Sprintf("the command ended with %d", e.code) }

func newExec(e *env) *cobra.Command {
	reason := ""
	cmd := &cobra.Command{
		Use:   "exec SLUG -- CMD...",
		Short: "Run a program whose HubSpot calls go through the agent, without a token",
		Example: `hsctl exec acme-corp -- python3 report.py
hsctl exec acme-corp --reason TICKET-7 -- node import.js --dry-run
hsctl exec acme-corp -- sh -c 'curl -H "Authorization: Bearer $HUBSPOT_ACCESS_TOKEN" $HUBSPOT_BASE_URL/crm/v3/owners'`,
		Long: `CMD gets HUBSPOT_BASE_URL, an address on this machine where hsctl listens, and
HUBSPOT_ACCESS_TOKEN, which is made up: it is good for nothing but this address,
and only until CMD ends. SDKs work as they are, given both. What CMD sends there
hsctl passes on as calls for SLUG.

Variables of CMD's environment that have a HubSpot token are left out; all else
stays. Signals go to CMD, and hsctl ends with CMD's exit status.`,
		Args:              execArgs,
		ValidArgsFunction: completeSlugs(e, 1),
		Annotations:       exits(7, 8, 9),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runExec(cmd.Context(), e, args[0], args[1:], reason)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`text` kept in the audit record of each call: a ticket, a legal basis")
	return cmd
}

// execArgs wants the slug before, and the command behind the two dashes.
func execArgs(cmd *cobra.Command, args []string) error {
	if dash := cmd.ArgsLenAtDash(); dash == 1 && len(args) > 1 {
		return nil
	}
	return usagef("want: hsctl exec SLUG -- CMD..., with the two dashes before the command")
}

func runExec(ctx context.Context, e *env, name string, command []string, reason string) error {
	slugs, err := parseSlugs([]string{name})
	if err != nil {
		return err
	}
	if err := checkReason(reason); err != nil {
		return err
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Portal(ctx, slugs[0]); err != nil {
		return err // better now than in the middle of CMD
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the command: %w", err)
	}
	b := newBridge(c, slugs[0], l.Addr().String(), reason)
	served := make(chan error, 1)
	go func() { served <- b.serve(l) }()
	err = runChild(e, command, childEnv(os.Environ(), b))
	return errors.Join(err, b.close(), <-served)
}

// runChild runs the command, passes signals on to it, and returns how it ended.
func runChild(e *env, command, environ []string) error {
	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // what the user asked for; signals are passed on below
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, e.stdin, e.stdout, e.stderr
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		code := exitNotExecutable
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			code = exitNotFound
		}
		return &exitError{code, fmt.Errorf("run %s: %w", wire.Quote(command[0]), err)}
	}
	_, atTerminal := terminal(e.stdin)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if atTerminal && (s == syscall.SIGINT || s == syscall.SIGQUIT) {
				continue // a terminal sends them to all of the foreground, the command too
			}
			_ = cmd.Process.Signal(s) // it may have ended
		case err := <-ended:
			return childEnd(err)
		}
	}
}

// childEnd is the error that stands for the command's end. Like a shell, it
// takes a signal for 128 and its number.
func childEnd(err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return &childError{wire.ExitOK}
	case !errors.As(err, &exit):
		return fmt.Errorf("run the command: %w", err)
	}
	if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() {
		return &childError{128 + int(st.Signal())}
	}
	return &childError{exit.ExitCode()}
}

// childEnv is the command's environment: ours without HubSpot's credentials,
// and with the bridge's in their place.
func childEnv(environ []string, b *bridge) []string {
	out := slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, value, _ := strings.Cut(kv, "=")
		return credentialVar(name) || wire.MaskTokens(value) != value
	})
	if slices.ContainsFunc(out, isProxyVar) {
		for _, name := range []string{"no_proxy", "NO_PROXY"} {
			out = append(out, name+"="+strings.TrimPrefix(lookup(out, name)+",127.0.0.1", ","))
		}
	}
	return append(out, "HUBSPOT_BASE_URL=http://"+b.host, "HUBSPOT_ACCESS_TOKEN="+b.token.Reveal())
}

// credentialVar reports whether a variable is one that holds a credential of
// HubSpot's, whatever its value.
func credentialVar(name string) bool {
	name = strings.ToUpper(name)
	if !strings.Contains(name, "HUBSPOT") && !strings.Contains(name, "HAPIKEY") {
		return false
	}
	return slices.ContainsFunc([]string{"TOKEN", "KEY", "SECRET", "PASSWORD", "BASE_URL"}, func(s string) bool { return strings.Contains(name, s) })
}

// isProxyVar reports whether a variable could send the command's calls to a
// proxy instead of the bridge.
func isProxyVar(kv string) bool {
	name, value, _ := strings.Cut(kv, "=")
	return value != "" && slices.Contains([]string{"HTTP_PROXY", "ALL_PROXY"}, strings.ToUpper(name))
}

func lookup(environ []string, name string) string {
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}
