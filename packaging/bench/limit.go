package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/packaging/bench/upstream"
	"github.com/hsagent/hsagentd/wire"
)

// callers is how many processes call at a time.
const callers = 8

// A contest is a limit that processes contend for, and what they call.
type contest struct {
	what     string
	limit    int
	interval time.Duration
	portal   sandbox.Portal // its limits
	args     []string       // of hsctl call
	want     float64        // of what the limit allows
}

// contests are the two limits that have a short interval: the lowest burst
// limit that HubSpot has, and that of searches.
func contests() []contest {
	return []contest{
		{
			"calls", 100, 10 * time.Second, sandbox.Portal{BurstLimit: 100, DailyLimit: -1, SearchLimit: -1},
			[]string{"GET", "/crm/v3/objects/contacts?limit=1"}, 0.98,
		},
		{
			"searches", 5, time.Second, sandbox.Portal{BurstLimit: -1, DailyLimit: -1, SearchLimit: 5},
			[]string{"POST", "/crm/v3/objects/contacts/search", "-d", `{"limit":1}`}, 0.97,
		},
	}
}

// limit has 8 processes at a time call as fast as they can for a portal with a
// limit, in the sandbox HubSpot, which enforces it.
func (b *cliBench) limit(ctx context.Context) error {
	for _, c := range contests() {
		if err := b.contend(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
	}
	return nil
}

func (b *cliBench) contend(ctx context.Context, c contest) error {
	c.portal.ID, c.portal.Slug, c.portal.Token = portal, slug, wire.NewToken(upstream.Token(portal))
	hub := sandbox.New(sandbox.Config{Portals: []sandbox.Portal{c.portal}})
	l, err := hub.Start()
	if err != nil {
		return err
	}
	defer l.Close()
	dir := filepath.Join(b.dir, "limit-"+c.what)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	i, err := install(ctx, b.bin, dir, &upstream.Server{URL: l.URL, CAPEM: l.CAPEM})
	if err != nil {
		return err
	}
	p, err := i.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := i.onboard(ctx); err != nil {
		return err
	}
	args := append([]string{"--socket", i.socket, "call", slug, "--wait", "60s"}, c.args...)
	if err := run(ctx, nil, i.hsctl(), args...); err != nil { // its answer tells the limit
		return err
	}
	// Whole intervals from a full stop: what is left of the one before is over.
	sleep(ctx, c.interval+c.interval/10)
	hub.Reset()
	rounds := max(int(b.soak/c.interval), 2)
	took := time.Duration(rounds) * c.interval
	end, cancel := context.WithTimeout(ctx, took)
	defer cancel()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for end.Err() == nil {
				_ = run(end, nil, i.hsctl(), args...) // what arrived counts
			}
		})
	}
	wg.Wait()
	var good []time.Time
	refused := 0
	for _, r := range hub.Requests() {
		switch r.Status {
		case http.StatusTooManyRequests:
			refused++
		default:
			good = append(good, r.Time)
		}
	}
	b.rep.note(fmt.Sprintf("%s of %d processes at a time, with a limit of %d in %v, in %v", c.what, callers, c.limit, c.interval, took), float64(len(good)), c.what)
	b.rep.judge("T14", c.what+" / limit", c.used(good), true, c.want)
	b.rep.judge("T14", c.what+" answered 429", float64(refused), false, 0)
	return nil
}

// used is how much of the limit the arrivals use. The first interval's come at
// once, and say nothing: what counts is how long after an arrival its place is
// taken again, on average.
func (c contest) used(arrivals []time.Time) float64 {
	var sum time.Duration
	n := len(arrivals) - c.limit
	for k := range n {
		sum += arrivals[k+c.limit].Sub(arrivals[k])
	}
	if sum == 0 {
		return 0
	}
	return float64(n) * float64(c.interval) / float64(sum)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
