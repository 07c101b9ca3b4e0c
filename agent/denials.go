package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// How many refusals of one user, for one reason, get a record each. What goes
// beyond is counted, and one record a minute says how much that was: nothing has
// left, so no call goes unrecorded. Without an end to them a program that tries
// again and again, at a quarantined slug for instance, would fill the disk and so
// stop everybody.
const (
	denialBurst    = 1000
	denialsASecond = 10
	denialSummary  = time.Minute
)

// denials keep refusals from filling the log.
type denials struct {
	mu      sync.Mutex
	buckets map[denialKey]*denialBucket
}

// A denialKey is one user's refusals with one code.
type denialKey struct {
	uid  int
	code string
}

type denialBucket struct {
	denialKey
	tokens float64
	at     time.Time // when tokens was right
	extra  int64     // denials without a record
	since  time.Time // the first of them
	user   string
}

// take reports whether a refusal of the caller's gets a record of its own.
func (d *denials) take(c *chain.Caller, code string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := denialKey{c.UID, code}
	b := d.buckets[key]
	if b == nil {
		if d.buckets == nil {
			d.buckets = map[denialKey]*denialBucket{}
		}
		b = &denialBucket{denialKey: key, tokens: denialBurst, at: now, user: c.User}
		d.buckets[key] = b
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
func (d *denials) sum(now time.Time) (out []denialBucket) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, b := range d.buckets {
		switch {
		case b.extra > 0:
			out = append(out, *b)
			b.extra = 0
		case now.Sub(b.at).Seconds()*denialsASecond > denialBurst:
			delete(d.buckets, key)
		}
	}
	return out
}

// recordDenial queues the record of a refusal, unless its caller has had too
// many of them.
func (a *Agent) recordDenial(ctx context.Context, rec chain.Record) {
	if a.denials.take(rec.Caller, rec.Error, time.Now()) {
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
	for _, b := range a.denials.sum(time.Now()) {
		rec := a.event(chain.CallDenied)
		rec.Caller = &chain.Caller{UID: b.uid, User: b.user, GID: -1}
		rec.Error = b.code
		rec.Reason = fmt.Sprintf("%d more refusals since %s, not recorded one by one", b.extra, wire.At(b.since))
		a.record(ctx, rec)
		a.log.WarnContext(ctx, "refusals counted, not recorded one by one", "caller_uid", b.uid, "code", b.code, "refusals", b.extra)
	}
}
