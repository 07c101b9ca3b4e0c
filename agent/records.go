package agent

import (
	"bufio"
	"context"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// defaultRecords is the limit of /v1/audit/records where none is given.
const defaultRecords = 1000

// getRecords lists records as NDJSON, in log order; with follow=true it goes
// on as records are made durable.
func (a *Agent) getRecords(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	f, follow, p := parseFilter(req.query)
	if p != nil {
		return p
	}
	if err := a.audit.Flush(r.Context()); err != nil {
		// What is on disk can still be read; status tells that the log is shut.
		a.log.DebugContext(r.Context(), "records are read without the latest", "error", err)
	}
	w.Header().Set("Content-Type", wire.NDJSONType)
	w.WriteHeader(http.StatusOK)
	buf := bufio.NewWriterSize(w, 32<<10)
	rc := http.NewResponseController(w)
	ctx := r.Context()
	following, end := context.WithCancel(ctx)
	defer end()
	defer context.AfterFunc(a.draining, end)()
	limit := f.Limit
	for sent := 0; ; {
		size := a.audit.Status().Durable
		last := uint64(0)
		if limit > 0 {
			f.Limit = limit - sent
		}
		err := a.audit.Lines(ctx, f, func(seq uint64, raw []byte) error {
			last = seq
			sent++
			if _, err := buf.Write(raw); err != nil {
				return err
			}
			return buf.WriteByte('\n')
		})
		if err == nil {
			err = buf.Flush()
		}
		if err != nil {
			if ctx.Err() == nil {
				a.log.ErrorContext(ctx, "records could not be read", "error", err)
			}
			panic(http.ErrAbortHandler) // a broken answer, not a short one
		}
		if !follow || limit > 0 && sent >= limit {
			return nil
		}
		if err := rc.Flush(); err != nil {
			return nil // the caller has gone
		}
		if size > 0 || sent > 0 { // everything up to there was looked at
			next := max(last, max(size, 1)-1)
			if f.After == nil || *f.After < next {
				f.After = &next
			}
		}
		after := uint64(math.MaxUint64) // any record
		if f.After != nil {
			after = *f.After
		}
		if a.audit.Wait(following, after) != nil {
			return nil // the caller has gone, or the agent stops
		}
	}
}

// filterParameters are those of /v1/audit/records.
var filterParameters = []string{
	"slug", "from", "to", "caller", "method", "objectType", "status", "callId", "kind", "reason", "after", "limit", "follow",
}

// parseFilter reads the query of /v1/audit/records.
func parseFilter(q url.Values) (f chain.Filter, follow bool, _ *wire.Problem) {
	f.Limit = defaultRecords
	for key, vals := range q {
		v, ok, want := vals[0], true, ""
		switch key {
		case "slug":
			_, err := wire.ParseSlug(v)
			f.Slug, ok, want = v, err == nil, "a slug such as acme-corp"
		case "from":
			f.From, ok = parseWhen(v, false)
			want = wantWhen
		case "to":
			f.To, ok = parseWhen(v, true)
			want = wantWhen
		case "method":
			f.Method = strings.ToUpper(v)
		case "objectType":
			f.ObjectType = v
		case "reason":
			f.Reason = v
		case "status":
			f.Status, ok, want = v, validStatus(v), "a status such as 404, or a class such as 4xx"
		case "callId":
			id, err := uuid.Parse(v)
			f.CallID, ok, want = id.String(), err == nil, "the UUID that Hsagent-Call-Id had"
		case "caller":
			f.Caller = v
		case "kind":
			f.Kind = chain.Kind(v)
			ok, want = slices.Contains(chain.Kinds(), f.Kind), "a kind of record such as call.denied"
		case "after":
			n, err := strconv.ParseUint(v, 10, 63)
			f.After, ok, want = &n, err == nil, "the number of a record"
		case "limit":
			n, err := strconv.Atoi(v)
			f.Limit, ok, want = n, err == nil && n >= 0, "a number, 0 for all"
		case "follow":
			var err error
			follow, err = strconv.ParseBool(v)
			ok, want = err == nil, "true or false"
		}
		if !ok {
			return f, false, badParameter(key, v, want)
		}
	}
	if follow && !q.Has("limit") {
		f.Limit = 0
	}
	return f, follow, nil
}

// wantWhen says what parseWhen reads.
const wantWhen = "a date such as 2026-11-30, or a time as of RFC 3339"

// parseWhen reads RFC 3339 or a date in UTC; the end of a range includes its
// whole day.
func parseWhen(s string, end bool) (time.Time, bool) { return parseWhenIn(s, end, time.UTC) }

// parseWhenIn is parseWhen for dates of a time zone.
func parseWhenIn(s string, end bool, zone *time.Location) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, true
	}
	t, err := time.ParseInLocation(time.DateOnly, s, zone)
	if end {
		t = t.AddDate(0, 0, 1)
	}
	return t, err == nil
}

// validStatus accepts a status, "404", or a class, "4xx".
func validStatus(s string) bool {
	if len(s) != 3 || s[0] < '1' || s[0] > '9' {
		return false
	}
	if s[1:] == "xx" {
		return true
	}
	_, err := strconv.Atoi(s)
	return err == nil
}
