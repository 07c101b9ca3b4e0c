package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/hsagent/hsagentd/wire"
)

// statusInterval is how often systemd's status line is brought up to date
// where no watchdog asks for more.
const statusInterval = 15 * time.Second

// A notifier tells systemd how the daemon does. Without systemd it does
// nothing.
type notifier struct {
	log      *slog.Logger
	watchdog time.Duration // 0: none
	last     string        // status line sent last
}

func newNotifier(ctx context.Context, log *slog.Logger) *notifier {
	n := &notifier{log: log}
	var err error
	if n.watchdog, err = sd.SdWatchdogEnabled(false); err != nil {
		log.WarnContext(ctx, "no watchdog: systemd's request cannot be read", "error", err)
	}
	return n
}

func (n *notifier) send(ctx context.Context, lines ...string) {
	if _, err := sd.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		n.log.WarnContext(ctx, "cannot tell systemd", "state", lines[0], "error", err)
	}
}

func (n *notifier) ready(ctx context.Context)    { n.send(ctx, sd.SdNotifyReady) }
func (n *notifier) stopping(ctx context.Context) { n.send(ctx, sd.SdNotifyStopping, "STATUS=stopping") }

// reloading is to be followed by ready. The time lets systemd 253 and later
// match it with its own request.
func (n *notifier) reloading(ctx context.Context) {
	n.send(ctx, sd.SdNotifyReloading, strings.TrimSpace(sd.SdNotifyMonotonicUsec()))
}

// watch asks the agent for its status through the socket, as any client does,
// until ctx ends. Each answer feeds the watchdog: a daemon that no longer
// answers is restarted by systemd.
func (n *notifier) watch(ctx context.Context, ask func(context.Context) (*wire.Status, error)) {
	interval := statusInterval
	if n.watchdog > 0 {
		interval = min(interval, n.watchdog/3)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		n.beat(ctx, interval, ask)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (n *notifier) beat(ctx context.Context, timeout time.Duration, ask func(context.Context) (*wire.Status, error)) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	st, err := ask(ctx)
	if err != nil {
		if context.Cause(ctx) != context.Canceled { //nolint:errorlint // the daemon stops: no failure
			n.log.ErrorContext(ctx, "the agent does not answer its own question for status", "error", err)
		}
		return
	}
	var lines []string
	if n.watchdog > 0 {
		lines = append(lines, sd.SdNotifyWatchdog)
	}
	if line := statusLine(st); line != n.last {
		n.last = line
		lines = append(lines, "STATUS="+line)
	}
	if len(lines) > 0 {
		n.send(ctx, lines...)
	}
}

// statusLine is the status in one line: the worst first.
func statusLine(st *wire.Status) string {
	var parts []string
	if st.Audit.LastError != "" {
		parts = append(parts, "no calls: the audit log is shut: "+string(st.Audit.LastError))
	}
	if st.Locked {
		parts = append(parts, "locked: unlock with hsctl unlock")
	}
	if st.Store.LastError != "" {
		parts = append(parts, "store refused: "+string(st.Store.LastError))
	}
	if st.Policy.LastError != "" {
		parts = append(parts, "policy refused: "+string(st.Policy.LastError))
	}
	if !st.Locked {
		var states []string
		for state, n := range st.Portals {
			if n > 0 || state == string(wire.StateReady) {
				states = append(states, fmt.Sprintf("%d %s", n, state))
			}
		}
		slices.Sort(states)
		if len(states) == 0 {
			states = []string{"none yet"}
		}
		parts = append(parts, "portals: "+strings.Join(states, ", "))
	}
	return wire.Printable(wire.MaskTokens(strings.Join(parts, "; ")))
}
