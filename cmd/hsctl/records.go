package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// A recordWriter prints audit records as they come: lines of JSON as the agent
// sent them, rows of CSV, or rows of a table whose columns are fixed beforehand.
type recordWriter struct {
	e     *env
	begun bool
	last  uint64 // sequence of the record printed last
}

func newRecordWriter(e *env) *recordWriter { return &recordWriter{e: e} }

// copyStream asks for records and prints them; it returns how many came.
func (w *recordWriter) copyStream(ctx context.Context, c *wire.Client, q url.Values) (int, error) {
	return eachRecord(ctx, c, q, w.print)
}

// eachRecord asks for records and hands on the line of each; it returns how many
// came.
func eachRecord(ctx context.Context, c *wire.Client, q url.Values, each func(line []byte) error) (int, error) {
	resp, err := c.Stream(ctx, http.MethodGet, "/v1/audit/records", q, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	n := 0
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 64*chain.MaxRecord)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue // a follower is kept awake with empty lines
		}
		if err := each(lines.Bytes()); err != nil {
			return n, err
		}
		n++
	}
	if err := lines.Err(); err != nil {
		return n, fmt.Errorf("the records broke off after %d: %w", n, err)
	}
	return n, nil
}

// print prints one record.
func (w *recordWriter) print(line []byte) error {
	r := &chain.Record{}
	// A newer agent's records may have more fields: they are no concern here.
	if err := json.Unmarshal(line, r); err != nil {
		return fmt.Errorf("read a record of the audit log: %w", err)
	}
	w.last = r.Seq
	first := !w.begun
	w.begun = true
	switch w.e.format() {
	case formatTable:
		return w.row(r, first)
	case formatCSV:
		return w.csv(r, first)
	}
	return w.e.writeJSON(append(line, '\n'))
}

// end finishes the output: CSV without records still has its header.
func (w *recordWriter) end() error {
	if w.begun || w.e.format() != formatCSV {
		return nil
	}
	return w.csv(nil, true)
}

// tableWidths are the columns of the table, whose last one has no width.
var (
	tableHeader = []string{"seq", "time", "kind", "slug", "method", "status", "ms", "caller", "path"}
	tableWidths = []int{8, 20, 16, 20, 6, 6, 6, 16, 0}
)

func (w *recordWriter) row(r *chain.Record, first bool) error {
	var b strings.Builder
	if first {
		head := make([]cell, len(tableHeader))
		for i, h := range tableHeader {
			head[i] = cell{text: headerName(h)}
		}
		writeRow(&b, head, tableWidths, false)
	}
	row := []cell{
		text(r.Seq), text(r.TS.UTC().Format(time.RFC3339)), text(r.Kind), text(r.ClientSlug), text(r.Method),
		statusCell(r.StatusCode), text(number(r.DurationMs)), text(r.Caller.Name()), text(whatHappened(r)),
	}
	for i := range row {
		row[i].text = wire.Printable(row[i].text)
	}
	writeRow(&b, row, tableWidths, w.e.colors())
	_, err := fmt.Fprint(w.e.stdout, b.String())
	return err
}

// csvHeader are the fields of a record in CSV, named as in JSON.
var csvHeader = []string{
	"seq", "ts", "kind", "clientSlug", "portalId", "method", "path", "statusCode", "durationMs", "objectType", "objectId",
	"callId", "attempt", "callerUid", "callerUser", "callerUnit", "reason", "error", "numErrors", "requestBytes",
	"responseBytes", "rateLimitRemaining", "correlationId", "tokenFingerprint", "actor",
}

// csv writes one record, or none with r nil, and hands it on at once: a
// follower waits for it.
func (w *recordWriter) csv(r *chain.Record, first bool) error {
	out := csv.NewWriter(w.e.stdout)
	if first {
		if err := out.Write(csvHeader); err != nil {
			return err
		}
	}
	if r != nil {
		caller := chain.Caller{}
		uid := ""
		if r.Caller != nil {
			caller, uid = *r.Caller, strconv.Itoa(r.Caller.UID)
		}
		row := []cell{
			text(r.Seq), text(r.TS), text(r.Kind), text(r.ClientSlug), text(positive(r.PortalID)), text(r.Method), text(r.Path),
			text(positive(int64(r.StatusCode))), text(number(r.DurationMs)), text(r.ObjectType), text(r.ObjectID), text(r.CallID),
			text(positive(int64(r.Attempt))), text(uid), text(caller.User), text(caller.Unit), text(r.Reason), text(r.Error),
			text(positive(int64(r.NumErrors))), text(number(r.RequestBytes)), text(number(r.ResponseBytes)),
			text(number(r.RateLimitRemaining)), text(r.CorrelationID), text(r.TokenFingerprint), text(r.Actor),
		}
		if err := out.Write(csvRow(row)); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// whatHappened is the path of a call, with its error, or an event's reason.
func whatHappened(r *chain.Record) string {
	s := r.Path
	if s == "" {
		s = r.Reason
	}
	if r.Error != "" {
		s = strings.TrimSpace(s + " (" + r.Error + ")")
	}
	return s
}

func statusCell(code int) cell {
	c := text(positive(int64(code)))
	switch {
	case code >= 500:
		c.sgr = red
	case code >= 400:
		c.sgr = yellow
	}
	return c
}

// number is n in digits, or "" where the record has none.
func number(n *int64) string {
	if n == nil {
		return ""
	}
	return strconv.FormatInt(*n, 10)
}

// positive is n in digits, or "" where 0 stands for none.
func positive(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}
