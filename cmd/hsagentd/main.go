// Command hsagentd is the agent: it holds HubSpot tokens and makes calls for
// local programs that ask for them by slug. No program is ever given a token.
//
// This package is wiring: it turns flags, environment and the config file into
// an audit log, an agent and a socket, and tells systemd how they do. What
// guards the tokens while they are in memory (no core files, no reading by
// other processes, no debug switch of the Go runtime that prints headers)
// happens in harden.go, before the identity is read.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Exit codes, as in sysexits.h where it has one.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2  // a flag or an environment variable is wrong
	exitInUse  = 75 // another hsagentd runs with the same socket, store or audit log
	exitConfig = 78 // config file, identity, store or audit log must be mended first
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], systemEnv(stop))
	stop()
	os.Exit(code)
}

// run does what args say and returns the exit code.
func run(ctx context.Context, args []string, e *env) int {
	verb := serve
	if len(args) > 0 {
		switch args[0] {
		case "init":
			verb, args = initialize, args[1:]
		case "check":
			verb, args = check, args[1:]
		case "accept-loss":
			verb, args = acceptLoss, args[1:]
		case "rotate-audit-key":
			verb, args = rotateAuditKey, args[1:]
		case "demo":
			verb, args = demo, args[1:]
		}
	}
	err := verb(ctx, e, args)
	var coded *codeError
	if errors.As(err, &coded) && coded.err == nil {
		return coded.code // said already, or somebody else's code
	}
	if err != nil {
		// One line for each thing that is wrong; there is nowhere else to say it.
		_, _ = fmt.Fprintln(e.stderr, "hsagentd:", strings.ReplaceAll(err.Error(), "\n", "\nhsagentd: "))
	}
	return exitCode(err)
}
