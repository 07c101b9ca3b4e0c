package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// queryPage is how many records one request asks for.
const queryPage = 1000

func newAudit(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Read and verify the log of all calls",
		Example: `hsctl audit tail -f
hsctl audit query --slug acme-corp --from 2026-11-01 --to 2026-11-30
hsctl audit verify
hsctl audit export --slug acme-corp --proofs -O acme.jsonl
hsctl audit reconcile`,
		Annotations: exits(5, 7, 8, 9, 12, 13),
		Args:        subcommandNeeded,
		RunE:        missing,
	}
	cmd.AddCommand(newAuditQuery(e), newAuditTail(e), newAuditVerify(e), newAuditReconcile(e), newAuditCheckpoint(e), newAuditKey(e), newAuditProve(e),
		newAuditExport(e), newAuditPrune(e))
	return cmd
}

// queryOptions are the parameters of GET /v1/audit/records.
type queryOptions struct {
	slug, from, to, method, objectType, status, callID, caller, kind, reason string

	after  uint64
	limit  int
	follow bool

	hasAfter bool // the flag was given
}

func newAuditQuery(e *env) *cobra.Command {
	o := &queryOptions{}
	cmd := &cobra.Command{
		Use:   "query",
		Short: "Print the records that match, in log order",
		Example: `hsctl audit query --slug acme-corp --from 2026-11-01 --to 2026-11-30
hsctl audit query --status 4xx --from 2026-11-23T08:00:00Z -o csv
hsctl audit query --call-id 0193a1b2-0000-7000-8000-000000000000
hsctl audit query --slug acme-corp --object-type deals --caller billing.service
hsctl audit query --slug acme-corp | jq -s 'map(select(.kind == "call.outcome")) | length'`,
		Long: `JSON is one record a line. A date of --to includes its day; dates are in UTC.
With -f it goes on with new records as they come.`,
		Args:        positional(0, 0),
		Annotations: exits(8, 12),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.hasAfter = cmd.Flags().Changed("after")
			return o.run(cmd.Context(), e)
		},
	}
	o.addFlags(cmd.Flags())
	_ = cmd.RegisterFlagCompletionFunc("slug", completeSlugs(e, 0)) // fails for unknown flags only
	_ = cmd.RegisterFlagCompletionFunc("method", words(methods...))
	_ = cmd.RegisterFlagCompletionFunc("kind", words(kinds()...))
	return cmd
}

// kinds are the kinds of records.
func kinds() []string {
	var out []string
	for _, k := range chain.Kinds() {
		out = append(out, string(k))
	}
	return out
}

func (o *queryOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.slug, "slug", "", "only records of this `slug`")
	f.StringVar(&o.from, "from", "", "only from this `time` on: RFC 3339, or a date")
	f.StringVar(&o.to, "to", "", "only up to this `time`: RFC 3339, or a date")
	f.StringVar(&o.method, "method", "", "only calls with this HTTP `method`")
	f.StringVar(&o.objectType, "object-type", "", "only calls about this `type`, such as contacts")
	f.StringVar(&o.status, "status", "", "only this HubSpot `status`, such as 404 or 4xx")
	f.StringVar(&o.callID, "call-id", "", "only records of this call `ID`")
	f.StringVar(&o.caller, "caller", "", "only calls of this `caller`: user, uid, program or systemd unit")
	f.StringVar(&o.kind, "kind", "", "only records of this `kind`, such as call.denied")
	f.StringVar(&o.reason, "reason", "", "only records whose reason contains this `text`, in any case")
	f.Uint64Var(&o.after, "after", 0, "only records after this `sequence` number")
	f.IntVar(&o.limit, "limit", 0, "at most this `number` of records (default: all)")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with new records as they come")
}

