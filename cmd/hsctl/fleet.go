package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/hsagent/hsagentd/wire"
)

// maxAtOnce is how many rows the agent verifies at the same time at most.
const maxAtOnce = 32

// maxFleetAnswer bounds one line of the agent's answer.
const maxFleetAnswer = 1 << 20

// fleetOptions are those of a command that takes a list of clients.
type fleetOptions struct {
	csv         string
	concurrency int
	resume      bool // leave out those whose slug is in the store
}

func (o *fleetOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.csv, "csv", "", "take all clients of the CSV in `FILE`, or on stdin with -")
	f.IntVar(&o.concurrency, "concurrency", 0, "with --csv, verify so `many` tokens at once, 1 to 32 (default 8)")
}

// check wants either one slug, with the options of one, or a CSV.
func (o *fleetOptions) check(args []string, forOne bool) error {
	switch {
	case o.csv == "" && len(args) != 1:
		return usagef("want either a slug or --csv FILE")
	case o.csv != "" && (len(args) > 0 || forOne):
		return usagef("--csv has all that belongs to a client in its rows: no slug and no options of one client beside it")
	case o.csv == "" && (o.concurrency != 0 || o.resume):
		return usagef("--concurrency and --resume want --csv")
	case o.concurrency < 0 || o.concurrency > maxAtOnce:
		return usagef("--concurrency %d: want 1 to %d", o.concurrency, maxAtOnce)
	}
	return nil
}

// A fleetRun is one list of clients on its way into the store.
type fleetRun struct {
	e       *env
	list    *clientList
	out     *resultWriter
	bar     *progress
	results []string // of each row, as far as it is known
	before  int64    // the store's version at the beginning
}

// run sends the list to a path of the agent's and shows what becomes of each
// row. Its error says how many were rejected.
func (o *fleetOptions) run(ctx context.Context, e *env, path string, dryRun bool) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := readClients(ctx, e, o.csv)
	if err != nil {
		return err
	}
	e.tellColumns(list)
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	r := &fleetRun{
		e: e, list: list, out: newResultWriter(e, list), before: st.Store.Version,
		bar: newProgress(e, "rows", len(list.clients)), results: make([]string, len(list.clients)),
	}
	defer r.bar.erase()
	if err := r.settle(ctx, c, o.resume); err != nil {
		return err
	}
	q := url.Values{}
	if dryRun {
		q.Set("dryRun", "true")
	}
	if o.concurrency > 0 {
		q.Set("concurrency", strconv.Itoa(o.concurrency))
	}
	done, err := r.send(ctx, c, path, q)
	if err != nil {
		r.bar.erase()
		if ctx.Err() != nil {
			r.tellInterrupted(c, dryRun)
		}
		return err
	}
	if err := r.finish(done, dryRun); err != nil {
		return err
	}
	if o.csv == "-" || dryRun {
		return nil
	}
	advice := "the tokens are in the store now, and need to be nowhere else"
	if o.resume {
		advice = "every client is in the store now; if the tokens are those that it has"
	}
	e.note("%s: shred -u %s", advice, shellQuote(o.csv))
	return nil
}

