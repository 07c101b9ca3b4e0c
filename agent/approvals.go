package agent

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/agent/peer"
	"github.com/hsagent/hsagentd/wire"
)

// Limits of calls that wait for a confirmation. Waiting costs a connection and
// a place on somebody's screen, nothing else.
const (
	maxApprovals       = 256
	maxApprovalsOfUser = 16
	maxWatchers        = 32
	watchBacklog       = 2 * maxApprovals // events that a slow watcher may be behind
)

// DefaultConfirmTimeout is how long a call waits for somebody's yes.
const DefaultConfirmTimeout = time.Minute

// approvals are the calls that wait until somebody at hsctl confirm says yes.
// Each waits by itself: nothing else waits for it.
type approvals struct {
	mu       sync.Mutex
	waiting  []*approval // in the order in which they came
	watchers map[chan wire.Confirmation]bool
	stopped  bool
}

// An approval is one call that waits.
type approval struct {
	wire.Confirmation
	ended chan struct{} // closed when State is no longer waiting
}

// add makes a call wait, or says why it may not.
func (s *approvals) add(q wire.Confirmation) (*approval, *wire.Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := 0
	for _, p := range s.waiting {
		if p.UID == q.UID {
			own++
		}
	}
	if s.stopped || own >= maxApprovalsOfUser || len(s.waiting) >= maxApprovals {
		return nil, wire.Errorf(wire.CodeConfirmationRequired, "the call needs a confirmation, and %d calls wait for one already: try again later", len(s.waiting))
	}
	q.State = wire.ConfirmWaiting
	p := &approval{q, make(chan struct{})}
	s.waiting = append(s.waiting, p)
	s.tellLocked(q)
	return p, nil
}

// end notes how a call's wait ended, and returns it; nil if it has ended
// already.
func (s *approvals) end(id, state, by string) *approval {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range s.waiting {
		if p.ID == id {
			s.waiting = append(s.waiting[:i:i], s.waiting[i+1:]...)
			p.State, p.By = state, by
			close(p.ended)
			s.tellLocked(p.Confirmation)
			return p
		}
	}
	return nil
}

// stop lets nothing wait any more: the agent drains.
func (s *approvals) stop() {
	s.mu.Lock()
	s.stopped = true
	var ids []string
	for _, p := range s.waiting {
		ids = append(ids, p.ID)
	}
	s.mu.Unlock()
	for _, id := range ids {
		s.end(id, wire.ConfirmGone, "")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.watchers {
		close(ch)
	}
	s.watchers = nil
}

// tellLocked tells those who watch. One that cannot keep up is dropped: it sees
// its stream end.
func (s *approvals) tellLocked(q wire.Confirmation) {
	for ch := range s.watchers {
		select {
		case ch <- q:
		default:
			close(ch)
			delete(s.watchers, ch)
		}
	}
}

// watch returns what waits now and a channel of what comes after it, which the
// caller unwatches; nil if there are too many who watch, or the agent drains.
func (s *approvals) watch() ([]wire.Confirmation, chan wire.Confirmation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := make([]wire.Confirmation, 0, len(s.waiting))
	for _, p := range s.waiting {
		now = append(now, p.Confirmation)
	}
	if s.stopped || len(s.watchers) >= maxWatchers {
		return now, nil
	}
	ch := make(chan wire.Confirmation, watchBacklog)
	if s.watchers == nil {
		s.watchers = map[chan wire.Confirmation]bool{}
	}
	s.watchers[ch] = true
	return now, ch
}

func (s *approvals) unwatch(ch chan wire.Confirmation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watchers, ch)
}

// approve waits until somebody says yes to the call. Who hangs up, who is told
// no, and who waits in vain gets a problem.
func (a *Agent) approve(ctx context.Context, c *call) *wire.Problem {
	now := time.Now()
	p, problem := a.approvals.add(wire.Confirmation{
		ID: c.id, Rule: c.rule, Slug: c.slug.String(), Method: c.method, Path: c.path, Reason: c.reason,
		User: c.caller.User, UID: c.caller.UID, PID: c.caller.PID, Exe: c.caller.Exe, Unit: c.caller.Unit,
		AskedAt: wire.At(now), ExpiresAt: wire.At(now.Add(a.cfg.ConfirmTimeout)),
	})
	if problem != nil {
		return problem
	}
	timer := time.NewTimer(a.cfg.ConfirmTimeout)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		a.approvals.end(c.id, wire.ConfirmExpired, "")
	case <-ctx.Done():
		a.approvals.end(c.id, wire.ConfirmGone, "")
	case <-a.ctx.Done():
		a.approvals.end(c.id, wire.ConfirmGone, "")
	}
	<-p.ended // whoever was first decided
	c.confirmedBy = p.By
	switch p.State {
	case wire.ConfirmAllowed:
		return nil
	case wire.ConfirmRefused:
		return wire.Errorf(wire.CodeConfirmationRequired, "the call needs a confirmation, and %s said no", p.By)
	case wire.ConfirmExpired:
		return wire.Errorf(wire.CodeConfirmationRequired, "the call needs a confirmation, and nobody gave one within %v: somebody who manages the agent has to run hsctl confirm", a.cfg.ConfirmTimeout)
	}
	return wire.Errorf(wire.CodeConfirmationRequired, "the call needed a confirmation, and its wait was broken off")
}

// getConfirmations lists the calls that wait, as NDJSON; with follow=true it
// goes on with those that come, and with how each ended.
func (a *Agent) getConfirmations(w http.ResponseWriter, r *http.Request, req apiRequest) *wire.Problem {
	follow, p := req.flag("follow")
	if p != nil {
		return p
	}
	waiting, events := a.approvals.watch()
	if events != nil {
		defer a.approvals.unwatch(events)
	}
	if follow && events == nil {
		return wire.Errorf(wire.CodeBusy, "%d terminals wait for calls to confirm already, or the agent stops", maxWatchers)
	}
	w.Header().Set("Content-Type", wire.NDJSONType)
	w.WriteHeader(http.StatusOK)
	enc, rc := json.NewEncoder(w), http.NewResponseController(w)
	for _, q := range waiting {
		if err := enc.Encode(q); err != nil {
			return nil // the caller has gone
		}
	}
	for follow {
		if err := rc.Flush(); err != nil {
			return nil // the caller has gone
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-a.ctx.Done():
			return nil
		case q, ok := <-events:
			if !ok {
				return nil
			}
			if err := enc.Encode(q); err != nil {
				return nil // the caller has gone
			}
		}
	}
	return nil
}

// postConfirmation answers a call that waits.
func (a *Agent) postConfirmation(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	var in wire.ConfirmationAnswer
	if p := readJSON(w, r, &in); p != nil {
		return p
	}
	state := wire.ConfirmRefused
	if in.Allow {
		state = wire.ConfirmAllowed
	}
	p := a.approvals.end(in.ID, state, whoIs(callerOf(r)))
	if p == nil {
		return wire.Errorf(wire.CodeNotFound, "call %s does not wait for a confirmation any more", wire.Quote(in.ID))
	}
	writeJSON(w, http.StatusOK, p.Confirmation)
	return nil
}

// whoIs names a caller in a record: its user, or else its uid.
func whoIs(c *peer.Caller) string {
	if c.User != "" {
		return wire.MaskTokens(wire.Printable(c.User))
	}
	return nameOf(c)
}
