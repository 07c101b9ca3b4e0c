package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// runPlain exports records without proofs, for another system to take in. Each
// line tells its number, so that a later run can go on with --after: what came
// twice can be told, and nothing is left out.
func (o *exportOptions) runPlain(ctx context.Context, e *env) error {
	if o.format == "" {
		o.format = formatJSONL
	}
	switch {
	case !slices.Contains(exportFormats, o.format):
		return usagef("--format %s: want one of %s", wire.Quote(o.format), strings.Join(exportFormats, ", "))
	case o.follow && o.file != "" && o.file != "-":
		return usagef("--follow and -O: a file appears when it is whole, and this one never would be; redirect stdout")
	}
	q := url.Values{}
	if o.slug != "" {
		slug, err := wire.ParseSlug(o.slug)
		if err != nil {
			return &exitError{wire.ExitUsage, fmt.Errorf("--slug: %w", err)}
		}
		q.Set("slug", slug.String())
	}
	for k, v := range map[string]string{"from": o.from, "to": o.to} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if o.hasAfter {
		q.Set("after", strconv.FormatUint(o.after, 10))
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	out, err := openOutput(e, o.file)
	if err != nil {
		return err
	}
	defer out.discard()
	w := &exportWriter{e: e, out: out, format: o.format}
	if o.follow {
		q.Set("follow", "true")
		if _, err := eachRecord(ctx, c, q, w.write); err != nil {
			return err
		}
		return errStreamEnded
	}
	for {
		q.Set("limit", strconv.Itoa(exportPage))
		n, err := eachRecord(ctx, c, q, w.write)
		if err != nil {
			return err
		}
		if n < exportPage {
			break
		}
		q.Set("after", strconv.FormatUint(w.last, 10))
	}
	if err := w.end(); err != nil {
		return err
	}
	return out.commit()
}

// exportPage is how many records one request asks for.
const exportPage = 10_000

// An exportWriter writes records in one format.
type exportWriter struct {
	e      *env
	out    *output
	format string
	csv    *recordWriter
	last   uint64 // sequence of the record written last
}

func (w *exportWriter) write(raw []byte) error {
	r := &chain.Record{}
	if err := json.Unmarshal(raw, r); err != nil {
		return fmt.Errorf("read a record of the audit log: %w", err)
	}
	w.last = r.Seq
	if w.format == formatCSV {
		return w.rows().csv(r, w.first())
	}
	line, err := convert(w.format, raw, r)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if w.out.file == nil {
		return w.e.writeJSON(line)
	}
	_, err = w.out.Write(line)
	return err
}

// rows is the writer of CSV, to where the export goes.
func (w *exportWriter) rows() *recordWriter {
	if w.csv == nil {
		to := *w.e
		to.stdout = w.out
		w.csv = newRecordWriter(&to)
	}
	return w.csv
}

func (w *exportWriter) first() bool {
	first := !w.csv.begun
	w.csv.begun = true
	return first
}

// end finishes the output: CSV without records still has its header.
func (w *exportWriter) end() error {
	if w.format != formatCSV || w.rows().begun {
		return nil
	}
	return w.csv.csv(nil, true)
}
