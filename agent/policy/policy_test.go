package policy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/policy"
	"github.com/hsagent/hsagentd/wire"
)

// names knows users and groups by number, and two names for contacts.
var names = policy.Names{
	User: func(name string) (int, error) {
		uid, ok := map[string]int{"ann": 1001, "ben": 1002}[name]
		if !ok {
			return 0, errors.New("no such user")
		}
		return uid, nil
	},
	Group: func(name string) (int, error) {
		gid, ok := map[string]int{"agency": 50, "interns": 51}[name]
		if !ok {
			return 0, errors.New("no such group")
		}
		return gid, nil
	},
	Exe: func(pattern string) string {
		if pattern == "/bin/**" {
			return "/usr/bin/**"
		}
		return pattern
	},
	Aliases: map[string]string{"0-1": "contacts", "contact": "contacts", "contacts": "contacts"},
}

func compile(t testing.TB, rules ...wire.PolicyRule) *policy.Policy {
	t.Helper()
	p, err := policy.New(rules, names)
	require.NoError(t, err)
	return p
}

var sum = strings.Repeat("ab", 32)

// call is a request of ann's, from a program and unit that are known.
func call(change func(q *policy.Request)) *policy.Request {
	q := &policy.Request{
		Caller: policy.Caller{UID: 1001, Groups: []int{1001, 50}, Exe: "/usr/bin/report", SHA256: sum, Unit: "report.service", Traced: true},
		Slug:   "acme-corp", Method: "GET", Path: "/crm/v3/objects/contacts/7", Read: true,
	}
	if change != nil {
		change(q)
	}
	return q
}

func TestEachKeyMustMatch(t *testing.T) {
	full := wire.PolicyRule{
		Name: "full", Effect: "allow", Users: []string{"ben", "ann"}, Groups: []string{"agency"},
		Exes: []wire.PolicyExe{{Path: "/opt/**"}, {Path: "/usr/bin/report", SHA256: strings.ToUpper(sum)}}, Units: []string{"report*.service"},
		Portals: []string{"beta-inc", "acme-*"}, Methods: []string{"read"}, Paths: []string{"/crm/v3/objects/**"},
	}
	tests := []struct {
		name   string
		change func(q *policy.Request)
		key    string // that does not match; "": all do
	}{
		{"all", nil, ""},
		{"another user", func(q *policy.Request) { q.UID = 1003 }, "users"},
		{"not in the group", func(q *policy.Request) { q.Groups = []int{1001} }, "groups"},
		{"another program", func(q *policy.Request) { q.Exe = "/usr/bin/other" }, "exes"},
		{"the same path, another program", func(q *policy.Request) { q.SHA256 = strings.Repeat("cd", 32) }, "exes"},
		{"the program is not known", func(q *policy.Request) { q.Exe = "" }, "exes"},
		{"its digest is not known", func(q *policy.Request) { q.SHA256 = "" }, "exes"},
		{"no digest is asked for here", func(q *policy.Request) { q.Exe, q.SHA256 = "/opt/a/b", "" }, ""},
		{"another unit", func(q *policy.Request) { q.Unit = "other.service" }, "units"},
		{"no unit", func(q *policy.Request) { q.Unit = "" }, "units"},
		{"the unit is not known", func(q *policy.Request) { q.Unit, q.Traced = "", false }, "units"},
		{"another portal", func(q *policy.Request) { q.Slug = "acme" }, "portals"},
		{"a write", func(q *policy.Request) { q.Method, q.Read = "PATCH", false }, "methods"},
		{"a search by POST", func(q *policy.Request) { q.Method, q.Path = "POST", "/crm/v3/objects/contacts/search" }, ""},
		{"another path", func(q *policy.Request) { q.Path = "/crm/v3/owners" }, "paths"},
		{"another case is another path", func(q *policy.Request) { q.Path = "/CRM/v3/objects/contacts" }, "paths"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := compile(t, full)
			q := call(tt.change)
			require.Equal(t, []wire.PolicyRuleTest{{Name: "full", Effect: "allow", Matches: tt.key == "", Mismatch: tt.key}}, p.Explain(q))
			want := policy.Verdict{Effect: policy.Allow, Rule: "full"}
			if tt.key != "" {
				want = policy.Verdict{Effect: policy.Deny, Rule: policy.Default}
			}
			require.Equal(t, want, p.Decide(q))
		})
	}
}

