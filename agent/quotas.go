package agent

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/wire"
)

// getQuota tells what is left of every portal's quota; with refresh=true,
// after asking HubSpot how much of the day is used.
func (a *Agent) getQuota(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	refresh, p := req.flag("refresh")
	if p != nil {
		return p
	}
	k := a.keys.Load()
	if k == nil {
		return a.noKeys()
	}
	visible := a.visible(r)
	if refresh {
		a.refreshQuotas(r.Context(), k, visible)
	}
	out := wire.Quotas{Portals: []wire.Quota{}}
	for _, slug := range k.slugs {
		c := k.creds[slug]
		if c == nil || !visible(slug) {
			continue
		}
		q := c.lane.governor.Quota()
		q.PortalID = c.PortalID
		n, err := c.lane.used.since(a.audit, slug, c.lane.governor.DayStart(), time.Now())
		if err != nil {
			return wire.Errorf(wire.CodeAuditUnavailable, "today's calls of %s cannot be counted: %v", slug, err)
		}
		q.UsedToday = &n
		out.Portals = append(out.Portals, q)
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

// refreshQuotas asks HubSpot for the usage of every visible portal that calls
// may be made for. What it does not answer stays as it was.
func (a *Agent) refreshQuotas(ctx context.Context, k *keyring, visible func(slug string) bool) {
	queue := make(chan *credential, len(k.creds))
	for _, slug := range k.slugs {
		if c := k.creds[slug]; c != nil && visible(slug) {
			queue <- c
		}
	}
	close(queue)
	var wg sync.WaitGroup
	for range min(confirmers, len(queue)) {
		wg.Go(func() {
			for c := range queue {
				if p := a.refreshQuota(ctx, c); p != nil {
					a.log.WarnContext(ctx, "quota not refreshed", "slug", c.Slug.String(), "portal", c.PortalID, "reason", p.Detail)
				}
			}
		})
	}
	wg.Wait()
}

// A refresh asks HubSpot how much of a portal's day is used, once at a time: the
// answer is for everybody who wants it meanwhile.
type refresh struct {
	mu     sync.Mutex
	flight *usageQuestion // the question under way; nil: none
}

type usageQuestion struct {
	done    chan struct{} // closed when it is answered
	problem *wire.Problem // why there is no answer, once done
}

// refreshQuota asks for the portal's usage, or waits for the answer to whoever
// asks already.
func (a *Agent) refreshQuota(ctx context.Context, c *credential) *wire.Problem {
	r := &c.lane.refresh
	r.mu.Lock()
	q := r.flight
	if q == nil {
		q = &usageQuestion{done: make(chan struct{})}
		started := a.spawn(func() {
			q.problem = a.askUsage(a.ctx, c)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.flight = nil
			close(q.done)
		})
		if !started {
			r.mu.Unlock()
			return wire.Errorf(wire.CodeBusy, "the agent stops")
		}
		r.flight = q
	}
	r.mu.Unlock()
	select {
	case <-q.done:
		return q.problem
	case <-ctx.Done():
		return wire.Errorf(wire.CodeClientAbort, "the caller gave up before HubSpot had answered")
	}
}

func (a *Agent) askUsage(ctx context.Context, c *credential) *wire.Problem {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	if p := a.confirm(ctx, c); p != nil {
		return p
	}
	got, p := a.ask(ctx, c, http.MethodGet, hubspot.UsagePath, nil)
	if p != nil {
		return p
	}
	if p := got.problem("account-info's usage"); p != nil {
		return p
	}
	used, err := hubspot.DecodeUsage(got.body)
	if err != nil {
		return wire.Errorf(wire.CodeUpstreamInvalid, "%v", err)
	}
	c.lane.governor.SetDaily(used.Limit, used.Used, used.CollectedAt)
	return nil
}

// settled is how old a record must be so that none dated before it can still
// be on its way into the log.
const settled = 10 * time.Second

// A usage counts a slug's wire attempts of the day from the audit log. What
// was counted up to a while ago is remembered, so that each question reads
// only what is new.
type usage struct {
	mu    sync.Mutex
	begin time.Time // of the day that is counted
	until time.Time // what is remembered ends here, exclusive
	count int64
}

// since counts from begin, the start of the portal's day.
func (u *usage) since(log auditLog, slug string, begin, now time.Time) (int64, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.begin.Equal(begin) {
		u.begin, u.until, u.count = begin, begin, 0
	}
	if old := now.Add(-settled); old.After(u.until) {
		n, err := log.Usage(slug, u.until, old)
		if err != nil {
			return 0, err
		}
		u.count, u.until = u.count+n, old
	}
	fresh, err := log.Usage(slug, u.until, time.Time{})
	return u.count + fresh, err
}
