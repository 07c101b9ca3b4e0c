package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/hsagent/hsagentd/wire"
)

// An exitError ends hsctl with its own exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usagef returns the error of a command line that cannot be run.
func usagef(format string, args ...any) error {
	return &exitError{wire.ExitUsage, fmt.Errorf(format, args...)}
}

// exitCode is hsctl's exit code for err. ctx ends when a signal came.
func exitCode(ctx context.Context, err error) int {
	var own *exitError
	var problem *wire.Problem
	var child *childError
	switch {
	case err == nil:
		return wire.ExitOK
	case errors.As(err, &child):
		return child.code
	case ctx.Err() != nil:
		return wire.ExitInterrupted
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &problem):
		return problem.Code.Exit()
	case errors.Is(err, wire.ErrUnreachable):
		return wire.ExitUnreachable
	}
	return wire.ExitFailed
}

// report tells on stderr why a command ended, and what to do about it. An
// interruption needs no words, nor does a reader that has seen enough.
func (e *env) report(ctx context.Context, err error) {
	var child *childError
	if err == nil || errors.As(err, &child) || ctx.Err() != nil || errors.Is(err, syscall.EPIPE) {
		return
	}
	msg := message(err)
	if errors.Is(err, wire.ErrUnreachable) {
		msg += "\n" + e.hint(err)
	}
	e.complain(msg)
}

// message is the text of err, with all that a problem in it tells.
func message(err error) string {
	var problem *wire.Problem
	if errors.As(err, &problem) {
		return strings.Replace(err.Error(), problem.Error(), describe(problem), 1)
	}
	return err.Error()
}

// describe is a problem in one line, with what its fields add to its detail.
func describe(p *wire.Problem) string {
	msg := p.Error()
	unsaid := func(s string) bool { return !strings.Contains(p.Detail, s) }
	if len(p.Similar) > 0 && slices.ContainsFunc(p.Similar, unsaid) {
		msg += "; did you mean " + strings.Join(p.Similar, " or ") + "?"
	}
	if p.RetryAfter > 0 {
		msg += fmt.Sprintf(" (try again in %d s)", p.RetryAfter)
	}
	if p.CallID != "" && unsaid(p.CallID) {
		msg += " (call " + p.CallID + ")"
	}
	return msg
}

// hint says how to get to an agent that answers.
func (e *env) hint(err error) string {
	switch {
	case errors.Is(err, os.ErrPermission):
		return "you may not open that socket: ask to join the group that its socket_group names, then log in again"
	case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED):
		return "see what it says: hsctl status, journalctl -u hsagentd"
	}
	if e.socket() == systemSocket && e.uid != 0 {
		return "root starts it: systemctl start hsagentd.socket"
	}
	start := "systemctl --user start hsagentd.socket"
	if e.uid == 0 {
		start = "systemctl start hsagentd.socket"
	}
	hint := "start it: " + start + "\nor, without systemd: hsagentd, and before the first start hsagentd init"
	if e.socket() != systemSocket {
		if _, err := os.Stat(systemSocket); err == nil {
			hint += "\nthis machine's own agent is at another socket: export HSAGENT_SOCK=" + systemSocket
		}
	}
	return hint
}

// exitTexts explain the exit codes in help.
var exitTexts = map[int]string{
	wire.ExitOK:               "ok",
	wire.ExitFailed:           "failed",
	wire.ExitUsage:            "usage: the command line or the request is malformed",
	wire.ExitHubSpot4xx:       "HubSpot answered 4xx",
	wire.ExitHubSpot5xx:       "HubSpot answered 5xx, or not at all",
	wire.ExitUnreachable:      "the agent is unreachable",
	wire.ExitLocked:           "the agent is locked",
	wire.ExitDenied:           "denied",
	wire.ExitUnknownPortal:    "unknown portal",
	wire.ExitQuarantined:      "the portal is quarantined, rejected or not verified",
	wire.ExitThrottled:        "throttled, or the quota is used up",
	wire.ExitAuditUnavailable: "the audit log is unavailable: nothing was sent",
	wire.ExitVerification:     "verification failed (identity, audit log)",
	wire.ExitInterrupted:      "interrupted",
}
