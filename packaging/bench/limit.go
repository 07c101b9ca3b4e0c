package main

import (
	"context"
	"errors"
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

// The limit that contending processes meet: the lowest that HubSpot has.
const (
	burst    = 100
	interval = 10 * time.Second
	callers  = 8
)

// limit has 8 processes call as fast as they can for a portal with a limit of
// 100 calls in 10 s, in the sandbox HubSpot, which enforces it.
func (b *cliBench) limit(ctx context.Context) error {
	hub := sandbox.New(sandbox.Config{Portals: []sandbox.Portal{{
		ID: portal, Slug: slug, Token: wire.NewToken(upstream.Token(portal)), BurstLimit: burst, DailyLimit: -1, SearchLimit: -1,
	}}})
	l, err := hub.Start()
	if err != nil {
		return err
	}
	defer l.Close()
	dir := filepath.Join(b.dir, "limit")
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
	if err := once(i.socket, callPath("/crm/v3/objects/contacts?limit=1")); err != nil && !errors.Is(err, errLength) {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Whole intervals from a full stop: what is left of the one before is over.
	sleep(ctx, interval+interval/10)
	hub.Reset()
	rounds := max(int(b.soak/interval), 2)
	took := time.Duration(rounds) * interval
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() { _ = run(ctx, nil, self, "hammer", i.socket, took.String()) }) // what arrived counts
	}
	wg.Wait()
	good, refused := 0, 0
	for _, r := range hub.Requests() {
		switch r.Status {
		case http.StatusTooManyRequests:
			refused++
		default:
			good++
		}
	}
	b.rep.note(fmt.Sprintf("calls that %d processes brought through a limit of %d in %v, in %v", callers, burst, interval, took), float64(good), "calls")
	b.rep.judge("T14", "goodput / limit", float64(good)/float64(rounds*burst), true, 0.98)
	b.rep.judge("T14", "answers 429", float64(refused), false, 0)
	return nil
}

// hammer is one of the processes: it calls until its time is over.
func hammer(args []string) error {
	if len(args) != 2 {
		return errors.New("want: bench hammer SOCKET TIME")
	}
	d, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	c := &http.Client{Transport: socketTransport(args[0])}
	for deadline := time.Now().Add(d); time.Now().Before(deadline); {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		_, err := get(ctx, c, callPath("/crm/v3/objects/contacts?limit=1"), discard{})
		cancel()
		if err != nil && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond) // refused: an answer of the agent's own
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
