package main

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/hsagent/hsagentd/wire"
)

// capitalKeys says which keys of a file that is known to be TOML have capitals.
// The decoder takes them for ours: it would read "Effect" over "effect", and
// [[Rule]] in place of all of [[rule]].
func capitalKeys(path string, b []byte) []error {
	var p unstable.Parser
	p.Reset(b)
	var all []error
	var look func(n *unstable.Node)
	look = func(n *unstable.Node) {
		switch n.Kind {
		case unstable.KeyValue, unstable.Table, unstable.ArrayTable:
			for k := n.Key(); k.Next(); {
				if key := string(k.Node().Data); key != strings.ToLower(key) {
					all = append(all, fmt.Errorf("%s:%d: unknown key %s: keys have no capitals", path, p.Shape(k.Node().Raw).Start.Line, wire.Quote(key)))
				}
			}
			if n.Kind == unstable.KeyValue {
				look(n.Value())
			}
		case unstable.Array, unstable.InlineTable:
			for children := n.Children(); children.Next(); {
				look(children.Node())
			}
		default:
		}
	}
	for p.NextExpression() {
		look(p.Expression())
	}
	return all
}
