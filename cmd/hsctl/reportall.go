package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hsagent/hsagentd/wire"
)

// runAll reports on every client of the fleet. One that fails stops no other.
func (o *reportOptions) runAll(ctx context.Context, e *env, c *wire.Client) error {
	toDir := o.outFile != "" && o.outFile != "-"
	if !toDir && o.format == formatHTML {
		return usagef("--all --format html: say where with -O DIRECTORY")
	}
	portals, err := c.Portals(ctx)
	if err != nil {
		return err
	}
	if toDir {
		if err := os.MkdirAll(o.outFile, 0o700); err != nil {
			return fmt.Errorf("-O: %w", err)
		}
	}
	var reps []*wire.Report
	failed := 0
	for _, p := range portals {
		rep, err := o.reportOn(ctx, c, p.Slug)
		if err == nil && toDir {
			err = (&reportOptions{format: o.format}).write(e, o.file(p.Slug), []*wire.Report{rep})
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, wire.ErrUnreachable):
			return err
		case err != nil:
			failed++
			e.complain(fmt.Sprintf("%s: %s", p.Slug, message(err)))
		default:
			if toDir { // the index needs the sums alone
				rep = &wire.Report{Slug: rep.Slug, PortalID: rep.PortalID, From: rep.From, To: rep.To, TZ: rep.TZ, Totals: rep.Totals}
			}
			reps = append(reps, rep)
		}
	}
	switch {
	case len(reps) == 0 && failed == 0:
		return errors.New("the agent knows no clients")
	case len(reps) == 0:
	case toDir:
		if err := o.writeIndex(e, reps); err != nil {
			return err
		}
		e.note("%d reports and %s", len(reps), o.file("index"))
	default:
		if err := o.write(e, "", reps); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d clients have no report", failed, len(portals))
	}
	return nil
}

func (o *reportOptions) reportOn(ctx context.Context, c *wire.Client, name string) (*wire.Report, error) {
	slug, err := wire.ParseSlug(name)
	if err != nil {
		return nil, err // an entry that the store calls so: rejected
	}
	return o.ask(ctx, c, slug)
}

// file is a file in the directory that -O names. A slug cannot leave it.
func (o *reportOptions) file(name string) string {
	ext := o.format
	if ext == formatTable {
		ext = "txt"
	}
	return filepath.Join(o.outFile, name+"."+ext)
}

// indexEntry is a client in the index of all reports.
type indexEntry struct {
	Slug     string            `json:"slug"`
	PortalID int64             `json:"portalId"`
	File     string            `json:"file"`
	Totals   wire.ReportCounts `json:"totals"`
}

// writeIndex writes a list of all reports with their sums. A client whose slug
// is "index" keeps its report, and the list gets another name.
func (o *reportOptions) writeIndex(e *env, reps []*wire.Report) error {
	name := "index"
	entries := make([]indexEntry, len(reps))
	for i, r := range reps {
		entries[i] = indexEntry{r.Slug, r.PortalID, filepath.Base(o.file(r.Slug)), r.Totals}
		if r.Slug == name {
			name = "_index"
		}
	}
	out, err := openOutput(e, o.file(name))
	if err != nil {
		return err
	}
	defer out.discard()
	switch o.format {
	case formatHTML:
		_, err = io.WriteString(out, indexPage(reps[0], entries))
	case formatJSON:
		var b []byte
		if b, err = json.MarshalIndent(map[string]any{"reports": entries}, "", "  "); err == nil {
			_, err = out.Write(append(b, '\n'))
		}
	default:
		t := &table{header: append([]string{"clientSlug", "portalId", "file"}, countColumns...)}
		for _, x := range entries {
			t.rows = append(t.rows, append([]cell{text(x.Slug), text(x.PortalID)}, countCells(x.File, x.Totals)...))
		}
		if o.format == formatTable {
			err = t.write(out, false)
		} else {
			rows := [][]string{t.header}
			for _, row := range t.rows {
				rows = append(rows, csvRow(row))
			}
			err = csv.NewWriter(out).WriteAll(rows)
		}
	}
	if err != nil {
		return err
	}
	return out.commit()
}
