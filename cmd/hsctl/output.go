package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hsagent/hsagentd/wire"
)

// The output formats.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatCSV   = "csv"
)

// format is the output format: as asked, else a table on a terminal and JSON
// elsewhere.
func (e *env) format() string {
	if e.global.output != "" {
		return e.global.output
	}
	if _, ok := terminal(e.stdout); ok {
		return formatTable
	}
	return formatJSON
}

// SGR parameters of the colours in use.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
)

// colors reports whether stdout takes colours.
func (e *env) colors() bool {
	_, ok := terminal(e.stdout)
	return ok && !e.global.noColor && e.getenv("NO_COLOR") == "" && e.getenv("TERM") != "dumb"
}

// A cell is one value of a table and the colour that a terminal shows it in.
type cell struct{ text, sgr string }

// text makes a cell of any value; "" for a nil or zero one would hide a real
// zero, so only strings may be empty.
func text(v any) cell { return cell{text: fmt.Sprint(v)} }

// moment makes a cell of a time, in UTC to the second.
func moment(t *wire.Time) cell {
	if t == nil || t.IsZero() {
		return cell{}
	}
	return text(t.UTC().Format(time.RFC3339))
}

// stateCell makes a cell of a portal's state.
func stateCell(s wire.State) cell {
	c := text(s)
	switch s {
	case wire.StateReady:
		c.sgr = green
	case wire.StateUnverified:
		c.sgr = yellow
	case wire.StateQuarantined, wire.StateRejected:
		c.sgr = red
	}
	return c
}

// A table is rows under column names, which are spelled as in JSON.
type table struct {
	header []string
	rows   [][]cell
}

// emit writes v as JSON, or what rows makes of it as a table or CSV.
func (e *env) emit(v any, rows func() *table) error {
	switch e.format() {
	case formatTable:
		return rows().write(e.stdout, e.colors())
	case formatCSV:
		return rows().writeCSV(e.stdout)
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	return e.writeJSON(append(b, '\n'))
}

// writeJSON writes JSON text; on a terminal, what could steer the terminal is
// written as JSON escapes.
func (e *env) writeJSON(b []byte) error {
	if _, ok := terminal(e.stdout); ok {
		b = escapeJSON(b)
	}
	_, err := e.stdout.Write(b)
	return err
}

// escapeJSON writes characters that are not graphic as JSON escapes. They can
// stand inside strings only, so the text means the same.
func escapeJSON(b []byte) []byte {
	var out bytes.Buffer
	for _, r := range string(b) {
		switch {
		case r == '\n' || unicode.IsGraphic(r) && !unicode.Is(unicode.Cf, r):
			out.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.Bytes()
}

// write aligns the table in columns under an upper-case header, without
// borders, as wide as their content.
func (t *table) write(w io.Writer, colors bool) error {
	rows := make([][]cell, 0, len(t.rows)+1)
	head := make([]cell, len(t.header))
	for i, name := range t.header {
		head[i] = cell{text: headerName(name)}
	}
	rows = append(append(rows, head), t.rows...)
	widths := make([]int, len(t.header))
	for _, row := range rows {
		for i := range row {
			row[i].text = wire.Printable(row[i].text)
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		writeRow(&b, row, widths, colors)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeRow writes one line. The last column is not padded.
func writeRow(b *strings.Builder, row []cell, widths []int, colors bool) {
	var line strings.Builder
	for i, c := range row {
		pad := max(0, widths[i]-utf8.RuneCountInString(c.text))
		if colors && c.sgr != "" && c.text != "" {
			c.text = "\x1b[" + c.sgr + "m" + c.text + "\x1b[0m"
		}
		line.WriteString(c.text + strings.Repeat(" ", pad+2))
	}
	b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
}

// headerName turns "portalId" into "PORTAL-ID".
func headerName(name string) string {
	var b strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

// writeCSV writes the table with a header line.
func (t *table) writeCSV(w io.Writer) error {
	cw := csv.NewWriter(w)
	rows := [][]string{t.header}
	for _, row := range t.rows {
		rows = append(rows, csvRow(row))
	}
	return cw.WriteAll(rows)
}

// csvRow makes the cells safe for a spreadsheet.
func csvRow(row []cell) []string {
	out := make([]string, len(row))
	for i, c := range row {
		out[i] = guardCSV(c.text)
	}
	return out
}

// guardCSV keeps a spreadsheet from taking a cell for a formula: a quote goes
// before every first character that starts one, in its full-width form too.
// Control bytes, TAB and CR among them, are escaped.
func guardCSV(s string) string {
	r, _ := utf8.DecodeRuneInString(s)
	if s != "" && strings.ContainsRune("=+-@\t\r＝＋－＠", r) {
		return "'" + wire.Printable(s)
	}
	return wire.Printable(s)
}
