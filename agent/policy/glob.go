package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// A glob matches a text of segments between slashes: "*" stands for any bytes
// within a segment, "**" for any number of whole segments, none included.
// Nothing else is special.
type glob []segment

// A segment is what stands between two slashes of a glob.
type segment struct {
	pattern string
	also    []string // matched too: see admit
}

// parseGlob splits a pattern. What other globs take for special is refused, so
// that nobody relies on it.
func parseGlob(s string) (glob, error) {
	switch {
	case s == "":
		return nil, errors.New("an empty pattern matches nothing")
	case strings.ContainsAny(s, `?[]{}\`):
		return nil, fmt.Errorf("%s: only * and ** are special in a pattern", wire.Quote(s))
	}
	var g glob
	for _, seg := range segments(s) {
		if seg != "**" && strings.Contains(seg, "**") {
			return nil, fmt.Errorf("%s: ** stands for whole segments: write /**/", wire.Quote(s))
		}
		g = append(g, segment{pattern: seg})
	}
	return g, nil
}

// admit makes the segment match all names of a thing if it matches one of them.
// Of calls only the one form arrives here: "0-*" would miss what "0-1" stands for.
func (s *segment) admit(aliases map[string]string) {
	if name, ok := aliases[strings.ToLower(s.pattern)]; ok {
		s.pattern = name
		return
	}
	for alias, name := range aliases {
		if matchText(s.pattern, alias) && !matchText(s.pattern, name) {
			s.also = append(s.also, name)
		}
	}
}

func (s *segment) match(text string) bool {
	return matchText(s.pattern, text) || slices.Contains(s.also, text)
}

// segments splits at slashes; one at the end is nothing.
func segments(s string) []string {
	return strings.Split(strings.TrimSuffix(s, "/"), "/")
}

// match reports whether the glob matches all of segs. It goes back to the last
// ** only, which is enough: what an earlier one could take over, the last one
// can too. So the time is bounded by the product of the lengths.
func (g glob) match(segs []string) bool {
	i, j := 0, 0
	star, taken := -1, 0
	for j < len(segs) {
		switch {
		case i < len(g) && g[i].pattern == "**":
			star, taken = i, j
			i++
		case i < len(g) && g[i].match(segs[j]):
			i++
			j++
		case star >= 0:
			taken++
			i, j = star+1, taken
		default:
			return false
		}
	}
	for i < len(g) && g[i].pattern == "**" {
		i++
	}
	return i == len(g)
}

// matchText is the same one level below: * for any bytes.
func matchText(pattern, s string) bool {
	i, j := 0, 0
	star, taken := -1, 0
	for j < len(s) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, taken = i, j
			i++
		case i < len(pattern) && pattern[i] == s[j]:
			i++
			j++
		case star >= 0:
			taken++
			i, j = star+1, taken
		default:
			return false
		}
	}
	for i < len(pattern) && pattern[i] == '*' {
		i++
	}
	return i == len(pattern)
}
