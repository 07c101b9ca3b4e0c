package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hsagent/hsagentd/wire"
)

// formatHTML is a format of reports alone.
const formatHTML = "html"

type reportOptions struct {
	from, to, tz, breach, format, outFile string
	all                                   bool
}

func newReport(e *env) *cobra.Command {
	o := &reportOptions{}
	cmd := &cobra.Command{
		Use:   "report SLUG --from DATE --to DATE",
		Short: "Report what was done for a client: for billing, and for its data protection officer",
		Example: `hsctl report acme-corp --from 2026-10-01 --to 2026-10-31
hsctl report acme-corp --from 2026-10-01 --to 2026-10-31 --format csv -O acme-2026-10.csv
hsctl report acme-corp --from 2026-10-01 --to 2026-10-31 --tz Europe/Berlin -O acme-2026-10.html
hsctl report --all --from 2026-10-01 --to 2026-10-31 -O reports-2026-10
hsctl report acme-corp --breach 2026-10-05T08:00:00Z 2026-10-05T17:30:00Z`,
		Long: `Calls are counted, not attempts; both dates are inclusive. Without dates the report
is about all that the log holds. The format is that of --format, else that of FILE's
name (.csv, .json, .html), else a table on a terminal and JSON elsewhere. CSV has the
columns for billing; JSON and HTML have everything. The same log and the same
arguments give the same bytes.

--breach FROM TO lists what could have been read or changed by calls that were under
way in the window, by whom and with which token.

--all writes a report of every client and an index into the directory that -O names,
as HTML unless --format says otherwise; without -O all go to stdout.`,
		Args:              positional(0, 2),
		ValidArgsFunction: completeSlugs(e, 1),
		Annotations:       exits(7, 8, 9, 12),
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), e, args) },
	}
	o.addFlags(cmd.Flags())
	_ = cmd.RegisterFlagCompletionFunc("format", words(formatCSV, formatJSON, formatHTML)) // fails for unknown flags only
	return cmd
}

func (o *reportOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.from, "from", "", "first `date` of the report, or a time as of RFC 3339")
	f.StringVar(&o.to, "to", "", "last `date` of the report, or a time (exclusive)")
	f.StringVar(&o.tz, "tz", "", "time `zone` of the dates, such as Europe/Berlin (default UTC)")
	f.StringVar(&o.format, "format", "", "`format`: csv, json or html")
	f.StringVarP(&o.outFile, "out-file", "O", "", "write to `FILE`, which appears whole or not at all; with --all a directory")
	f.StringVar(&o.breach, "breach", "", "what could have been reached from the time `FROM` to the time that follows it")
	f.BoolVar(&o.all, "all", false, "report on every client")
}

func (o *reportOptions) run(ctx context.Context, e *env, args []string) error {
	args, err := o.parse(e, args)
	if err != nil {
		return err
	}
	c, slugs, err := e.clientFor(args)
	if err != nil {
		return err
	}
	defer c.Close()
	if o.all {
		return o.runAll(ctx, e, c)
	}
	rep, err := o.ask(ctx, c, slugs[0])
	if err != nil {
		return err
	}
	return o.write(e, o.outFile, []*wire.Report{rep})
}

func (o *reportOptions) ask(ctx context.Context, c *wire.Client, slug wire.Slug) (*wire.Report, error) {
	return c.Report(ctx, slug, o.from, o.to, o.tz, o.breach != "")
}

// parse checks the options and returns the slugs among the arguments.
func (o *reportOptions) parse(e *env, args []string) ([]string, error) {
	args, err := o.parseBreach(args)
	if err != nil {
		return nil, err
	}
	switch {
	case o.all && len(args) > 0:
		return nil, usagef("--all and %s: give one of them", wire.Quote(args[0]))
	case !o.all && len(args) != 1:
		return nil, usagef("want: hsctl report SLUG --from DATE --to DATE, or hsctl report --all")
	}
	for _, f := range []struct{ flag, value string }{{"--from", o.from}, {"--to", o.to}} {
		if f.value != "" && !isMoment(f.value) {
			return nil, usagef("%s %s: want a date such as 2026-10-31, or a time such as 2026-10-31T08:00:00Z", f.flag, wire.Quote(f.value))
		}
	}
	if o.format == "" {
		o.format = o.defaultFormat(e)
	}
	switch o.format {
	case formatCSV, formatJSON, formatHTML:
	case formatTable:
		if o.outFile != "" || e.global.output == formatTable || e.global.output == "" {
			break
		}
		fallthrough
	default:
		return nil, usagef("--format %s: want csv, json or html", wire.Quote(o.format))
	}
	return args, nil
}

