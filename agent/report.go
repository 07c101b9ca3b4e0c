package agent

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/auditstore/report"
	"github.com/hsagent/hsagentd/wire"
)

// getReport counts what was done for one client in a period. It reads the
// client's own records alone, from the period's first on.
func (a *Agent) getReport(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	opts, p := parseReport(req.query)
	if p != nil {
		return p
	}
	opts.Slug = req.slug.String()
	note, size := a.anchor(r.Context())
	first, err := a.oldest(r.Context(), opts.Slug)
	if err != nil {
		return unreadableLog(err)
	}
	portalID := int64(0)
	if k := a.keys.Load(); k != nil {
		switch c := k.credential(opts.Slug); {
		case c != nil:
			portalID = c.PortalID
		case first == nil:
			return k.missing(req.slug)
		}
	} else if first == nil {
		return a.noKeys()
	}
	b := report.New(opts)
	err = a.audit.Records(r.Context(), opts.Filter(), func(_ []byte, rec *chain.Record) error {
		if rec.Seq >= size {
			return errRead
		}
		b.Add(rec)
		return nil
	})
	if err != nil && !errors.Is(err, errRead) {
		return unreadableLog(err)
	}
	rep := b.Report(first)
	rep.Checkpoint = note
	if rep.PortalID == 0 {
		rep.PortalID = portalID
	}
	if s := req.query.Get("from"); s != "" {
		rep.From = s
	}
	if s := req.query.Get("to"); s != "" {
		rep.To = s
	}
	rep.Recheck = report.Recheck(opts.Slug)
	writeJSON(w, http.StatusOK, rep)
	return nil
}

// anchor returns the checkpoint that a report is made under, and its size: the
// report holds nothing that it does not cover. A log that cannot be written
// any more, or has no key, can still be read.
func (a *Agent) anchor(ctx context.Context) (note string, size uint64) {
	note, err := a.audit.Checkpoint(ctx)
	if err == nil {
		if c, err := chain.ParseCheckpoint(note); err == nil {
			return note, c.Size
		}
	}
	a.log.WarnContext(ctx, "a report is made without a checkpoint", "error", err)
	return "", math.MaxUint64
}

// errRead ends the reading of records once all were read that the checkpoint covers.
var errRead = errors.New("read")

func unreadableLog(err error) *wire.Problem {
	return wire.Errorf(wire.CodeAuditUnavailable, "the log could not be read: %v", err)
}

// oldest returns the slug's first record, or nil.
func (a *Agent) oldest(ctx context.Context, slug string) (*chain.Record, error) {
	var first *chain.Record
	err := a.audit.Records(ctx, chain.Filter{Slug: slug, Limit: 1}, func(_ []byte, rec *chain.Record) error {
		first = rec
		return nil
	})
	return first, err
}

// parseReport reads the query of /v1/report/{slug}.
func parseReport(q url.Values) (report.Options, *wire.Problem) {
	o := report.Options{Zone: time.UTC}
	for key, vals := range q {
		switch v := vals[0]; key {
		case "tz":
			zone, err := time.LoadLocation(v)
			if err != nil || v == "Local" || v == "" { // what Local is depends on the machine
				return o, badParameter(key, v, "a time zone such as Europe/Berlin")
			}
			o.Zone = zone
		case "breach":
			var err error
			if o.Breach, err = strconv.ParseBool(v); err != nil {
				return o, badParameter(key, v, "true or false")
			}
		case "from", "to": // in the time zone, which may come later
		}
	}
	for _, key := range []string{"from", "to"} {
		v, at := q.Get(key), &o.From
		if key == "to" {
			at = &o.To
		}
		if v == "" {
			continue
		}
		var ok bool
		if *at, ok = parseWhenIn(v, key == "to", o.Zone); !ok {
			return o, badParameter(key, v, wantWhen)
		}
	}
	if !o.To.IsZero() && !o.From.Before(o.To) {
		return o, wire.Errorf(wire.CodeBadRequest, "the period from %s to %s has no time in it: want from before to", wire.Quote(q.Get("from")), wire.Quote(q.Get("to")))
	}
	return o, nil
}

func badParameter(key, v, want string) *wire.Problem {
	return wire.Errorf(wire.CodeBadRequest, "parameter %s: %s: want %s", key, wire.Quote(v), want)
}
