package credstore

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// maxShown is how many bytes of a malformed slug are shown.
const maxShown = 80

// A fleet is all that stands in a portals map, with who claims which token and
// portal ID: one that two slugs claim serves neither, for nobody can tell here
// whose it is. A rejected entry's claims count too.
type fleet struct {
	bySlug  map[string]*standing
	tokens  map[wire.Token]claims
	before  map[wire.Token]claims // previous tokens
	portals map[int64]claims

	contested bool // something may be claimed twice
}

// claims are the standings that claim the same, each once. Nearly always there
// is one.
type claims struct {
	first *standing // nil: none
	more  []*standing
}

// readFleet reads a portals map, and returns all that stands in it sorted by
// slug as well. What stands in known with the same bytes is not read again.
func readFleet(portals object, known map[string]*standing) (*fleet, []*standing) {
	f := &fleet{
		bySlug:  make(map[string]*standing, len(portals)),
		tokens:  make(map[wire.Token]claims, len(portals)),
		before:  make(map[wire.Token]claims),
		portals: make(map[int64]claims, len(portals)),
	}
	for _, m := range portals {
		st := known[m.key]
		if sum := sumOf(m.raw); st == nil || st.sum != sum {
			st = parseEntry(m.key, m.raw)
			st.sum = sum
		}
		if first := f.bySlug[m.key]; first != nil {
			st = &standing{
				slug: m.key, reason: "the slug stands twice in the store: keep one",
				tokens: slices.Concat(first.tokens, st.tokens), portals: slices.Concat(first.portals, st.portals),
			}
		}
		f.bySlug[m.key] = st
	}
	all := make([]*standing, 0, len(f.bySlug))
	for _, m := range portals {
		if st := f.bySlug[m.key]; len(all) == 0 || all[len(all)-1] != st {
			all = append(all, st)
		}
	}
	slices.SortFunc(all, func(a, b *standing) int { return strings.Compare(a.slug, b.slug) })
	all = slices.Compact(all)
	// In the order of slugs, so that a reason names the same slug each time.
	for _, st := range all {
		f.claim(st)
	}
	return f, all
}

func (f *fleet) claim(st *standing) {
	for _, t := range st.tokens {
		f.tokens[t] = f.with(f.tokens[t], st)
	}
	for _, id := range st.portals {
		f.portals[id] = f.with(f.portals[id], st)
	}
	if p := st.entry.Previous; p != nil {
		f.before[p.Token] = f.with(f.before[p.Token], st)
		f.contested = true // by a token that serves, perhaps
	}
}

// drop takes what stands under slug out of the fleet.
func (f *fleet) drop(slug string) {
	st := f.bySlug[slug]
	if st == nil {
		return
	}
	delete(f.bySlug, slug)
	for _, t := range st.tokens {
		f.tokens[t] = f.tokens[t].without(st)
	}
	for _, id := range st.portals {
		f.portals[id] = f.portals[id].without(st)
	}
	if p := st.entry.Previous; p != nil {
		f.before[p.Token] = f.before[p.Token].without(st)
	}
}

// replace puts st where its slug stood, or adds it.
func (f *fleet) replace(st *standing) {
	f.drop(st.slug)
	f.bySlug[st.slug] = st
	f.claim(st)
}

// judge returns the entry of st as it serves, or the reason why it does not.
func (f *fleet) judge(st *standing) (Entry, string) {
	switch {
	case st.reason != "":
		return Entry{}, st.reason
	case !f.contested:
		return st.entry, ""
	}
	if reason := f.conflict(st); reason != "" {
		return Entry{}, reason
	}
	e := st.entry
	if p := e.Previous; p != nil {
		// It could only do harm, and the entry serves without it.
		if f.tokens[p.Token].other(st) != nil || f.before[p.Token].other(st) != nil {
			e.Previous = nil
			e.Warnings = append(slices.Clone(e.Warnings), "previous is passed over: its token stands under another slug too")
		}
	}
	return e, ""
}

// conflict tells what of st stands under another slug too; "" for nothing.
func (f *fleet) conflict(st *standing) string {
	for _, t := range st.tokens {
		if o := f.tokens[t].other(st); o != nil {
			return fmt.Sprintf("its token stands under %s too", f.shown(o))
		}
	}
	for _, id := range st.portals {
		if o := f.portals[id].other(st); o != nil {
			return fmt.Sprintf("its portalId %d stands under %s too", id, f.shown(o))
		}
	}
	return ""
}

// fill sorts the fleet, all of it, into the entries that serve and those that
// do not.
func (f *fleet) fill(s *Store, all []*standing) {
	s.Entries = make([]Entry, 0, len(all))
	for _, st := range all {
		e, reason := f.judge(st)
		if reason == "" {
			s.Entries = append(s.Entries, e)
			continue
		}
		r := Rejected{Slug: f.shown(st), Reason: reason}
		if len(st.portals) > 0 {
			r.PortalID = st.portals[0]
		}
		s.Rejected = append(s.Rejected, r)
	}
	slices.SortFunc(s.Rejected, func(a, b Rejected) int { return strings.Compare(a.Slug, b.Slug) })
}

// shown returns the slug of st fit for showing. A token may have been pasted
// where the slug belongs: one of a known form is masked, one of the store's too.
func (f *fleet) shown(st *standing) string {
	if f.tokens[wire.NewToken(st.slug)].first != nil {
		return "[token]"
	}
	if _, err := wire.ParseSlug(st.slug); err == nil {
		return st.slug
	}
	if st.slug == "" {
		return `""`
	}
	for _, t := range st.tokens {
		if t.In(st.slug) {
			return "[token]"
		}
	}
	s := wire.Printable(wire.MaskTokens(st.slug))
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return s
}

// with adds st to c, unless it is there.
func (f *fleet) with(c claims, st *standing) claims {
	switch {
	case c.first == nil:
		c.first = st
	case c.first != st && !slices.Contains(c.more, st):
		c.more = append(c.more, st)
		f.contested = true
	}
	return c
}

// without takes st out of c.
func (c claims) without(st *standing) claims {
	c.more = slices.DeleteFunc(c.more, func(o *standing) bool { return o == st })
	if c.first == st {
		c.first = nil
		if len(c.more) > 0 {
			c.first, c.more = c.more[0], c.more[1:]
		}
	}
	return c
}

// other returns a standing of another slug; nil if there is none.
func (c claims) other(st *standing) *standing {
	if c.first != nil && c.first.slug != st.slug {
		return c.first
	}
	for _, o := range c.more {
		if o.slug != st.slug {
			return o
		}
	}
	return nil
}