// A restriction is never silently not applied: what is in doubt counts against
// the caller, for each key that could be in doubt.
func TestThreat34DoubtCountsAgainstTheCaller(t *testing.T) {
	all := wire.PolicyRule{Name: "all", Effect: "allow", Portals: []string{"*"}}
	tests := []struct {
		name   string
		rule   wire.PolicyRule
		change func(q *policy.Request)
	}{
		{"the program is not known", wire.PolicyRule{Exes: []wire.PolicyExe{{Path: "/usr/bin/curl"}}}, func(q *policy.Request) { q.Exe = "" }},
		{"its digest is not known", wire.PolicyRule{Exes: []wire.PolicyExe{{Path: "/**", SHA256: strings.Repeat("cd", 32)}}}, func(q *policy.Request) { q.SHA256 = "" }},
		{"the unit is not known", wire.PolicyRule{Units: []string{"bad.service"}}, func(q *policy.Request) { q.Unit, q.Traced = "", false }},
		{"the path in another case", wire.PolicyRule{Paths: []string{"/crm/v3/objects/Contacts/**"}}, func(q *policy.Request) { q.Path = "/CRM/V3/objects/contacts/7" }},
		{"another name of contacts", wire.PolicyRule{Paths: []string{"/crm/v3/objects/0-1/**"}}, nil},
		{"a pattern of another name of contacts", wire.PolicyRule{Paths: []string{"/crm/v3/objects/0-*/**"}}, nil},
		{"a pattern of another name, in another case", wire.PolicyRule{Paths: []string{"/crm/v3/objects/*ACT/**"}}, nil},
		{"a link to the program", wire.PolicyRule{Exes: []wire.PolicyExe{{Path: "/bin/**"}}}, nil},
		{"a slash at the end", wire.PolicyRule{Paths: []string{"/crm/v3/objects/contacts/7"}}, func(q *policy.Request) { q.Path += "/" }},
	}
	for _, tt := range tests {
		for _, effect := range []policy.Effect{policy.Deny, policy.Confirm} {
			t.Run(tt.name+", "+string(effect), func(t *testing.T) {
				tt.rule.Name, tt.rule.Effect = "strict", string(effect)
				want := policy.Verdict{Effect: effect, Rule: "strict"}
				require.Equal(t, want, compile(t, all, tt.rule).Decide(call(tt.change)))
				require.Equal(t, want, compile(t, tt.rule, all).Decide(call(tt.change)))
			})
		}
	}
	// A unit that is known to be none, or another, is not in doubt.
	p := compile(t, all, wire.PolicyRule{Name: "strict", Effect: "deny", Units: []string{"bad.service"}})
	require.Equal(t, policy.Allow, p.Decide(call(func(q *policy.Request) { q.Unit = "" })).Effect)
	require.Equal(t, policy.Allow, p.Decide(call(nil)).Effect)
}

func TestDenyConfirmAllow(t *testing.T) {
	rule := func(effect string) wire.PolicyRule {
		return wire.PolicyRule{Name: effect, Effect: effect, Portals: []string{"*"}}
	}
	second := rule("allow")
	second.Name = "second"
	tests := []struct {
		rules []wire.PolicyRule
		want  policy.Verdict
	}{
		{[]wire.PolicyRule{rule("allow"), second}, policy.Verdict{Effect: policy.Allow, Rule: "allow"}},
		{[]wire.PolicyRule{rule("allow"), rule("confirm")}, policy.Verdict{Effect: policy.Confirm, Rule: "confirm"}},
		{[]wire.PolicyRule{rule("confirm"), rule("allow")}, policy.Verdict{Effect: policy.Confirm, Rule: "confirm"}},
		{[]wire.PolicyRule{rule("allow"), rule("confirm"), rule("deny")}, policy.Verdict{Effect: policy.Deny, Rule: "deny"}},
		{[]wire.PolicyRule{rule("deny"), rule("confirm"), rule("allow")}, policy.Verdict{Effect: policy.Deny, Rule: "deny"}},
		{nil, policy.Verdict{Effect: policy.Deny, Rule: policy.Default}},
	}
	for i, tt := range tests {
		require.Equal(t, tt.want, compile(t, tt.rules...).Decide(call(nil)), "%d", i)
	}
}