// parseBreach takes the second time of --breach from where it stands: behind
// "..", or among the arguments.
func (o *reportOptions) parseBreach(args []string) ([]string, error) {
	if o.breach == "" {
		return args, nil
	}
	if o.from != "" || o.to != "" {
		return nil, usagef("--breach has its own times: leave out --from and --to")
	}
	from, to, ok := strings.Cut(o.breach, "..")
	if !ok {
		at := len(args) - 1
		if at == 1 && isMoment(args[0]) && !isMoment(args[1]) {
			at = 0
		}
		if at < 0 || !o.all && len(args) < 2 {
			return nil, usagef("--breach %s: want two times: --breach FROM TO", wire.Quote(o.breach))
		}
		to = args[at]
		args = append(append([]string{}, args[:at]...), args[at+1:]...)
	}
	for _, s := range []string{from, to} {
		if !isMoment(s) {
			return nil, usagef("--breach %s: want a date, or a time such as 2026-10-31T08:00:00Z", wire.Quote(s))
		}
	}
	o.from, o.to = from, to
	return args, nil
}

func isMoment(s string) bool { _, ok := parseMoment(s); return ok }

// parseMoment reads a date, in UTC, or RFC 3339.
func parseMoment(s string) (t time.Time, ok bool) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return t, false
}

// defaultFormat is what the file's name or the global format says.
func (o *reportOptions) defaultFormat(e *env) string {
	if e.global.output != "" {
		return e.global.output
	}
	if o.outFile == "" || o.outFile == "-" {
		return e.format()
	}
	if o.all {
		return formatHTML
	}
	switch ext := strings.ToLower(filepath.Ext(o.outFile)); ext {
	case ".csv", ".html":
		return ext[1:]
	case ".htm":
		return formatHTML
	}
	return formatJSON
}

// write writes reports to a file that appears whole, or to stdout.
func (o *reportOptions) write(e *env, path string, reps []*wire.Report) error {
	out, err := openOutput(e, path)
	if err != nil {
		return err
	}
	defer out.discard()
	switch o.format {
	case formatHTML:
		for _, rep := range reps {
			if _, err := io.WriteString(out, reportPage(rep)); err != nil {
				return err
			}
		}
	case formatCSV:
		if err := reportCSV(out, reps); err != nil {
			return err
		}
	case formatTable:
		for _, rep := range reps {
			if err := reportText(out, rep, out.file == nil && e.colors()); err != nil {
				return err
			}
		}
	default:
		var v any = reps[0]
		if o.all {
			v = map[string]any{"reports": reps}
		}
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return fmt.Errorf("encode the report: %w", err)
		}
		b = append(b, '\n')
		if out.file == nil {
			return e.writeJSON(b)
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	return out.commit()
}

// reportColumns are those of the CSV, spelled as in JSON.
var reportColumns = []string{"clientSlug", "portalId", "date", "method", "objectType", "callCount", "errorCount", "avgDurationMs"}

// breachColumns are those of the CSV of a breach report.
var breachColumns = []string{"clientSlug", "objectType", "objectId", "reads", "changes", "uncertain", "responseBytes", "first", "last", "callers", "tokens", "paths"}

// reportCSV writes the rows of reports under one header.
func reportCSV(w io.Writer, reps []*wire.Report) error {
	cw := csv.NewWriter(w)
	header := reportColumns
	if reps[0].Breach != nil {
		header = breachColumns
	}
	rows := [][]string{header}
	for _, rep := range reps {
		if rep.Breach != nil {
			for _, o := range rep.Breach.Objects {
				rows = append(rows, csvRow(append([]cell{text(rep.Slug)}, breachRow(o)...)))
			}
			continue
		}
		for _, r := range rep.Rows {
			rows = append(rows, csvRow([]cell{
				text(r.ClientSlug), text(r.PortalID), text(r.Date), text(r.Method), text(r.ObjectType),
				text(r.CallCount), text(r.ErrorCount), text(r.AvgDurationMs),
			}))
		}
	}
	return cw.WriteAll(rows)
}

// breachRow is an object as a row of a table or CSV, without the slug.
func breachRow(o wire.BreachObject) []cell {
	return []cell{
		text(o.ObjectType), text(o.ObjectID), text(o.Reads), text(o.Changes), text(o.Uncertain), text(o.ResponseBytes),
		text(o.First), text(o.Last), text(strings.Join(o.Callers, "; ")), text(strings.Join(o.Tokens, " ")), text(strings.Join(o.Paths, " ")),
	}
}
