package policy

import (
	"slices"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// Default is the name in records of the rule behind all rules: no.
const Default = "(default)"

// A Policy is a set of rules. It does not change.
type Policy struct {
	source []wire.PolicyRule
	rules  []rule
}

// A Caller is what the kernel tells of who calls.
type Caller struct {
	UID    int
	Groups []int  // the primary one too
	Exe    string // "": not known
	SHA256 string // of the executable, in hexadecimal; "": not known
	Unit   string // "": none, or not known
	Traced bool   // Unit is known
}

// A Request is a call that somebody wants to make.
type Request struct {
	Caller
	Slug   string
	Method string
	Path   string // decoded, each segment in its one form
	Read   bool   // changes nothing at HubSpot
}

// A Verdict is what the policy says to a request.
type Verdict struct {
	Effect Effect
	Rule   string // the first rule with this effect, or [Default]
}

// Rules returns the rules as they were written.
func (p *Policy) Rules() []wire.PolicyRule { return p.source }

// Len is how many rules there are.
func (p *Policy) Len() int { return len(p.rules) }

// NeedsDigests reports whether any rule asks for an executable's SHA-256.
func (p *Policy) NeedsDigests() bool {
	return slices.ContainsFunc(p.rules, func(r rule) bool {
		return slices.ContainsFunc(r.exes, func(e exe) bool { return e.sha256 != "" })
	})
}

// Decide says whether the call may be made: deny goes before confirm, and
// confirm before allow. What no rule matches is denied.
func (p *Policy) Decide(q *Request) Verdict {
	m := newMatcher(q)
	best := Verdict{Deny, Default}
	for i := range p.rules {
		r := &p.rules[i]
		switch {
		case r.effect == best.Effect && best.Rule != Default: // the first one is named
		case r.effect == Allow && best.Rule != Default: // a confirm was found
		case m.mismatch(r) != "":
		case r.effect == Deny:
			return Verdict{Deny, r.name}
		default:
			best = Verdict{r.effect, r.name}
		}
	}
	return best
}

// Explain tells what each rule says to the call.
func (p *Policy) Explain(q *Request) []wire.PolicyRuleTest {
	m := newMatcher(q)
	out := make([]wire.PolicyRuleTest, len(p.rules))
	for i := range p.rules {
		r := &p.rules[i]
		why := m.mismatch(r)
		out[i] = wire.PolicyRuleTest{Name: r.name, Effect: string(r.effect), Matches: why == "", Mismatch: why}
	}
	return out
}

// Knows reports whether any rule could let a user with these groups make a
// call, from some program.
func (p *Policy) Knows(uid int, groups []int) bool {
	m := &matcher{Request: &Request{Caller: Caller{UID: uid, Groups: groups}}}
	return slices.ContainsFunc(p.rules, func(r rule) bool { return r.effect != Deny && m.user(&r) == "" })
}

// Sees reports whether the caller may make any call for the slug, and so may
// know about it.
func (p *Policy) Sees(c *Caller, slug string) bool {
	m := newMatcher(&Request{Caller: *c, Slug: slug})
	sees := false
	for i := range p.rules {
		r := &p.rules[i]
		if m.who(r) != "" || !m.portal(r) {
			continue
		}
		if r.effect == Deny && r.methods == nil && r.paths == nil {
			return false
		}
		sees = sees || r.effect != Deny
	}
	return sees
}

// Limits reports whether there could be slugs that the caller may not know
// about. To such a caller an unknown slug must look like a forbidden one.
func (p *Policy) Limits(c *Caller) bool {
	m := newMatcher(&Request{Caller: *c})
	all := false
	for i := range p.rules {
		r := &p.rules[i]
		every := r.portals == nil || slices.ContainsFunc(r.portals, func(g glob) bool { return len(g) == 1 && g[0].pattern == "*" })
		switch {
		case m.who(r) != "":
		case r.effect == Deny && r.methods == nil && r.paths == nil:
			return true
		case r.effect != Deny && every:
			all = true
		}
	}
	return !all
}

// A matcher compares one request with many rules.
type matcher struct {
	*Request
	path, folded []string // segments of the path
	slug         []string
}

func newMatcher(q *Request) *matcher {
	return &matcher{
		Request: q, slug: []string{q.Slug},
		path: segments(q.Path), folded: segments(strings.ToLower(q.Path)),
	}
}

// mismatch returns the first key of the rule that does not match, or "".
func (m *matcher) mismatch(r *rule) string {
	if key := m.who(r); key != "" {
		return key
	}
	path := m.path
	if r.effect != Allow {
		path = m.folded
	}
	switch {
	case !m.portal(r):
		return "portals"
	case r.methods != nil && !slices.ContainsFunc(r.methods, m.method):
		return "methods"
	case r.paths != nil && !slices.ContainsFunc(r.paths, func(g glob) bool { return g.match(path) }):
		return "paths"
	}
	return ""
}

// user is mismatch for the keys about the caller's user.
func (m *matcher) user(r *rule) string {
	switch {
	case r.users != nil && !slices.Contains(r.users, m.UID):
		return "users"
	case r.groups != nil && !slices.ContainsFunc(r.groups, func(gid int) bool { return slices.Contains(m.Groups, gid) }):
		return "groups"
	}
	return ""
}

// who is mismatch for the keys about the caller.
func (m *matcher) who(r *rule) string {
	if key := m.user(r); key != "" {
		return key
	}
	switch {
	case r.exes != nil && !slices.ContainsFunc(r.exes, func(e exe) bool { return m.exe(&e, r.effect != Allow) }):
		return "exes"
	case r.units != nil && !m.unit(r):
		return "units"
	}
	return ""
}

// exe reports whether the caller's executable is e, or in doubt could be.
func (m *matcher) exe(e *exe, inDoubt bool) bool {
	switch {
	case m.Exe == "":
		return inDoubt
	case !e.path.match(segments(m.Exe)) && !e.real.match(segments(m.Exe)):
		return false
	case e.sha256 != "" && m.SHA256 == "":
		return inDoubt
	}
	return e.sha256 == "" || e.sha256 == m.SHA256
}

func (m *matcher) unit(r *rule) bool {
	if m.Unit == "" {
		return !m.Traced && r.effect != Allow
	}
	unit := []string{m.Unit}
	return slices.ContainsFunc(r.units, func(g glob) bool { return g.match(unit) })
}

func (m *matcher) portal(r *rule) bool {
	return r.portals == nil || slices.ContainsFunc(r.portals, func(g glob) bool { return g.match(m.slug) })
}

func (m *matcher) method(name string) bool {
	switch name {
	case methodRead:
		return m.Read
	case methodWrite:
		return !m.Read
	}
	return name == m.Method
}
