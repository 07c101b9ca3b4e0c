package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// Bounds of one bulk request.
const (
	maxFleetRows       = 10_000
	maxFleetLine       = 16 << 10
	defaultConcurrency = 8
	maxConcurrency     = 32
	verifyTries        = 4 // of one token, where HubSpot is busy or fails
)

// A fleetRow is one row of a bulk request on its way.
type fleetRow struct {
	tokenBody
	slug   wire.Slug
	fresh  *credential // verified, to be written
	result wire.FleetResult

	rotation *rotation // of a bulk rotation
	reason   string    // for the record
}

func (f *fleetRow) reject(p *wire.Problem) {
	f.result.Result, f.result.Code, f.result.Detail = wire.RowRejected, p.Code, p.Detail
}

// postOnboard onboards many slugs: every row is verified and answered by
// itself, and the store is written once, at the end.
func (a *Agent) postOnboard(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	return a.serveFleet(w, r, req, fleetJob{
		verify: a.verifyNewcomer,
		put: func(e *credstore.Edit, row *fleetRow) error {
			if _, ok := e.Get(row.slug); ok {
				return errExists(row.slug)
			}
			return e.Put(row.fresh.Entry)
		},
		kind: chain.PortalOnboarded,
	})
}

// A fleetJob is what a bulk request does with each row.
type fleetJob struct {
	// verify asks HubSpot about the row's token and fills in fresh or the
	// result. It runs for many rows at once.
	verify func(ctx context.Context, k *keyring, row *fleetRow)
	put    func(e *credstore.Edit, row *fleetRow) error
	stage  func(rows []*fleetRow) error // before the store is written with them; nil: nothing to do
	done   func(rows []*fleetRow)       // once they are written and recorded; nil: nothing to do
	kind   chain.Kind
}

// serveFleet runs a job over the rows of a request.
func (a *Agent) serveFleet(w http.ResponseWriter, r *http.Request, req apiRequest, job fleetJob) *wire.Problem {
	dryRun, p := req.flag("dryRun")
	if p != nil {
		return p
	}
	workers := defaultConcurrency
	if v := req.query.Get("concurrency"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxConcurrency {
			return badParameter("concurrency", v, fmt.Sprintf("a number from 1 to %d", maxConcurrency))
		}
		workers = n
	}
	k := a.keys.Load()
	if k == nil {
		return a.noKeys()
	}
	erase := eraseRead(w, r)
	rows, p := readRows(r.Body)
	erase()
	if p != nil {
		return p
	}
	rejectTwins(rows)
	w.Header().Set("Content-Type", wire.NDJSONType)
	w.WriteHeader(http.StatusOK)
	out := &lines{w: w, rc: http.NewResponseController(w)}
	verifyRows(r.Context(), k, rows, workers, job.verify, out)
	if r.Context().Err() != nil {
		return nil //nolint:nilerr // the caller has gone: nothing is written
	}
	out.write(a.writeRows(r, rows, job, dryRun, out))
	return nil
}

// readRows reads the rows of a bulk request. A line that is none is a rejected
// row.
func readRows(body io.Reader) ([]*fleetRow, *wire.Problem) {
	sc := bufio.NewScanner(body)
	buf := make([]byte, maxFleetLine) // all that the scanner ever uses
	defer clear(buf)
	sc.Buffer(buf, maxFleetLine)
	var rows []*fleetRow
	for sc.Scan() {
		line := bytes.TrimSpace(sc.Bytes())
		if len(line) == 0 {
			continue
		}
		if len(rows) == maxFleetRows {
			return nil, wire.Errorf(wire.CodeTooLarge, "more than %d rows: send them in several parts", maxFleetRows)
		}
		row := &fleetRow{result: wire.FleetResult{Row: len(rows) + 1}}
		rows = append(rows, row)
		if err := decodeExactly(line, &row.tokenBody, rowKeys); err != nil {
			row.reject(wire.Errorf(wire.CodeBadRequest, "row %d is no JSON object of slug, token and portalId", row.result.Row))
			continue
		}
		row.result.Slug = wire.MaskTokens(wire.Printable(row.Slug))
		if err := row.check(); err != nil {
			row.reject(wire.Errorf(wire.CodeBadRequest, "%v", err))
		}
	}
	if err := sc.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, wire.Errorf(wire.CodeTooLarge, "row %d has more than %d bytes", len(rows)+1, maxFleetLine)
	} else if err != nil {
		return nil, wire.Errorf(wire.CodeClientAbort, "the rows could not be read")
	}
	return rows, nil
}

