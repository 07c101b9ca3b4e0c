package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

const (
	progressEvery = time.Second   // how often a verification tells how far it is
	retainEvery   = 6 * time.Hour // how often old records are looked for
)

// getCheckpoint answers with a signed checkpoint over all records so far.
func (a *Agent) getCheckpoint(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	note, err := a.audit.Checkpoint(r.Context())
	if err != nil {
		return wire.Errorf(wire.CodeAuditUnavailable, "no checkpoint: %v", err)
	}
	writeText(w, note)
	return nil
}

// getAuditKey answers with the verifier key of the checkpoints.
func (a *Agent) getAuditKey(w http.ResponseWriter, _ *http.Request, _ apiRequest) *wire.Problem {
	key := a.audit.Key()
	if key == "" {
		return wire.Errorf(wire.CodeAuditUnavailable, "this log has no key")
	}
	writeText(w, key+"\n")
	return nil
}

// getProof answers with the proof that a record is in the log.
func (a *Agent) getProof(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	p, err := a.audit.Prove(r.Context(), req.seq)
	switch {
	case errors.Is(err, chain.ErrNoRecord):
		return wire.Errorf(wire.CodeNotFound, "record %d: %v", req.seq, err)
	case err != nil:
		return wire.Errorf(wire.CodeAuditUnavailable, "%v", err)
	}
	writeJSON(w, http.StatusOK, p)
	return nil
}

// getExport answers with one slug's records and their proofs.
func (a *Agent) getExport(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	from, to, p := parseStretch(req.query)
	if p != nil {
		return p
	}
	out := &begun{w: w}
	err := a.audit.Export(r.Context(), req.slug, from, to, out)
	if err == nil {
		return nil
	}
	if out.any {
		a.log.ErrorContext(r.Context(), "an export broke off", "slug", req.slug.String(), "error", err)
		panic(http.ErrAbortHandler) // a broken answer, not a short one
	}
	return wire.Errorf(wire.CodeAuditUnavailable, "%v", err)
}

// parseStretch reads the query of an export.
func parseStretch(q url.Values) (from, to time.Time, _ *wire.Problem) {
	for key, vals := range q {
		at := &from
		if key == "to" {
			at = &to
		}
		var ok bool
		if *at, ok = parseWhen(vals[0], key == "to"); !ok {
			return from, to, badParameter(key, vals[0], wantWhen)
		}
	}
	return from, to, nil
}

// begun is an answer of NDJSON that knows whether it has begun.
type begun struct {
	w   http.ResponseWriter
	any bool
}

func (b *begun) Write(p []byte) (int, error) {
	if !b.any {
		b.any = true
		b.w.Header().Set("Content-Type", wire.NDJSONType)
	}
	return b.w.Write(p) //nolint:wrapcheck // a writer
}

// postAuditVerify verifies the whole log. While it takes long, a line a second
// tells how far it has come; the last line is the result.
func (a *Agent) postAuditVerify(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	out := &begun{w: w}
	rc := http.NewResponseController(w)
	told := time.Now()
	rep, err := a.audit.Verify(r.Context(), func(done, total uint64) {
		if time.Since(told) < progressEvery {
			return
		}
		told = time.Now()
		writeLine(out, wire.AuditProgress{Done: done, Total: total})
		_ = rc.Flush() // the caller may have gone: then the context ends
	})
	switch {
	case err != nil && out.any:
		a.log.ErrorContext(r.Context(), "a verification broke off", "error", err)
		panic(http.ErrAbortHandler)
	case err != nil:
		return wire.Errorf(wire.CodeAuditUnavailable, "the log could not be read: %v", err)
	}
	writeLine(out, auditReport(&rep))
	return nil
}

func auditReport(rep *chain.Report) wire.AuditReport {
	out := wire.AuditReport{
		Records: rep.Records, Root: rep.Root.String(), Damaged: rep.Damaged, Damage: []wire.AuditDamage{},
		Checkpoints: rep.Checkpoints, PrunedRecords: rep.PrunedRecords,
	}
	for _, d := range rep.Damage {
		out.Damage = append(out.Damage, wire.AuditDamage{Seq: d.Seq, Kind: string(d.Kind), Detail: d.Detail})
	}
	for _, p := range rep.Pruned {
		out.Pruned = append(out.Pruned, wire.AuditRange(p))
	}
	for _, g := range rep.Gaps {
		out.Gaps = append(out.Gaps, wire.AuditGap{Seq: g.Seq, Kept: g.Kept, Lost: g.Lost, Root: g.Root.String()})
	}
	return out
}

// writeLine writes v as one line of NDJSON.
func writeLine(w io.Writer, v any) {
	b := bufio.NewWriter(w)
	if err := json.NewEncoder(b).Encode(v); err != nil {
		panic(err) // contained: only what cannot be encoded gets here
	}
	_ = b.Flush() // the caller may have gone
}

// postPrune erases what records before a date say.
func (a *Agent) postPrune(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	var in wire.Prune
	if p := readJSON(w, r, &in); p != nil {
		return p
	}
	before, ok := parseWhen(in.Before, false)
	if !ok {
		return wire.Errorf(wire.CodeBadRequest, "before: %s is neither a date nor RFC 3339", wire.Quote(in.Before))
	}
	if in.Slug != "" {
		if _, err := wire.ParseSlug(in.Slug); err != nil {
			return wire.Errorf(wire.CodeBadRequest, "%v", err)
		}
	}
	n, err := a.audit.Prune(r.Context(), in.Slug, before, auditCaller(callerOf(r)))
	switch {
	case errors.Is(err, chain.ErrHeld):
		return wire.Errorf(wire.CodeConflict, "%v: take it out of audit.legal_hold first", err)
	case err != nil:
		return wire.Errorf(wire.CodeAuditUnavailable, "%d records were pruned, then: %v", n, err)
	}
	writeJSON(w, http.StatusOK, wire.Pruned{Pruned: n})
	return nil
}

// retain prunes what is older than Config.Retention, now and then.
func (a *Agent) retain() {
	ctx := a.ctx
	for {
		n, err := a.audit.Prune(ctx, "", time.Now().Add(-a.cfg.Retention), a.selfCaller)
		switch {
		case err != nil && ctx.Err() == nil:
			a.log.ErrorContext(ctx, "old records were not pruned", "error", err)
		case n > 0:
			a.log.InfoContext(ctx, "old records were pruned", "records", n, "retention", a.cfg.Retention)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retainEvery):
		}
	}
}

// writeText answers with plain text.
func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, text) // the caller may have gone
}
