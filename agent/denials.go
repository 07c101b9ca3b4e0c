package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// How many denials of one user get a record each. What goes beyond is counted,
// and one record a minute says how much that was: nothing has left, so no call
// goes unrecorded.
const (
	denialBurst    = 1000
	denialsASecond = 10
	denialSummary  = time.Minute
)

// denials keep who may do nothing from filling the log with it.
type denials struct {
	mu    sync.Mutex
	byUID map[int]*denialBucket
}

type denialBucket struct {
	tokens float64
	at     time.Time // when tokens was right
	extra  int64     // denials without a record
	since  time.Time // the first of them
	user   string
}

// take reports whether a denial of the caller's gets a record of its own.
func (d *denials) take(c *chain.Caller, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.byUID[c.UID]
	if b == nil {
		if d.byUID == nil {
			d.byUID = map[int]*denialBucket{}
		}
		b = &denialBucket{tokens: denialBurst, at: now, user: c.User}
		d.byUID[c.UID] = b
	}
	b.tokens = min(denialBurst, b.tokens+now.Sub(b.at).Seconds()*denialsASecond)
	b.at = now
	if b.tokens >= 1 {
		b.tokens--
		return true
	}
	if b.extra == 0 {
		b.since = now
	}
	b.extra++
	return false
}

// sum returns who has denials without a record, and forgets who has none and
// is quiet.
func (d *denials) sum(now time.Time) map[int]denialBucket {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[int]denialBucket{}
	for uid, b := range d.byUID {
		switch {
		case b.extra > 0:
			out[uid] = *b
			b.extra = 0
		case now.Sub(b.at).Seconds()*denialsASecond > denialBurst:
			delete(d.byUID, uid)
		}
	}
	return out
}

// floods reports whether refusals of this kind can be had by anybody who may
// connect, as many as he likes. Others need a call that is allowed, which has
// records anyway.
func floods(code string) bool {
	switch wire.Code(code) {
	case wire.CodeDenied, wire.CodeConfirmationRequired, wire.CodeUnknownPortal, wire.CodeBadRequest:
		return true
	}
	return false
}

// recordDenial queues the record of a refusal, unless its caller has had too
// many of them.
func (a *Agent) recordDenial(ctx context.Context, rec chain.Record) {
	if !floods(rec.Error) || a.denials.take(rec.Caller, time.Now()) {
		a.record(ctx, rec)
	}
}

// sumDenials records now and then what was counted instead.
func (a *Agent) sumDenials() {
	tick := time.NewTicker(denialSummary)
	defer tick.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-tick.C:
			a.recordSums(a.ctx)
		}
	}
}

func (a *Agent) recordSums(ctx context.Context) {
	for uid, b := range a.denials.sum(time.Now()) {
		rec := a.event(chain.CallDenied)
		rec.Caller = &chain.Caller{UID: uid, User: b.user, GID: -1}
		rec.Error = string(wire.CodeDenied)
		rec.Reason = fmt.Sprintf("%d more refusals since %s, not recorded one by one", b.extra, wire.At(b.since))
		a.record(ctx, rec)
		a.log.WarnContext(ctx, "refusals counted, not recorded one by one", "caller_uid", uid, "refusals", b.extra)
	}
}
