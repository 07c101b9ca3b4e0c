package main

import (
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
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
		Exe:     followLinks,
		Aliases: hubspot.Aliases(),
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

// followLinks follows the links in the part of a pattern that has no star: the
// kernel names a caller's program by where it is, and /bin is often a link.
// What is not there, or not ours to look at, stays as it is written.
func followLinks(pattern string) string {
	plain, rest := pattern, ""
	if i := strings.Index(pattern, "*"); i >= 0 {
		i = strings.LastIndex(pattern[:i], "/")
		plain, rest = pattern[:i+1], pattern[i+1:]
	}
	for ; plain != "/"; plain, rest = filepath.Dir(plain), filepath.Join(filepath.Base(plain), rest) {
		if real, err := filepath.EvalSymlinks(plain); err == nil {
			return filepath.Join(real, rest)
		}
	}
	return pattern
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

// culprit returns line and key of the first value of a file that does not fit its
// key. The decoder's errors do not say so of what has a unit: of a text they
// lack the key, of a bare number the line too. Line 0 is that of a file that
// is no TOML.
func culprit(b []byte) (line int, key string) {
	type entry struct {
		line, end int
		key       string
	}
	var (
		p     unstable.Parser
		all   []entry
		table string
	)
	p.Reset(b)
	for p.NextExpression() {
		node := p.Expression()
		name, first := "", 0
		for k := node.Key(); k.Next(); {
			if first == 0 {
				first = p.Shape(k.Node().Raw).Start.Line
			}
			name += "." + string(k.Node().Data)
		}
		if node.Kind != unstable.KeyValue {
			table = name
			continue
		}
		if raw := node.Value().Raw; raw.Length > 0 {
			all = append(all, entry{first, int(raw.Offset + raw.Length), strings.TrimPrefix(table+name, ".")})
		}
	}
	i := sort.Search(len(all), func(i int) bool { return toml.Unmarshal(b[:all[i].end], new(config)) != nil })
	if i == len(all) {
		return 0, ""
	}
	return all[i].line, all[i].key
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