func (f *fleetRow) check() (err error) {
	if f.slug, err = wire.ParseSlug(f.Slug); err != nil {
		return err
	}
	switch {
	case f.Token.Check() != nil:
		return f.Token.Check()
	case f.PortalID < 0:
		return errors.New("portalId " + strconv.FormatInt(f.PortalID, 10) + " is no portal's number")
	case !credstore.ValidKind(f.Kind):
		return errors.New("kind " + wire.Quote(f.Kind) + ": want service-key, private-app or static-app")
	}
	return nil
}

// rejectTwins rejects all rows of one request that claim the same slug or the
// same token: which of them is right, nobody but their author knows.
func rejectTwins(rows []*fleetRow) {
	slugs, tokens := map[string][]*fleetRow{}, map[wire.Token][]*fleetRow{}
	for _, row := range rows {
		if row.result.Result == "" {
			slugs[row.Slug] = append(slugs[row.Slug], row)
			tokens[row.Token] = append(tokens[row.Token], row)
		}
	}
	for _, twins := range slugs {
		rejectAll(twins, "the slug stands in rows %d and %d: keep the right one")
	}
	for _, twins := range tokens {
		rejectAll(twins, "the same token stands in rows %d and %d: each portal has its own")
	}
}

func rejectAll(twins []*fleetRow, format string) {
	if len(twins) < 2 {
		return
	}
	for i, row := range twins {
		other := twins[0]
		if i == 0 {
			other = twins[1]
		}
		row.reject(wire.Errorf(wire.CodeConflict, format, row.result.Row, other.result.Row))
	}
}

// verifyRows verifies the rows with so many workers and writes each result as
// it is known. Of rows that open the same portal the first has it, however long
// HubSpot took for which: a good row is decided once all before it are.
func verifyRows(ctx context.Context, k *keyring, rows []*fleetRow, workers int,
	verify func(context.Context, *keyring, *fleetRow), out *lines) {
	queue := make(chan int)
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		verified = make([]bool, len(rows))
		next     int               // the first row that is not decided
		portals  = map[int64]int{} // portal -> the row that has it
	)
	decide := func(i int) {
		mu.Lock()
		defer mu.Unlock()
		if verified[i] = true; rows[i].result.Result != wire.RowOK {
			out.write(rows[i].result)
		}
		for ; next < len(rows) && verified[next]; next++ {
			row := rows[next]
			if row.result.Result != wire.RowOK {
				continue
			}
			portal := row.result.PortalID
			if first, ok := portals[portal]; ok {
				row.reject(wire.Errorf(wire.CodeConflict, "slug %s: its token opens portal %d, as that of row %d does, which comes first", row.slug, portal, first))
			} else {
				portals[portal] = row.result.Row
			}
			out.write(row.result)
		}
	}
	for range min(workers, len(rows)) {
		wg.Go(func() {
			for i := range queue {
				if rows[i].result.Result == "" {
					verify(ctx, k, rows[i])
				}
				decide(i)
			}
		})
	}
	for i := range rows {
		queue <- i
	}
	close(queue)
	wg.Wait()
}

// verifyNewcomer verifies a row for onboarding.
func (a *Agent) verifyNewcomer(ctx context.Context, k *keyring, row *fleetRow) {
	if c := k.credential(row.slug.String()); c != nil {
		if !sameToken(c.Token, row.Token) || row.PortalID != 0 && row.PortalID != c.PortalID {
			row.reject(errExists(row.slug))
			return
		}
		row.result.Result, row.result.PortalID = wire.RowExists, c.PortalID
		return
	}
	p := retried(ctx, func() (p *wire.Problem) {
		row.fresh, p = a.newcomer(ctx, credstore.Entry{Slug: row.slug, Token: row.Token, PortalID: row.PortalID, Kind: row.Kind})
		return p
	})
	if p == nil {
		p = k.taken(row.fresh)
	}
	if p != nil {
		row.reject(p)
		return
	}
	row.result.Result, row.result.PortalID, row.result.AccountType = wire.RowOK, row.fresh.PortalID, row.fresh.AccountType
}

// retried does something with HubSpot until it succeeds or another try is not
// worth it.
func retried(ctx context.Context, do func() *wire.Problem) *wire.Problem {
	for try := 1; ; try++ {
		p := do()
		if p == nil || try == verifyTries || !passing(p.Code) || !pause(ctx, p, try) {
			return p
		}
	}
}