// values are the parameters without paging. The agent checks them.
func (o *queryOptions) values() (url.Values, error) {
	q := url.Values{}
	if o.kind != "" && !slices.Contains(kinds(), o.kind) {
		return nil, usagef("--kind %s: want one of %s", wire.Quote(o.kind), strings.Join(kinds(), ", "))
	}
	if o.slug != "" {
		s, err := wire.ParseSlug(o.slug)
		if err != nil {
			return nil, &exitError{wire.ExitUsage, err}
		}
		q.Set("slug", s.String())
	}
	method := o.method
	if method != "" {
		m, err := parseMethod(method)
		if err != nil {
			return nil, err
		}
		method = m
	}
	for k, v := range map[string]string{
		"from": o.from, "to": o.to, "method": method, "objectType": o.objectType, "status": o.status, "callId": o.callID,
		"caller": o.caller, "kind": o.kind, "reason": o.reason,
	} {
		if v != "" {
			q.Set(k, v)
		}
	}
	return q, nil
}

func (o *queryOptions) run(ctx context.Context, e *env) error {
	q, err := o.values()
	if err != nil {
		return err
	}
	if o.limit < 0 {
		return usagef("--limit %d: want a number of records", o.limit)
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	if o.hasAfter {
		q.Set("after", strconv.FormatUint(o.after, 10))
	}
	out := newRecordWriter(e)
	if o.follow {
		return o.stream(ctx, c, q, out)
	}
	for left := o.limit; ; {
		n := queryPage
		if o.limit > 0 {
			n = min(n, left)
		}
		q.Set("limit", strconv.Itoa(n))
		got, err := out.copyStream(ctx, c, q)
		if err != nil {
			return err
		}
		left -= got
		if got < n || o.limit > 0 && left <= 0 {
			return out.end()
		}
		q.Set("after", strconv.FormatUint(out.last, 10))
	}
}

// stream follows the log until as many records as asked for have come.
func (o *queryOptions) stream(ctx context.Context, c *wire.Client, q url.Values, out *recordWriter) error {
	q.Set("follow", "true")
	if o.limit > 0 {
		q.Set("limit", strconv.Itoa(o.limit))
	}
	n, err := out.copyStream(ctx, c, q)
	switch {
	case err != nil:
		return err
	case o.limit > 0 && n >= o.limit:
		return out.end()
	}
	return errors.Join(out.end(), errStreamEnded)
}

// errStreamEnded is why a follower stops.
var errStreamEnded = fmt.Errorf("%w any more: it ended the stream", wire.ErrUnreachable)

func newAuditTail(e *env) *cobra.Command {
	var follow bool
	lines := 10
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Print the last records, and follow the log with -f",
		Example: `hsctl audit tail -f
hsctl audit tail -n 100 -o csv
hsctl audit tail -f | jq -c 'select(.statusCode >= 400)'`,
		Args:        positional(0, 0),
		Annotations: exits(8, 12),
		RunE:        func(cmd *cobra.Command, _ []string) error { return runAuditTail(cmd.Context(), e, lines, follow) },
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new records as they come")
	cmd.Flags().IntVarP(&lines, "lines", "n", lines, "how many of the last `records` to print first")
	return cmd
}

func runAuditTail(ctx context.Context, e *env, lines int, follow bool) error {
	if lines < 0 {
		return usagef("--lines %d: want a number of records", lines)
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	q, out := url.Values{"limit": {"1"}, "after": {strconv.Itoa(math.MaxInt64)}}, newRecordWriter(e)
	// Reading has the agent number what is still queued: the size counts it then.
	if _, err := out.copyStream(ctx, c, q); err != nil {
		return err
	}
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	q = url.Values{}
	if skip := st.Audit.Size - min(st.Audit.Size, uint64(lines)); skip > 0 {
		q.Set("after", strconv.FormatUint(skip-1, 10))
	}
	switch {
	case follow:
		q.Set("follow", "true")
		if _, err := out.copyStream(ctx, c, q); err != nil {
			return err
		}
		return errors.Join(out.end(), errStreamEnded)
	case lines == 0:
		return out.end()
	}
	q.Set("limit", strconv.Itoa(lines))
	if _, err := out.copyStream(ctx, c, q); err != nil {
		return err
	}
	return out.end()
}

func damageTable(r *wire.AuditReport) *table {
	t := &table{header: []string{"seq", "kind", "detail"}}
	for _, d := range r.Damage {
		t.rows = append(t.rows, []cell{text(d.Seq), {d.Kind, red}, text(d.Detail)})
	}
	return t
}
