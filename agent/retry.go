package agent

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/quota"
	"github.com/hsagent/hsagentd/wire"
)

// Repeating a call.
const (
	maxRetries  = 3
	firstDelay  = 250 * time.Millisecond // doubles with each retry, plus jitter
	lockedDelay = 2 * time.Second        // HubSpot's locks last so long
	parkedDelay = time.Minute            // of a migration that names no time
	maxPeek     = 64 << 10               // of an answer's body, to tell what it says
)

// HubSpot's own statuses, which net/http has no names for.
const statusMigrating = 477

// again says whether the call should be sent once more after an answer or a
// problem, and after how long. What HubSpot did not carry out (a limit other
// than the day's, a lock, a migration) is repeated for any method; what it may
// have carried out, only where that changes nothing: at once where a kept
// connection was no longer good, which says nothing about HubSpot. Where that
// showed before anything was sent, it is repeated for any method.
func (c *call) again(resp *http.Response, problem *wire.Problem, retry int) (time.Duration, bool) {
	switch {
	case c.once || retry > maxRetries || !c.body.replayable():
		return 0, false
	case c.broken:
		return 0, true
	case c.caller.Agent:
		return 0, false
	}
	if resp == nil {
		switch problem.Code {
		case wire.CodeUpstreamUnreachable, wire.CodeUpstreamTimeout, wire.CodeUpstreamInvalid:
			return backOff(retry), c.op.Read
		}
		return 0, false
	}
	asked, hasAsked := hubspot.ParseRetryAfter(resp.Header, time.Now())
	switch s := resp.StatusCode; {
	case s == http.StatusTooManyRequests:
		if c.peek(resp).Limit() == hubspot.LimitDaily {
			return 0, false
		}
		return max(asked, backOff(retry)), true
	case s == http.StatusLocked:
		return max(asked, lockedDelay), true
	case s == statusMigrating && hasAsked:
		return asked, true
	case s == statusMigrating:
		return parkedDelay, true
	case s >= 500:
		return max(asked, backOff(retry)), c.op.Read
	}
	return 0, false
}

// queue waits for a place in the portal's quota. A question of the agent's own
// goes on without one in the end: what HubSpot says of a token is worth more
// than what is believed of its quota.
func (c *call) queue(ctx context.Context, deadline time.Time) (problem *wire.Problem) {
	c.grant, problem = c.cred.lane.governor.Acquire(ctx, quota.Ask{
		Caller: c.fairKey(), Search: c.op.Search, Wait: time.Until(deadline),
	})
	if problem != nil && c.caller.Agent && ctx.Err() == nil {
		return nil
	}
	return problem
}

// leave gives the quota its place back, with what the answer says of it. A
// second leave of the same attempt does nothing.
func (c *call) leave(resp *http.Response) {
	if c.grant != nil {
		c.grant.Done(c.limits(resp))
	}
}

// limits is what an answer says of the portal's quota, nil for none.
func (c *call) limits(resp *http.Response) quota.Answer {
	if resp == nil {
		return quota.Answer{}
	}
	said := hubspot.ParseRateLimit(resp.Header)
	answer := quota.Answer{
		Got: true, Status: resp.StatusCode,
		DailyLimit: said.DailyLimit, DailyRemaining: said.DailyRemaining,
		BurstLimit: said.BurstLimit, BurstRemaining: said.BurstRemaining, Interval: said.Interval,
	}
	answer.RetryAfter, answer.HasRetryAfter = hubspot.ParseRetryAfter(resp.Header, time.Now())
	if resp.StatusCode == http.StatusTooManyRequests {
		answer.Limit = string(c.peek(resp).Limit())
	}
	return answer
}

// fairKey tells callers apart where they wait for one portal's quota: one
// process is one caller.
func (c *call) fairKey() string {
	return strconv.Itoa(c.caller.UID) + "/" + strconv.Itoa(c.caller.PID)
}

// backOff is the delay before a retry, longer each time and never the same for
// two calls that failed together.
func backOff(retry int) time.Duration {
	d := firstDelay << (retry - 1)
	return d + rand.N(d) //nolint:gosec // jitter is no secret
}

// peek reads what an answer's body says went wrong and leaves the body to be
// read from its beginning.
func (c *call) peek(resp *http.Response) hubspot.APIError {
	head, _ := io.ReadAll(io.LimitReader(resp.Body, maxPeek)) // what breaks it breaks it again for who reads on
	resp.Body = &peeked{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body}
	return hubspot.ParseError(resp.StatusCode, resp.Header.Get("Content-Type"), head)
}

// peeked is a body of which the beginning was read before.
type peeked struct {
	io.Reader
	io.Closer
}

// sleep waits and reports whether ctx lasted so long.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