func TestWhatACallerMayKnowOf(t *testing.T) {
	p := compile(t,
		wire.PolicyRule{Name: "ann", Effect: "allow", Users: []string{"ann"}, Portals: []string{"acme-*"}, Methods: []string{"read"}},
		wire.PolicyRule{Name: "ben", Effect: "allow", Users: []string{"ben"}},
		wire.PolicyRule{Name: "secret", Effect: "deny", Users: []string{"ann"}, Portals: []string{"acme-secret"}},
		wire.PolicyRule{Name: "in so many words", Effect: "deny", Users: []string{"ann"}, Portals: []string{"acme-far"}, Methods: []string{"write", "read"}, Paths: []string{"/crm/**", "/**"}},
		wire.PolicyRule{Name: "careful", Effect: "deny", Portals: []string{"acme-corp"}, Methods: []string{"DELETE"}},
		wire.PolicyRule{Name: "program", Effect: "confirm", Groups: []string{"interns"}, Exes: []wire.PolicyExe{{Path: "/usr/bin/report"}}},
	)
	ann, ben := policy.Caller{UID: 1001, Groups: []int{1001}}, policy.Caller{UID: 1002, Groups: []int{1002}}
	for slug, want := range map[string]bool{"acme-corp": true, "acme-x": true, "acme-secret": false, "acme-far": false, "beta-inc": false} {
		require.Equal(t, want, p.Sees(&ann, slug), slug)
		require.True(t, p.Sees(&ben, slug), slug)
	}
	require.True(t, p.Limits(&ann))
	require.False(t, p.Limits(&ben))
	stranger := policy.Caller{UID: 1003, Groups: []int{1003, 51}, Traced: true, Exe: "/usr/bin/vi"}
	require.True(t, p.Limits(&stranger))
	require.False(t, p.Sees(&stranger, "acme-corp"))
	require.True(t, p.Knows(1001, nil))
	require.True(t, p.Knows(1003, []int{51}), "from some program")
	require.False(t, p.Knows(1003, []int{52}))
}

func TestNeedsDigests(t *testing.T) {
	require.False(t, compile(t, wire.PolicyRule{Name: "a", Effect: "allow", Exes: []wire.PolicyExe{{Path: "/a"}}}).NeedsDigests())
	require.True(t, compile(t, wire.PolicyRule{Name: "a", Effect: "allow", Exes: []wire.PolicyExe{{Path: "/a"}, {Path: "/b", SHA256: sum}}}).NeedsDigests())
}

