package agent

import (
	"context"
	"errors"
	"net/http"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/peer"
	"github.com/hsagent/hsagentd/agent/policy"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// What stands in place of a rule's name where none decided.
const (
	ruleNone     = "(no rules)"         // of a policy without rules: who may use the socket may call
	ruleSocket   = "(socket)"           // the caller may not use the socket
	ruleReadOnly = "(read-only socket)" // the call came there and is no read
	ruleUnknown  = "(unknown portal)"   // allowed, but there is no such slug, and the caller may not learn that
)

// A loadedPolicy is a policy and when it began to decide.
type loadedPolicy struct {
	*policy.Policy
	at time.Time
}

// rules returns the policy, or nil if it has no rules.
func (a *Agent) rules() *policy.Policy {
	if p := a.policy.Load(); p != nil && p.Len() > 0 {
		return p.Policy
	}
	return nil
}

// SetPolicy makes p decide from now on: for each call that is admitted later,
// also on connections that were made before.
func (a *Agent) SetPolicy(ctx context.Context, p *policy.Policy) {
	before := a.policy.Swap(&loadedPolicy{p, time.Now()})
	a.badPolicy.Store(nil)
	if before == nil && p.Len() == 0 {
		return // no rules at the start: nothing was loaded
	}
	a.log.InfoContext(ctx, "policy loaded", "rules", p.Len())
	rec := a.event(chain.PolicyLoaded)
	rec.Reason = strconv.Itoa(p.Len()) + " rules"
	if p.Len() == 0 {
		rec.Reason = "no rules: the agent's user, root and socket_group may call"
	}
	a.record(ctx, rec)
}

// RefusePolicy notes why a newer policy was not taken. The one before decides
// on.
func (a *Agent) RefusePolicy(ctx context.Context, err error) {
	a.badPolicy.Store(&refusal{err: err, at: time.Now()})
	a.log.ErrorContext(ctx, "policy refused: the one before decides on", "error", err)
}

// mayCall reports whether a caller may use the socket at all. Without rules:
// the agent's own user, root, and members of the socket's group. Rules may let
// in others, and what each may call is theirs to say.
func (a *Agent) mayCall(c *peer.Caller) bool {
	if a.mayManage(c) || a.cfg.SocketGroup >= 0 && c.InGroup(a.cfg.SocketGroup) {
		return true
	}
	p := a.rules()
	return p != nil && p.Knows(c.UID, groupsOf(c))
}

// mayUse is mayCall for one of the sockets: the read-only one has a group of its
// own, beside those who may use the other.
func (a *Agent) mayUse(c *peer.Caller, readOnly bool) bool {
	return a.mayCall(c) || readOnly && a.cfg.ReadOnlyGroup >= 0 && c.InGroup(a.cfg.ReadOnlyGroup)
}

// mayManage reports whether a caller may change the fleet and the agent: its
// own user, root, and members of the admin group, whatever the rules say.
func (a *Agent) mayManage(c *peer.Caller) bool {
	return c.UID == 0 || c.UID == a.uid || a.cfg.AdminGroup >= 0 && c.InGroup(a.cfg.AdminGroup)
}

func groupsOf(c *peer.Caller) []int { return append([]int{c.GID}, c.Groups...) }

// policyCaller is the caller as the policy knows it.
func policyCaller(p *policy.Policy, c *peer.Caller) policy.Caller {
	out := policy.Caller{UID: c.UID, Groups: groupsOf(c), Unit: c.Unit, Traced: c.Traced}
	if !strings.HasSuffix(c.Exe, " (deleted)") { // else the name is another file's by now, or nobody's
		out.Exe = c.Exe
	}
	if p.NeedsDigests() {
		out.SHA256 = c.SHA256()
	}
	return out
}

// permit asks the policy about the call, and somebody at a terminal if the
// policy says so. It notes the rule that decided.
func (a *Agent) permit(c *call, r *http.Request) *wire.Problem {
	if p := c.entitled(); p != nil {
		return p
	}
	effect := c.ruled()
	if effect == policy.Confirm {
		if a.keys.Load() == nil {
			return a.noKeys() // nobody is asked for nothing
		}
		if p := a.approve(r.Context(), c); p != nil {
			return p
		}
		effect = c.ruled() // the rules may have changed meanwhile
	}
	if effect == policy.Deny {
		return c.forbidden(c.conn.caller)
	}
	return nil
}

// permitted asks again about a call that was permitted, if the rules are
// others by now.
func (c *call) permitted() *wire.Problem {
	if c.agent.policy.Load() == c.policy {
		return nil
	}
	if p := c.entitled(); p != nil {
		return p
	}
	switch c.ruled() {
	case policy.Deny:
		return c.forbidden(c.conn.caller)
	case policy.Confirm:
		if c.confirmedBy == "" {
			return wire.Errorf(wire.CodeConfirmationRequired, "the rules changed while the call waited, and now it needs a confirmation: make it again")
		}
	}
	return nil
}

// entitled says why the caller may make no such call on its socket, whatever
// the rules say of slugs and paths.
func (c *call) entitled() *wire.Problem {
	caller, readOnly := c.conn.caller, c.conn.readOnly
	switch {
	case !c.agent.mayUse(caller, readOnly): // a policy that was loaded since the connection was made
		c.rule = ruleSocket
		return wire.Errorf(wire.CodeDenied, "user %s may not make calls: ask for membership of the agent's socket_group", nameOf(caller))
	case readOnly && !c.op.Read:
		c.rule = ruleReadOnly
		return wire.Errorf(wire.CodeDenied, "this is the read-only socket, and %s of this path may change something: use the agent's other socket", c.method)
	}
	return nil
}

// ruled asks the policy about the call and notes the rule that decided, and of
// which policy.
func (c *call) ruled() policy.Effect {
	c.policy = c.agent.policy.Load()
	p := c.policy
	if p == nil || p.Len() == 0 {
		c.rule = ""
		return policy.Allow
	}
	v := p.Decide(&policy.Request{
		Caller: policyCaller(p.Policy, c.conn.caller), Slug: c.slug.String(), Method: c.method, Path: hubspot.CanonicalPath(c.target.Path), Read: c.op.Read,
	})
	c.rule = v.Rule
	return v.Effect
}

// forbidden is the one answer to all that the policy forbids. It is the same
// for every slug and says nothing of the call, so that nobody can tell slugs
// that there are from those that there are not.
func (c *call) forbidden(caller *peer.Caller) *wire.Problem {
	c.blind = true
	return errForbidden(caller)
}

func errForbidden(caller *peer.Caller) *wire.Problem {
	return wire.Errorf(wire.CodeDenied, "the policy does not let user %s do this: hsctl policy test says why, and whoever manages the agent can change it", nameOf(caller))
}

// limited reports whether there may be slugs that the caller must not know of.
func (a *Agent) limited(c *peer.Caller) bool {
	p := a.rules()
	if p == nil {
		return false
	}
	pc := policyCaller(p, c)
	return p.Limits(&pc)
}

// visible returns which slugs the caller of the request may know of: those that
// it may make any call for. Whoever manages sees all.
func (a *Agent) visible(r *http.Request) func(slug string) bool {
	p, c := a.rules(), callerOf(r)
	if p == nil || a.manages(r) {
		return func(string) bool { return true }
	}
	pc := policyCaller(p, c)
	return func(slug string) bool { return p.Sees(&pc, slug) }
}

// manages reports whether the request may manage: never on the read-only
// socket.
func (a *Agent) manages(r *http.Request) bool {
	return a.mayManage(callerOf(r)) && !connOf(r).readOnly
}

// hidden refuses a question about a slug that the caller may not know of, and
// about one that does not exist, alike.
func (a *Agent) hidden(r *http.Request, slug wire.Slug) *wire.Problem {
	rec := a.event(chain.CallDenied)
	rec.ClientSlug, rec.Method, rec.Caller = slug.String(), r.Method, auditCaller(callerOf(r))
	rec.Error, rec.Rule, rec.Reason = string(wire.CodeDenied), policy.Default, "a question about the portal"
	a.recordDenial(r.Context(), rec)
	return errForbidden(callerOf(r))
}

// policyStatus tells which policy decides.
func (a *Agent) policyStatus() wire.PolicyStatus {
	var st wire.PolicyStatus
	if p := a.policy.Load(); p != nil && p.Len() > 0 {
		st.Rules, st.LoadedAt = p.Len(), timeOrNil(p.at)
	}
	if r := a.badPolicy.Load(); r != nil {
		st.LastError, st.ErrorAt = wire.Fault(wire.MaskTokens(r.err.Error())), timeOrNil(r.at)
	}
	return st
}

// getPolicy shows the rules.
func (a *Agent) getPolicy(w http.ResponseWriter, _ *http.Request, _ apiRequest) *wire.Problem {
	out := wire.Policy{Rules: []wire.PolicyRule{}}
	if p := a.policy.Load(); p != nil && p.Len() > 0 {
		out.Rules, out.LoadedAt = p.Rules(), timeOrNil(p.at)
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

// postPolicyTest tells what the policy would say to a call: for managers about
// anybody, for others about themselves.
func (a *Agent) postPolicyTest(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	var in wire.PolicyTest
	if p := readJSON(w, r, &in); p != nil {
		return p
	}
	slug, err := wire.ParseSlug(in.Slug)
	if err != nil {
		return wire.Errorf(wire.CodeBadRequest, "%v", err)
	}
	target, err := hubspot.ParseTarget(in.Path)
	if err != nil {
		return asProblem(err)
	}
	if !allowedMethod(in.Method) {
		return wire.Errorf(wire.CodeBadRequest, "method %s: want GET, HEAD, POST, PUT, PATCH or DELETE", wire.Quote(in.Method))
	}
	caller, who := *callerOf(r), policy.Caller{}
	p := a.rules()
	if p != nil {
		who = policyCaller(p, &caller)
	}
	if in.User+in.Exe+in.SHA256+in.Unit != "" {
		if !a.manages(r) {
			return wire.Errorf(wire.CodeDenied, "user %s may ask about nobody else: leave out --as, --exe and --unit, or ask whoever manages the agent", nameOf(&caller))
		}
		if in.User != "" {
			if caller, err = someone(in.User); err != nil {
				return wire.Errorf(wire.CodeBadRequest, "%v", err)
			}
		}
		who = policy.Caller{UID: caller.UID, Groups: groupsOf(&caller), Exe: in.Exe, SHA256: strings.ToLower(in.SHA256), Unit: in.Unit, Traced: true}
	}
	out := wire.PolicyVerdict{Effect: string(policy.Allow), Rules: []wire.PolicyRuleTest{}}
	switch {
	case !a.mayCall(&caller):
		out.Effect, out.Rule = string(policy.Deny), ruleSocket
		out.Reason = "user " + nameOf(&caller) + " may not use the socket: it is not the agent's user, root or in socket_group, and no rule lets it call"
	case p == nil:
		out.Rule = ruleNone
		out.Reason = "there are no rules: the agent's user, root and socket_group may make any call"
	default:
		q := &policy.Request{
			Caller: who, Slug: slug.String(), Method: in.Method,
			Path: hubspot.CanonicalPath(target.Path), Read: hubspot.Classify(in.Method, target).Read,
		}
		v := p.Decide(q)
		out.Effect, out.Rule, out.Rules = string(v.Effect), v.Rule, p.Explain(q)
		out.Reason = reasonOf(v)
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

func reasonOf(v policy.Verdict) string {
	switch {
	case v.Rule == policy.Default:
		return "no rule matches, and what no rule allows is denied"
	case v.Effect == policy.Deny:
		return "rule " + v.Rule + " denies it, which goes before any rule that allows"
	case v.Effect == policy.Confirm:
		return "rule " + v.Rule + " asks for a yes at hsctl confirm, which goes before any rule that allows"
	}
	return "rule " + v.Rule + " allows it, and no rule denies it"
}

// someone is the user of that name or uid, with its groups, as a caller.
func someone(name string) (peer.Caller, error) {
	u, err := user.Lookup(name)
	if err != nil {
		uid, nerr := strconv.ParseUint(name, 10, 31)
		if nerr != nil {
			return peer.Caller{}, errors.New("there is no user " + wire.Quote(name) + ": give a name or a uid")
		}
		if u, err = user.LookupId(name); err != nil {
			return peer.Caller{UID: int(uid), GID: -1}, nil //nolint:nilerr // a uid without a name has no groups
		}
	}
	c := peer.Caller{User: u.Username}
	if c.UID, err = strconv.Atoi(u.Uid); err != nil {
		return c, err
	}
	if c.GID, err = strconv.Atoi(u.Gid); err != nil {
		return c, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return c, err
	}
	for _, id := range ids {
		if gid, err := strconv.Atoi(id); err == nil && !slices.Contains(c.Groups, gid) {
			c.Groups = append(c.Groups, gid)
		}
	}
	return c, nil
}
