package main

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/policy"
	"github.com/hsagent/hsagentd/wire"
)

// compileRules makes the policy, or tells what is wrong with each rule, and in
// which line it begins.
func (c *config) compileRules() []error {
	p, err := policy.New(c.Rules, policy.Names{
		User:    userID,
		Group:   lookupGroup,
		Segment: hubspot.CanonicalSegment,
	})
	if err == nil {
		c.policy = p
		return nil
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // what New joined
		all = joined.Unwrap()
	}
	var out []error
	for _, err := range all {
		where := "rule"
		var bad *policy.RuleError
		switch {
		case !errors.As(err, &bad) || c.File == "":
		case bad.Index < len(c.ruleLines):
			where = c.File + ":" + strconv.Itoa(c.ruleLines[bad.Index])
		default: // written as one array
			where = fmt.Sprintf("%s: rule %d", c.File, bad.Index+1)
		}
		for line := range strings.Lines(err.Error()) {
			out = append(out, &problem{"rule", where + ": " + strings.TrimSuffix(line, "\n")})
		}
	}
	return out
}

// ruleLines returns the lines of the headers [[rule]] in a file that is known
// to be TOML.
func ruleLines(b []byte) []int {
	var p unstable.Parser
	p.Reset(b)
	var lines []int
	for p.NextExpression() {
		node := p.Expression()
		if node.Kind != unstable.ArrayTable {
			continue
		}
		key := node.Key()
		if key.Next() && string(key.Node().Data) == "rule" && key.IsLast() {
			lines = append(lines, p.Shape(key.Node().Raw).Start.Line)
		}
	}
	return lines
}

// userID returns the uid of a user given by name or number.
func userID(name string) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("no such user %s: make it, or name another", wire.Quote(name))
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return 0, fmt.Errorf("user %s: %w", wire.Quote(name), err)
	}
	return uid, nil
}
