package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// A resultWriter prints the results of rows as they come.
type resultWriter struct {
	e      *env
	widths []int
	begun  bool
}

var resultHeader = []string{"row", "slug", "portalId", "result", "detail"}

func newResultWriter(e *env, l *clientList) *resultWriter {
	w := &resultWriter{e: e, widths: []int{5, 4, 12, 8, 0}}
	for _, c := range l.clients {
		w.widths[1] = max(w.widths[1], len(c.slug))
	}
	return w
}

func (w *resultWriter) write(res wire.FleetResult) error {
	if w.e.format() == formatJSON {
		return w.json(res)
	}
	detail := res.Detail
	if res.Code != "" {
		detail = string(res.Code) + ": " + detail
	}
	result := text(res.Result)
	switch res.Result {
	case wire.RowOK:
		result.sgr = green
	case wire.RowRejected:
		result.sgr = red
	}
	return w.row([]cell{text(res.Row), text(res.Slug), text(positive(res.PortalID)), result, text(wire.MaskTokens(detail))})
}

// end prints the counts, where the format has a place for them.
func (w *resultWriter) end(done *wire.FleetDone) error {
	if w.e.format() == formatJSON {
		return w.json(done)
	}
	return nil
}

func (w *resultWriter) json(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	return w.e.writeJSON(append(b, '\n'))
}

// row prints a row of a table or of CSV, with the header before the first.
func (w *resultWriter) row(cells []cell) error {
	first := !w.begun
	w.begun = true
	if w.e.format() == formatCSV {
		out := csv.NewWriter(w.e.stdout)
		rows := [][]string{csvRow(cells)}
		if first {
			rows = [][]string{resultHeader, rows[0]}
		}
		return out.WriteAll(rows)
	}
	var b strings.Builder
	if first {
		head := make([]cell, len(resultHeader))
		for i, name := range resultHeader {
			head[i] = text(headerName(name))
		}
		writeRow(&b, head, w.widths, false)
	}
	for i := range cells {
		cells[i].text = wire.Printable(cells[i].text)
	}
	writeRow(&b, cells, w.widths, w.e.colors())
	_, err := io.WriteString(w.e.stdout, b.String())
	return err
}
