package report

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// How much of what callers choose is told apart.
const (
	maxNamed   = 100_000 // object IDs that are counted
	maxObjects = 50_000  // that a breach report lists
	maxPeople  = 50      // callers, tokens and paths of each of them
)

// A subject is what a call is about, and who makes it.
type subject struct {
	kind, id, path, caller, token string
}

func subjectOf(r *chain.Record) subject {
	path, _, _ := strings.Cut(r.Path, "?")
	return subject{objectType(r), r.ObjectID, path, processName(r.Caller), r.TokenFingerprint}
}

// processName names a caller as closely as the log does.
func processName(c *chain.Caller) string {
	name := c.Name()
	if c == nil {
		return name
	}
	for _, more := range []string{c.Unit, c.Exe} {
		if more != "" {
			name += " " + more
		}
	}
	return name
}

// objects counts what was done to the objects of each type.
type objects struct {
	types map[string]*wire.ReportObjects
	named map[[2]string]struct{}
}

func newObjects() objects {
	return objects{types: map[string]*wire.ReportObjects{}, named: map[[2]string]struct{}{}}
}

// effect counts what an attempt did: nothing, if HubSpot refused it.
func (b *Builder) effect(c *call, r *chain.Record, bytes int64) {
	if c.agent || r.StatusCode >= 400 && r.StatusCode < 500 {
		return
	}
	if r.ObjectID != "" {
		c.about.id = r.ObjectID // HubSpot names an object that it has made
	}
	uncertain := r.StatusCode == 0 || r.StatusCode >= 500
	kind := b.types.name(c.about.kind)
	c.effect = b.objects.at(kind, c.about.id, uncertain, c.operation)
	*c.effect++
	if b.o.Breach {
		b.breach.add(c, r, bytes, uncertain)
	}
}

func (o *objects) at(kind, id string, uncertain bool, operation string) *int64 {
	t := o.types[kind]
	if t == nil {
		t = &wire.ReportObjects{ObjectType: kind}
		o.types[kind] = t
	}
	if _, known := o.named[[2]string{kind, id}]; id != "" && !known {
		if len(o.named) < maxNamed {
			o.named[[2]string{kind, id}] = struct{}{}
			t.Named++
		} else {
			t.More = true
		}
	}
	switch {
	case uncertain:
		return &t.Uncertain
	case reads(operation):
		return &t.Reads
	}
	return &t.Changes
}

// breach keeps every object by itself.
type breach struct {
	objects map[[2]string]*wire.BreachObject
	more    int64
}

func newBreach() breach { return breach{objects: map[[2]string]*wire.BreachObject{}} }

// add counts an attempt. Unlike the figures of calls nothing is taken back
// here: an attempt without an answer may have been carried out, and so may the
// one after it.
func (b *breach) add(c *call, r *chain.Record, bytes int64, uncertain bool) {
	key := [2]string{c.about.kind, c.about.id}
	o := b.objects[key]
	if o == nil {
		if len(b.objects) >= maxObjects {
			b.more++
			return
		}
		o = &wire.BreachObject{ObjectType: key[0], ObjectID: key[1], First: wire.At(c.at), Callers: []string{}, Tokens: []string{}}
		b.objects[key] = o
	}
	switch {
	case uncertain:
		o.Uncertain++
	case reads(c.operation):
		o.Reads++
	default:
		o.Changes++
	}
	o.ResponseBytes += bytes
	if r.TS.After(o.Last.Time) {
		o.Last = r.TS
	}
	o.Callers = with(o.Callers, c.about.caller)
	o.Tokens = with(o.Tokens, c.about.token)
	if key[0] == other {
		o.Paths = with(o.Paths, c.about.path)
	}
}

// with adds s to a short list, in order.
func with(list []string, s string) []string {
	i, ok := slices.BinarySearch(list, s)
	if ok || len(list) >= maxPeople {
		return list
	}
	return slices.Insert(list, i, s)
}

func (b *breach) report() *wire.ReportBreach {
	out := &wire.ReportBreach{Objects: []wire.BreachObject{}, More: b.more}
	for _, o := range b.objects {
		out.Objects = append(out.Objects, *o)
	}
	slices.SortFunc(out.Objects, func(x, y wire.BreachObject) int {
		// Numbers of different length in their own order, and no ID first.
		return cmp.Or(cmp.Compare(x.ObjectType, y.ObjectType), cmp.Compare(len(x.ObjectID), len(y.ObjectID)), cmp.Compare(x.ObjectID, y.ObjectID))
	})
	return out
}
