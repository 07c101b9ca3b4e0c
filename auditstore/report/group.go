package report

import (
	"cmp"
	"maps"
	"slices"

	"github.com/hsagent/hsagentd/wire"
)

// A group is the figures of one breakdown by their key.
type group[K comparable] struct {
	lines map[K]*wire.ReportCounts
	most  int // keys
	rest  K   // stands for all others
}

func newGroup[K comparable](most int, rest K) group[K] {
	return group[K]{lines: map[K]*wire.ReportCounts{}, most: most, rest: rest}
}

// at returns the figures of a key.
func (g *group[K]) at(key K) *wire.ReportCounts {
	key = g.name(key)
	n := g.lines[key]
	if n == nil {
		n = new(wire.ReportCounts)
		g.lines[key] = n
	}
	return n
}

// name is the key that stands for key.
func (g *group[K]) name(key K) K {
	if _, ok := g.lines[key]; ok || len(g.lines) < g.most {
		return key
	}
	return g.rest
}

// lines makes a list of a group, sorted by key.
func lines[T any](g group[string], of func(key string, n wire.ReportCounts) T) []T {
	out := make([]T, 0, len(g.lines))
	for _, key := range sortedKeys(g.lines) {
		out = append(out, of(key, *g.lines[key]))
	}
	return out
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