// passing reports whether a problem may be gone at the next try.
func passing(c wire.Code) bool {
	switch c {
	case wire.CodeThrottled, wire.CodeUpstreamInvalid, wire.CodeUpstreamTimeout, wire.CodeUpstreamUnreachable:
		return true
	}
	return false
}

// maxPause is the longest wait between two tries of one row.
const maxPause = 15 * time.Second

// pause waits before the next try: as long as HubSpot asked, else longer each
// time, with jitter. It reports whether it is worth going on.
func pause(ctx context.Context, p *wire.Problem, try int) bool {
	d := time.Duration(p.RetryAfter) * time.Second
	if d == 0 {
		d = 200 * time.Millisecond << try
		d += rand.N(d) //nolint:gosec // jitter is no secret
	}
	return d <= maxPause && sleep(ctx, d)
}

// writeRows writes the verified rows into the store, once, and returns the
// last line of the answer. A row that the store itself refuses, because another
// writer was quicker, gets a second line.
func (a *Agent) writeRows(r *http.Request, rows []*fleetRow, job fleetJob, dryRun bool, out *lines) wire.FleetDone {
	done := wire.FleetDone{Done: true}
	good := slices.DeleteFunc(slices.Clone(rows), func(row *fleetRow) bool { return row.result.Result != wire.RowOK })
	if !dryRun && len(good) > 0 {
		if p := a.putRows(r, good, job, out); p != nil {
			done.Code, done.Detail = p.Code, p.Detail
		}
	}
	for _, row := range rows {
		switch row.result.Result {
		case wire.RowOK:
			done.OK++
		case wire.RowExists:
			done.Exists++
		default:
			done.Rejected++
		}
		if row.fresh != nil && row.rotation == nil && (dryRun || row.result.Result != wire.RowOK) {
			row.fresh.lane.pool.Close()
		}
	}
	if k := a.keys.Load(); k != nil {
		done.StoreVersion = k.version
	}
	return done
}

// putRows writes rows into the store and records it. Where nothing could be
// written, every row is rejected.
func (a *Agent) putRows(r *http.Request, rows []*fleetRow, job fleetJob, out *lines) *wire.Problem {
	fresh := make([]*credential, len(rows))
	for i, row := range rows {
		fresh[i] = row.fresh
	}
	refused := map[*fleetRow]*wire.Problem{}
	taken := func() []*fleetRow {
		return slices.DeleteFunc(slices.Clone(rows), func(row *fleetRow) bool { return refused[row] != nil })
	}
	err := a.update(r.Context(), func(e *credstore.Edit) error {
		clear(refused) // the store may have been read anew
		for _, row := range rows {
			if err := job.put(e, row); err != nil {
				refused[row] = updateProblem(row.slug, err)
			}
		}
		if job.stage == nil {
			return nil
		}
		return job.stage(taken())
	}, fresh...)
	if err != nil {
		p := asProblem(err)
		p.Detail = "the store was not written, and no row was taken: " + p.Detail
		for _, row := range rows {
			row.reject(p)
		}
		return p
	}
	for row, p := range refused {
		row.reject(p)
		out.write(row.result)
	}
	if p := a.recordRows(r, taken(), job.kind); p != nil {
		return p
	}
	if job.done != nil {
		job.done(taken())
	}
	return nil
}

// recordRows makes the records of what was written durable.
func (a *Agent) recordRows(r *http.Request, rows []*fleetRow, kind chain.Kind) *wire.Problem {
	for i, row := range rows {
		rec := a.event(kind)
		rec.ClientSlug, rec.PortalID, rec.TokenFingerprint = row.slug.String(), row.fresh.PortalID, row.fresh.fingerprint
		rec.Caller, rec.Reason = auditCaller(callerOf(r)), row.reason
		if i == len(rows)-1 {
			return a.recordManaged(r, rec) // waits, and with it all before
		}
		a.record(r.Context(), rec)
	}
	return nil
}

// lines writes NDJSON lines, each flushed, from several goroutines.
type lines struct {
	mu sync.Mutex
	w  io.Writer
	rc *http.ResponseController
}

func (l *lines) write(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // contained: what is written here can be encoded
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.w.Write(append(b, '\n')) // the caller may have gone: its context tells
	_ = l.rc.Flush()
}