func TestThreat34BadRulesAreRefused(t *testing.T) {
	ok := func(change func(r *wire.PolicyRule)) wire.PolicyRule {
		r := wire.PolicyRule{Name: "r", Effect: "allow", Portals: []string{"*"}}
		change(&r)
		return r
	}
	tests := []struct {
		want string
		rule wire.PolicyRule
	}{
		{"no name", ok(func(r *wire.PolicyRule) { r.Name = "" })},
		{"a name has up to 64", ok(func(r *wire.PolicyRule) { r.Name = "(default)" })},
		{"a name has up to 64", ok(func(r *wire.PolicyRule) { r.Name = "a\nb" })},
		{"a token stands", ok(func(r *wire.PolicyRule) { r.Name = "pat-na1-00000000-0000-4000-8000-00000000000a" })},
		{"want allow, deny or confirm", ok(func(r *wire.PolicyRule) { r.Effect = "Allow" })},
		{"want allow, deny or confirm", ok(func(r *wire.PolicyRule) { r.Effect = "" })},
		{"neither who nor what", wire.PolicyRule{Name: "r", Effect: "allow"}},
		{"the list is empty", ok(func(r *wire.PolicyRule) { r.Users = []string{} })},
		{"the list is empty", ok(func(r *wire.PolicyRule) { r.Paths = []string{} })},
		{"no such user", ok(func(r *wire.PolicyRule) { r.Users = []string{"zoe"} })},
		{"no such group", ok(func(r *wire.PolicyRule) { r.Groups = []string{"zoe"} })},
		{"want an absolute path", ok(func(r *wire.PolicyRule) { r.Exes = []wire.PolicyExe{{Path: "curl"}} })},
		{"want an absolute path", ok(func(r *wire.PolicyRule) { r.Exes = []wire.PolicyExe{{SHA256: sum}} })},
		{"64 hexadecimal digits", ok(func(r *wire.PolicyRule) { r.Exes = []wire.PolicyExe{{Path: "/a", SHA256: "abc"}} })},
		{"want a unit", ok(func(r *wire.PolicyRule) { r.Units = []string{"report"} })},
		{"want a unit", ok(func(r *wire.PolicyRule) { r.Units = []string{"a/b.service"} })},
		{"matches no slug", ok(func(r *wire.PolicyRule) { r.Portals = []string{"Acme"} })},
		{"matches no slug", ok(func(r *wire.PolicyRule) { r.Portals = []string{"acme-*", ""} })},
		{"matches no slug", ok(func(r *wire.PolicyRule) { r.Portals = []string{"**"} })},
		{"want read, write", ok(func(r *wire.PolicyRule) { r.Methods = []string{"get"} })},
		{"want read, write", ok(func(r *wire.PolicyRule) { r.Methods = []string{"*"} })},
		{"want a path", ok(func(r *wire.PolicyRule) { r.Paths = []string{"crm/**"} })},
		{"want a path", ok(func(r *wire.PolicyRule) { r.Paths = []string{"/"} })},
		{"without escapes", ok(func(r *wire.PolicyRule) { r.Paths = []string{"/crm/%63"} })},
		{"are refused in a call", ok(func(r *wire.PolicyRule) { r.Paths = []string{"/crm/./v3/**"} })},
		{"empty segment", ok(func(r *wire.PolicyRule) { r.Paths = []string{"/crm//v3"} })},
		{"only * and **", ok(func(r *wire.PolicyRule) { r.Paths = []string{"/crm/{a,b}"} })},
		{"whole segments", ok(func(r *wire.PolicyRule) { r.Paths = []string{"/crm/v3**"} })},
	}
	good := wire.PolicyRule{Name: "good", Effect: "allow", Portals: []string{"*"}}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			p, err := policy.New([]wire.PolicyRule{good, tt.rule}, names)
			require.ErrorContains(t, err, tt.want)
			require.Nil(t, p, "a policy with a bad rule is none")
			var bad *policy.RuleError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, 1, bad.Index)
		})
	}
	_, err := policy.New([]wire.PolicyRule{good, good}, names)
	require.ErrorContains(t, err, "another rule has this name")
	_, err = policy.New(make([]wire.PolicyRule, policy.MaxRules+1), names)
	require.Error(t, err)
	many := make([]wire.PolicyRule, policy.MaxRules+1)
	for i := range many {
		many[i] = wire.PolicyRule{Name: fmt.Sprint(i), Effect: "allow", Portals: []string{"*"}}
	}
	_, err = policy.New(many, names)
	require.ErrorContains(t, err, "at most 1000 rules")
}

func BenchmarkDecide(b *testing.B) {
	var rules []wire.PolicyRule
	for i := range 50 {
		rules = append(rules, wire.PolicyRule{
			Name: fmt.Sprint(i), Effect: "allow", Users: []string{"ann"}, Portals: []string{fmt.Sprintf("client-%d", i)}, Methods: []string{"read"}, Paths: []string{"/crm/**/contacts/**"},
		})
	}
	p, q := compile(b, rules...), call(nil)
	for b.Loop() {
		p.Decide(q)
	}
}