// readClients reads the list from a regular file, or from stdin with "-".
func readClients(ctx context.Context, e *env, path string) (*clientList, error) {
	in, name := e.stdin, "stdin"
	if path != "-" {
		f, err := openClients(e, path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // only read
		in, name = f, path
	} else if _, ok := terminal(e.stdin); ok {
		return nil, usagef("--csv -: stdin is a terminal, which would show the tokens: give a file")
	}
	text, err := interruptible(ctx, func() (string, error) {
		b, err := io.ReadAll(io.LimitReader(in, maxClientFile+1))
		return string(b), err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	list, err := parseClients([]byte(text))
	if err != nil {
		return nil, usagef("%s: %w", name, err)
	}
	return list, nil
}

// openClients opens a regular file, and warns if others may read it.
func openClients(e *env, path string) (*os.File, error) {
	// Without O_NONBLOCK the opening of a named pipe waits for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, usagef("--csv: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = usagef("--csv %s: it is no regular file: give its content on stdin, with --csv -", wire.Quote(path))
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	if st.Mode().Perm()&0o044 != 0 {
		e.note("others can read the tokens in %s (mode %04o): chmod 600 %s", path, st.Mode().Perm(), shellQuote(path))
	}
	return f, nil
}

// tellColumns tells what of the list is not used.
func (e *env) tellColumns(l *clientList) {
	if len(l.ignored) > 0 {
		e.note("columns that are not used: %s", strings.Join(l.ignored, ", "))
	}
	unchecked := 0
	for _, c := range l.clients {
		if c.fault == "" && c.portalID == 0 {
			unchecked++
		}
	}
	if unchecked > 0 {
		e.note("%d rows have no %s: whatever portal their tokens open is taken", unchecked, columnPortalID)
	}
}

// settle answers the rows that need not be sent: those with a fault and, to
// resume, those that are in the store.
func (r *fleetRun) settle(ctx context.Context, c *wire.Client, resume bool) error {
	known := map[string]wire.Portal{}
	if resume {
		portals, err := c.Portals(ctx)
		if err != nil {
			return err
		}
		for _, p := range portals {
			known[p.Slug] = p
		}
	}
	for _, cl := range r.list.clients {
		res := wire.FleetResult{Row: cl.row, Slug: cl.slug}
		p, ok := known[cl.slug]
		switch {
		case cl.fault != "":
			res.Result, res.Code, res.Detail = wire.RowRejected, wire.CodeBadRequest, cl.fault
		case ok && cl.portalID != 0 && p.PortalID != cl.portalID:
			res.Result, res.Code = wire.RowRejected, wire.CodeConflict
			res.Detail = fmt.Sprintf("line %d: the store has the slug with portal %d, not %d", cl.line, p.PortalID, cl.portalID)
		case ok:
			res.Result, res.PortalID, res.Detail = wire.RowExists, p.PortalID, "not sent: the store has the slug"
		default:
			continue
		}
		if err := r.show(res); err != nil {
			return err
		}
	}
	return nil
}

// show prints what became of a row.
func (r *fleetRun) show(res wire.FleetResult) error {
	r.bar.erase()
	if err := r.out.write(res); err != nil {
		return err
	}
	first := r.results[res.Row-1] == ""
	r.results[res.Row-1] = res.Result
	if first {
		r.bar.step()
	}
	return nil
}

// send sends the rows that are not settled, shows the answers to them as they
// come, and returns the last line.
func (r *fleetRun) send(ctx context.Context, c *wire.Client, path string, q url.Values) (*wire.FleetDone, error) {
	settled := make([]bool, len(r.results))
	var body bytes.Buffer
	rows := json.NewEncoder(&body)
	for i, cl := range r.list.clients {
		row := wire.FleetRow{Slug: cl.slug, Token: cl.Token.Reveal(), PortalID: cl.portalID, Kind: cl.kind}
		if settled[i] = r.results[i] != ""; settled[i] {
			// An empty row, which the agent rejects, keeps its row numbers
			// the same as ours: its messages name rows.
			row = wire.FleetRow{}
		}
		if err := rows.Encode(row); err != nil {
			return nil, fmt.Errorf("encode row %d: %w", cl.row, err)
		}
	}
	resp, err := c.Stream(ctx, http.MethodPost, path, q, &body)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxFleetAnswer)
	for lines.Scan() {
		var last wire.FleetDone
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			return nil, fmt.Errorf("read the agent's answer: %w", err)
		}
		if last.Done {
			return &last, nil
		}
		var res wire.FleetResult
		if err := json.Unmarshal(lines.Bytes(), &res); err != nil {
			return nil, fmt.Errorf("read the agent's answer: %w", err)
		}
		if res.Row < 1 || res.Row > len(settled) {
			return nil, fmt.Errorf("the agent answered about row %d of %d", res.Row, len(settled))
		}
		if settled[res.Row-1] {
			continue
		}
		if err := r.show(res); err != nil {
			return nil, err
		}
	}
	cause := lines.Err()
	if cause == nil {
		cause = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("%w any more: its answer broke off (%w): see hsctl portals for what is in the store", wire.ErrUnreachable, cause)
}

// finish prints the last line. Its counts are of our rows: the agent's have
// those that were settled here among the rejected.
func (r *fleetRun) finish(done *wire.FleetDone, dryRun bool) error {
	r.bar.erase()
	done.OK, done.Exists, done.Rejected = 0, 0, 0
	for _, res := range r.results {
		switch {
		case res == wire.RowExists:
			done.Exists++
		case res == wire.RowOK && done.Code == "":
			done.OK++
		default:
			done.Rejected++
		}
	}
	if err := r.out.end(done); err != nil {
		return err
	}
	if done.Code != "" {
		return wire.Errorf(done.Code, "%s", done.Detail)
	}
	result := fmt.Sprintf("the store is version %d", done.StoreVersion)
	if dryRun {
		result = "nothing was written"
	}
	r.e.note("%d rows: %d ok, %d in the store before, %d rejected; %s", len(r.results), done.OK, done.Exists, done.Rejected, result)
	if done.Rejected > 0 {
		return fmt.Errorf("%d of %d rows were rejected", done.Rejected, len(r.results))
	}
	return nil
}

// tellInterrupted tells whether an interrupted run has changed the store. The
// agent writes once, after the last row, and not for a caller that has gone.
func (r *fleetRun) tellInterrupted(c *wire.Client, dryRun bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second) // the run's own has ended
	defer cancel()
	st, err := c.Status(ctx)
	switch {
	case dryRun || err == nil && st.Store.Version == r.before && !r.answered():
		r.e.complain("interrupted: nothing was written")
	default:
		r.e.complain("interrupted when the store was about to be written: see hsctl portals for what is in it")
	}
}

// answered reports whether every row has its result.
func (r *fleetRun) answered() bool {
	for _, res := range r.results {
		if res == "" {
			return false
		}
	}
	return true
}

// shellQuote writes a path as one word of a shell, which is no option.
func shellQuote(path string) string {
	if strings.HasPrefix(path, "-") {
		path = "./" + path
	}
	if plainPath.MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

var plainPath = regexp.MustCompile(`^[A-Za-z0-9_./-]+$`)
