package agent

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/wire"
)

// Waits between attempts to confirm a token that HubSpot did not answer for.
// They bound what a flood of calls can send for one unconfirmed token.
const (
	minConfirmWait = 250 * time.Millisecond
	maxConfirmWait = 30 * time.Second
)

// An identity is what HubSpot said about one token of one slug. A token is
// sent with a call only after [identity.confirm] has returned nil for it.
type identity struct {
	suspected atomic.Bool // a check of a confirmed token is under way

	mu      sync.Mutex
	flight  chan struct{} // closed when the confirmation under way ends; nil: none
	account *hubspot.Account
	at      time.Time     // of the last answer that settled it
	problem *wire.Problem // why it is not confirmed
	settled bool          // problem will not go away by asking again: quarantine
	failed  time.Time     // of the last attempt that settled nothing
	wait    time.Duration // until the next attempt after failed
}

func newIdentity() *identity { return new(identity) }

// confirmedLocked reports whether HubSpot named the portal of the credential.
func (id *identity) confirmedLocked(portalID int64) bool {
	return id.problem == nil && id.account != nil && id.account.PortalID == portalID
}

// state is the state of the token's portal.
func (id *identity) state(portalID int64) wire.State {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.stateLocked(portalID)
}

func (id *identity) stateLocked(portalID int64) wire.State {
	switch {
	case id.confirmedLocked(portalID):
		return wire.StateReady
	case id.settled:
		return wire.StateQuarantined
	}
	return wire.StateUnverified
}

// confirm waits until the token's portal is known and returns nil if it is the
// credential's. ask starts a question to HubSpot and calls settle once with the
// verdict; there is one at a time however many calls wait, and it goes on when
// they give up.
func (id *identity) confirm(ctx context.Context, c *credential, ask func(settle func(verdict))) *wire.Problem {
	for {
		id.mu.Lock()
		switch {
		case id.confirmedLocked(c.PortalID):
			id.mu.Unlock()
			return nil
		case id.settled, id.problem != nil && time.Since(id.failed) < id.wait:
			p := *id.problem
			id.mu.Unlock()
			return &p
		}
		flight, mine := id.flight, false
		if flight == nil {
			flight, mine = make(chan struct{}), true
			id.flight = flight
		}
		id.mu.Unlock()
		if mine {
			ask(func(v verdict) {
				id.mu.Lock()
				defer id.mu.Unlock()
				id.takeLocked(v)
				id.flight = nil
				close(flight)
			})
		}
		select {
		case <-flight:
		case <-ctx.Done():
			return wire.Errorf(wire.CodePortalUnverified,
				"slug %s: the wait for HubSpot to confirm its portal was given up: %v", c.Slug, context.Cause(ctx))
		}
	}
}

// A verdict is one answer about a token.
type verdict struct {
	account *hubspot.Account // what HubSpot said, or nil
	problem *wire.Problem    // why the credential is not confirmed, or nil
	settled bool             // problem will not go away by asking again
	cause   *wire.Problem    // the same for who asked for the check, or nil
}

// judge turns HubSpot's answer for a credential into a verdict.
func judge(c *credential, account *hubspot.Account, problem *wire.Problem) verdict {
	var cause *wire.Problem
	if problem != nil {
		told := *problem
		told.Detail = named(c.Slug) + problem.Detail
		cause = &told
	}
	switch {
	case problem == nil && account.PortalID == c.PortalID:
		return verdict{account: account}
	case problem == nil:
		return verdict{account: account, settled: true,
			problem: wire.Errorf(wire.CodePortalQuarantined, "slug %s is quarantined: %s", c.Slug, mismatch(c, account)),
			cause:   wire.Errorf(wire.CodeIdentityMismatch, "slug %s: %s", c.Slug, mismatch(c, account))}
	case problem.Code == wire.CodeTokenRejected:
		return verdict{settled: true, cause: cause,
			problem: wire.Errorf(wire.CodePortalQuarantined, "slug %s is quarantined: %s", c.Slug, problem.Detail)}
	default:
		return verdict{cause: cause, problem: wire.Errorf(wire.CodePortalUnverified,
			"slug %s: HubSpot has not confirmed which portal its token opens, so no call is made: %s", c.Slug, problem.Detail)}
	}
}

// take keeps a verdict of a check of what was settled before. One that settles
// nothing leaves a confirmed token confirmed; a good one lifts a quarantine
// only with resume.
func (id *identity) take(c *credential, v verdict, resume bool) {
	id.mu.Lock()
	defer id.mu.Unlock()
	switch {
	case v.problem != nil && !v.settled && id.confirmedLocked(c.PortalID):
	case id.settled && !v.settled && (!resume || v.problem != nil):
	default:
		id.takeLocked(v)
	}
}

// hold keeps a problem until resume, and reports whether it is news.
func (id *identity) hold(p *wire.Problem) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.settled {
		return false
	}
	id.problem, id.settled = p, true
	return true
}

// olderThan reports whether the token was confirmed longer than d ago.
func (id *identity) olderThan(d time.Duration) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.problem == nil && id.account != nil && time.Since(id.at) > d
}

func (id *identity) takeLocked(v verdict) {
	id.problem, id.settled = v.problem, v.settled
	if v.problem != nil && !v.settled {
		id.failed = time.Now()
		id.wait = min(max(2*id.wait, minConfirmWait), maxConfirmWait)
		return
	}
	id.account, id.at, id.wait = v.account, time.Now(), 0
}

// mismatch says that a token opens another portal.
func mismatch(c *credential, account *hubspot.Account) string {
	return fmt.Sprintf("its token opens portal %d, but the store says portal %d. No call is made with it. Put the right token into the store, or mend the number: the agent reads it again by itself",
		account.PortalID, c.PortalID)
}

// describe fills in the part of a portal's view that depends on the verdict.
func (id *identity) describe(p *wire.Portal, c *credential) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.account != nil {
		p.AccountType, p.TimeZone, p.DataHosting = id.account.AccountType, id.account.TimeZone, id.account.DataHostingLocation
		if dc := c.homeDatacenter(); dc != "" && p.DataHosting != "" && dc != p.DataHosting {
			p.Warning = fmt.Sprintf("the token's prefix names data centre %s, HubSpot says %s", dc, p.DataHosting)
		}
	}
	if !id.at.IsZero() && id.problem == nil {
		p.VerifiedAt = timeOrNil(id.at)
	}
	p.State = id.stateLocked(c.PortalID)
	if p.State != wire.StateReady && id.problem != nil {
		p.Reason = id.problem.Detail
	}
}
