package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hsagent/hsagentd/wire"
)

type callOptions struct {
	data     string
	fields   []string
	query    []string
	headers  []string
	include  bool
	outFile  string
	jq       string
	paginate bool
	reason   string
	noRetry  bool
	wait     time.Duration
	timeout  time.Duration

	hasData, hasWait bool // the flag was given
}

func newCall(e *env) *cobra.Command {
	o := &callOptions{}
	cmd := &cobra.Command{
		Use:   "call SLUG METHOD PATH",
		Short: "Make a HubSpot call for a client and print the answer",
		Example: `hsctl call acme-corp GET /crm/v3/objects/contacts --query limit=10
hsctl call acme-corp GET /crm/v3/objects/contacts --paginate -q '.[].id'
hsctl call acme-corp POST /crm/v3/objects/contacts -f properties.email=ann@example.com -f properties.lastname=Lee
hsctl call acme-corp PATCH /crm/v3/objects/deals/42 -d @deal.json --reason TICKET-7
hsctl call acme-corp GET /crm/v3/objects/tickets/9 -O ticket.json`,
		Long: `The agent adds the token of SLUG; hsctl never sees it. HubSpot's answer goes to
stdout as it came, whatever its status; the exit code tells the status.

-f makes a JSON object of its fields: a.b=c nests. A value that is JSON is taken
as such (true, 7, null, ["x"], and "7" in double quotes for a string); any other
is a string.

--paginate follows paging.next.after and prints the results of all pages as one
JSON array; for POST it goes with search paths. If a page fails, the array is
left open, so that nobody takes a part for the whole.`,
		Args:              positional(3, 3),
		ValidArgsFunction: completeCall(e),
		Annotations:       exits(4, 5, 7, 8, 9, 10, 11, 12),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.hasData, o.hasWait = cmd.Flags().Changed("data"), cmd.Flags().Changed("wait")
			return o.run(cmd.Context(), e, args)
		},
	}
	o.addFlags(cmd.Flags())
	return cmd
}

func (o *callOptions) addFlags(f *pflag.FlagSet) {
	f.StringVarP(&o.data, "data", "d", "", "body: `DATA` itself, @FILE, or @- for stdin")
	f.StringArrayVarP(&o.fields, "field", "f", nil, "`key=value` of a JSON body; repeatable")
	f.StringArrayVar(&o.query, "query", nil, "`key=value` of the query, which hsctl encodes; repeatable")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "`'Name: value'` of a request header; repeatable")
	f.BoolVarP(&o.include, "include", "i", false, "print the status line and the headers too")
	f.StringVarP(&o.outFile, "out-file", "O", "", "write the body to `FILE`, whole or not at all")
	f.StringVarP(&o.jq, "jq", "q", "", "print what the jq `EXPR` makes of the body; strings raw")
	f.BoolVar(&o.paginate, "paginate", false, "fetch all pages and print their results as one JSON array")
	f.StringVar(&o.reason, "reason", "", "`text` kept in the audit record: a ticket, a legal basis")
	f.BoolVar(&o.noRetry, "no-retry", false, "send once only")
	f.DurationVar(&o.wait, "wait", 0, "how long the call may queue for quota; 0s: answer at once (default 10s)")
	f.DurationVar(&o.timeout, "timeout", 0, "give up after this long (default: never)")
}

func (o *callOptions) run(ctx context.Context, e *env, args []string) (err error) {
	req, err := o.request(args)
	if err != nil {
		return err
	}
	if req.Header.Get("Authorization") != "" {
		e.note("-H Authorization is dropped: the agent adds the token of the slug itself")
		req.Header.Del("Authorization")
	}
	filter, err := compileJQ(o.jq)
	if err != nil {
		return err
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	body, err := o.openBody(e, req)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // only read
	out, err := openOutput(e, o.outFile)
	if err != nil {
		return err
	}
	defer out.discard()

	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
		defer func() {
			if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("%s: no whole answer within %v; a write may have happened: hsctl audit query --slug %[1]s", req.Slug, o.timeout)
			}
		}()
	}
	if o.paginate {
		return o.runPages(ctx, e, c, req, filter, out)
	}
	resp, err := c.Call(ctx, *req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if p := wire.AgentError(resp); p != nil {
		return p
	}
	if o.include {
		if err := writeHead(e.stdout, resp); err != nil {
			return err
		}
	}
	if resp.StatusCode >= 400 {
		// The answer is an error, not what FILE or EXPR was meant for.
		return errors.Join(copyBody(e.stdout, resp.Body), answered(resp))
	}
	if filter != nil {
		err = filter.apply(resp.Body, out)
	} else {
		err = copyBody(out, resp.Body)
	}
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		e.note("%v", answered(resp))
	}
	return out.commit()
}

// answered is the error of an answer that HubSpot gave with a bad status.
func answered(resp *http.Response) error {
	code := wire.ExitHubSpot4xx
	if resp.StatusCode >= 500 {
		code = wire.ExitHubSpot5xx
	}
	return &exitError{code, fmt.Errorf("HubSpot answered %s (call %s)", resp.Status, resp.Header.Get(wire.HeaderCallID))}
}

// writeHead writes the status line and the headers of an answer, sorted.
func writeHead(w io.Writer, resp *http.Response) error {
	if _, err := fmt.Fprintf(w, "%s %s\n", resp.Proto, resp.Status); err != nil {
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(resp.Header)) {
		for _, v := range resp.Header[k] {
			if _, err := fmt.Fprintf(w, "%s: %s\n", k, v); err != nil {
				return err
			}
		}
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// copyBody streams an answer's body, and tells a broken answer from a broken
// output.
func copyBody(w io.Writer, body io.Reader) error {
	out := &watchedWriter{w: w}
	n, err := io.Copy(out, body)
	if err != nil && out.err == nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("the answer broke off after %d bytes: %w", n, err)
	}
	return err
}

// A watchedWriter keeps the error of its writer.
type watchedWriter struct {
	w   io.Writer
	err error
}

func (w *watchedWriter) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	if err != nil {
		w.err = err
	}
	return n, err
}
