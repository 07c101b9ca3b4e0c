package policy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// An Effect is what a rule says to the calls that it matches.
type Effect string

// The effects.
const (
	Allow   Effect = "allow"
	Deny    Effect = "deny"
	Confirm Effect = "confirm" // somebody must say yes first
)

// Words that stand for several methods in a rule.
const (
	methodRead  = "read"  // changes nothing at HubSpot: also a search by POST
	methodWrite = "write" // everything else
)

// MaxRules bounds a policy: each call is compared with each rule.
const MaxRules = 1000

// Names are how the rules' names become what a call has.
type Names struct {
	User    func(name string) (uid int, err error)
	Group   func(name string) (gid int, err error)
	Exe     func(pattern string) string // with links followed, as the kernel names programs
	Aliases map[string]string           // of a path's segments, in lower case, and the one form that calls have
}

// A RuleError is what is wrong with one rule.
type RuleError struct {
	Index int // of the rule, from 0
	Err   error
}

func (e *RuleError) Error() string { return e.Err.Error() }
func (e *RuleError) Unwrap() error { return e.Err }

// A rule is a [wire.PolicyRule] that was checked. A nil list matches anything.
type rule struct {
	name    string
	effect  Effect
	users   []int
	groups  []int
	exes    []exe
	units   []glob
	portals []glob
	methods []string
	paths   []glob
}

type exe struct {
	path, real glob   // as it is written, and with links followed
	sha256     string // "" for any
}

var ruleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,63}$`)

// New checks rules and returns the policy that they make. The error lists a
// [*RuleError] for each bad rule.
func New(rules []wire.PolicyRule, names Names) (*Policy, error) {
	p := &Policy{source: slices.Clone(rules)}
	seen := map[string]bool{}
	var errs []error
	for i := range rules {
		r, err := compile(&rules[i], names)
		if err == nil && seen[r.name] {
			err = fmt.Errorf("rule %s: another rule has this name: records could not tell them apart", wire.Quote(r.name))
		}
		if err == nil && i >= MaxRules {
			err = fmt.Errorf("rule %s: a policy has at most %d rules", wire.Quote(r.name), MaxRules)
		}
		if err != nil {
			errs = append(errs, &RuleError{i, err})
			continue
		}
		seen[r.name] = true
		p.rules = append(p.rules, *r)
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

func compile(in *wire.PolicyRule, names Names) (*rule, error) {
	if in.Name == "" {
		return nil, errors.New("a rule has no name: records name the rule that decided")
	}
	if !ruleName.MatchString(in.Name) {
		return nil, fmt.Errorf("rule %s: a name has up to 64 letters, digits, spaces and . _ / -", wire.Quote(in.Name))
	}
	if wire.MaskTokens(in.Name) != in.Name {
		return nil, errors.New("a token stands in a rule's name, where everybody will see it")
	}
	r := &rule{name: in.Name, effect: Effect(in.Effect)}
	var errs []error
	add := func(key string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("rule %s: %s: %w", wire.Quote(in.Name), key, err))
		}
	}
	if !slices.Contains([]Effect{Allow, Deny, Confirm}, r.effect) {
		add("effect", fmt.Errorf("%s: want allow, deny or confirm", wire.Quote(in.Effect)))
	}
	var err error
	r.users, err = list(in.Users, names.User)
	add("users", err)
	r.groups, err = list(in.Groups, names.Group)
	add("groups", err)
	r.exes, err = list(in.Exes, func(e wire.PolicyExe) (exe, error) { return parseExe(e, names.Exe) })
	add("exes", err)
	r.units, err = list(in.Units, parseUnit)
	add("units", err)
	r.portals, err = list(in.Portals, parsePortal)
	add("portals", err)
	r.methods, err = list(in.Methods, parseMethod)
	add("methods", err)
	r.paths, err = list(in.Paths, func(s string) (glob, error) { return parsePath(s, names.Aliases, r.effect != Allow) })
	add("paths", err)
	if errs == nil && r.users == nil && r.groups == nil && r.exes == nil && r.units == nil && r.portals == nil && r.methods == nil && r.paths == nil {
		add("empty", errors.New(`it says neither who nor what: for everything, write portals = ["*"]`))
	}
	// What a key says of all calls is as good as none, and [Policy.Sees] knows it.
	if slices.Contains(r.methods, methodRead) && slices.Contains(r.methods, methodWrite) {
		r.methods = nil
	}
	if slices.ContainsFunc(r.paths, func(g glob) bool { return len(g) == 2 && g[1].pattern == "**" }) {
		r.paths = nil
	}
	return r, errors.Join(errs...)
}

// list parses each value of a key. A key that is there must have a value: an
// empty list could be meant for nobody, and would be taken for anybody.
func list[In, Out any](in []In, parse func(In) (Out, error)) ([]Out, error) {
	if in == nil {
		return nil, nil
	}
	if len(in) == 0 {
		return nil, errors.New("the list is empty: name something, or leave the key out")
	}
	out := make([]Out, len(in))
	for i, v := range in {
		var err error
		if out[i], err = parse(v); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func parseExe(in wire.PolicyExe, follow func(string) string) (exe, error) {
	if !strings.HasPrefix(in.Path, "/") {
		return exe{}, fmt.Errorf("path %s: want an absolute path, or \"/**\" for any", wire.Quote(in.Path))
	}
	g, err := parseGlob(in.Path)
	if err != nil {
		return exe{}, err
	}
	real, err := parseGlob(follow(in.Path))
	if err != nil { // what the link leads to cannot be written as a pattern
		real = g
	}
	sum := strings.ToLower(in.SHA256)
	if b, err := hex.DecodeString(sum); sum != "" && (err != nil || len(b) != 32) {
		return exe{}, fmt.Errorf("sha256 %s: want 64 hexadecimal digits, as sha256sum prints them", wire.Quote(in.SHA256))
	}
	return exe{g, real, sum}, nil
}

func parseUnit(s string) (glob, error) {
	if !strings.HasSuffix(s, ".service") && !strings.HasSuffix(s, ".scope") && !strings.HasSuffix(s, "*") || strings.Contains(s, "/") {
		return nil, fmt.Errorf("%s: want a unit such as \"report.service\" or \"report-*.service\"", wire.Quote(s))
	}
	return parseGlob(s)
}

var slugGlob = regexp.MustCompile(`^[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?$`)

func parsePortal(s string) (glob, error) {
	if !slugGlob.MatchString(s) || strings.Contains(s, "**") {
		return nil, fmt.Errorf("%s matches no slug: write one, or \"acme-*\", or \"*\" for all", wire.Quote(s))
	}
	return parseGlob(s)
}

func parseMethod(s string) (string, error) {
	switch s {
	case methodRead, methodWrite, http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return s, nil
	}
	return "", fmt.Errorf("%s: want read, write, GET, HEAD, POST, PUT, PATCH or DELETE", wire.Quote(s))
}

func parsePath(s string, aliases map[string]string, fold bool) (glob, error) {
	switch {
	case !strings.HasPrefix(s, "/") || s == "/":
		return nil, fmt.Errorf("%s: want a path such as \"/crm/v3/objects/**\"", wire.Quote(s))
	case strings.ContainsAny(s, "%;#"):
		return nil, fmt.Errorf("%s: write the path plainly, without escapes: calls are decoded before they are compared", wire.Quote(s))
	case slices.ContainsFunc(segments(s), func(seg string) bool { return seg == "." || seg == ".." }):
		return nil, fmt.Errorf("%s: \".\" and \"..\" are refused in a call's path", wire.Quote(s))
	case strings.Contains(s, "//"):
		return nil, fmt.Errorf("%s: a call's path never has an empty segment", wire.Quote(s))
	}
	g, err := parseGlob(s)
	for i := range g {
		if fold {
			g[i].pattern = strings.ToLower(g[i].pattern)
		}
		g[i].admit(aliases)
	}
	return g, err
}
