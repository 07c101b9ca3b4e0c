package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

func newStatus(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the agent is: its store, its audit log, its portals",
		Example: `hsctl status
hsctl status -o json | jq .audit`,
		Args:        positional(0, 0),
		Annotations: exits(8),
		RunE:        func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), e) },
	}
}

func runStatus(ctx context.Context, e *env) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	return e.emit(st, func() *table { return statusTable(st) })
}

// statusTable is the status as one fact a row.
func statusTable(st *wire.Status) *table {
	t := &table{header: []string{"what", "value"}}
	row := func(what string, c cell) { t.rows = append(t.rows, []cell{text(what), c}) }
	fault := func(what string, why wire.Fault) {
		if why != "" {
			row(what, cell{oneLine(string(why)), red})
		}
	}
	agent := cell{"serving", green}
	if st.Locked {
		agent = cell{"locked", yellow}
	}
	row("agent", agent)
	row("version", text(st.Version))
	row("pid", text(st.PID))
	row("uptime", text(time.Duration(st.UptimeSeconds)*time.Second))
	row("upstream", text(st.Upstream))
	row("calls in flight", text(st.CallsInFlight))
	var counts []string
	for _, state := range slices.Sorted(maps.Keys(st.Portals)) {
		if n := st.Portals[state]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, state))
		}
	}
	if counts == nil && !st.Locked {
		counts = []string{"none"}
	}
	row("portals", text(strings.Join(counts, ", ")))
	row("store", text(st.Store.Path))
	row("store version", text(st.Store.Version))
	row("store loaded", moment(st.Store.LoadedAt))
	fault("store error", st.Store.LastError)
	rules := "none: whoever may use the socket may call"
	if n := st.Policy.Rules; n > 0 {
		rules = fmt.Sprintf("%d rules", n)
	}
	row("policy", text(rules))
	fault("policy error", st.Policy.LastError)
	row("audit log", text(st.Audit.Path))
	row("audit records", text(fmt.Sprintf("%d, %d of them durable", st.Audit.Size, st.Audit.Durable)))
	fault("audit error", st.Audit.LastError)
	return t
}
