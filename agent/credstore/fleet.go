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
	tokens  map[wire.Token][]*standing
	before  map[wire.Token][]*standing // previous tokens
	portals map[int64][]*standing
}

func readFleet(portals object) *fleet {
	f := &fleet{
		bySlug:  make(map[string]*standing, len(portals)),
		tokens:  make(map[wire.Token][]*standing, len(portals)),
		before:  make(map[wire.Token][]*standing),
		portals: make(map[int64][]*standing, len(portals)),
	}
	for _, m := range portals {
		st := parseEntry(m.key, m.raw)
		if first := f.bySlug[m.key]; first != nil {
			st.tokens = append(first.tokens, st.tokens...)
			st.portals = append(first.portals, st.portals...)
			st.reason = "the slug stands twice in the store: keep one"
		}
		f.bySlug[m.key] = st
	}
	// In the order of slugs, so that a reason names the same slug each time.
	for _, slug := range f.slugs() {
		f.claim(f.bySlug[slug])
	}
	return f
}

// slugs returns all slugs, as spelled, sorted.
func (f *fleet) slugs() []string {
	all := make([]string, 0, len(f.bySlug))
	for slug := range f.bySlug {
		all = append(all, slug)
	}
	slices.Sort(all)
	return all
}

func (f *fleet) claim(st *standing) {
	for _, t := range st.tokens {
		f.tokens[t] = with(f.tokens[t], st)
	}
	for _, id := range st.portals {
		f.portals[id] = with(f.portals[id], st)
	}
	if p := st.entry.Previous; p != nil {
		f.before[p.Token] = append(f.before[p.Token], st)
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
		f.tokens[t] = without(f.tokens[t], st)
	}
	for _, id := range st.portals {
		f.portals[id] = without(f.portals[id], st)
	}
	if p := st.entry.Previous; p != nil {
		f.before[p.Token] = without(f.before[p.Token], st)
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
	if st.reason != "" {
		return Entry{}, st.reason
	}
	if reason := f.conflict(st); reason != "" {
		return Entry{}, reason
	}
	e := st.entry
	if p := e.Previous; p != nil {
		// It could only do harm, and the entry serves without it.
		if f.other(f.tokens[p.Token], st) != "" || f.other(f.before[p.Token], st) != "" {
			e.Previous = nil
			e.Warnings = append(slices.Clone(e.Warnings), "previous is passed over: its token stands under another slug too")
		}
	}
	return e, ""
}

// conflict tells what of st stands under another slug too; "" for nothing.
func (f *fleet) conflict(st *standing) string {
	for _, t := range st.tokens {
		if o := f.other(f.tokens[t], st); o != "" {
			return fmt.Sprintf("its token stands under %s too", o)
		}
	}
	for _, id := range st.portals {
		if o := f.other(f.portals[id], st); o != "" {
			return fmt.Sprintf("its portalId %d stands under %s too", id, o)
		}
	}
	return ""
}

// other returns, fit for showing, a slug of list that is not st's; "" if there
// is none.
func (f *fleet) other(list []*standing, st *standing) string {
	for _, o := range list {
		if o.slug != st.slug {
			return f.shown(o)
		}
	}
	return ""
}

// fill sorts the fleet into the entries that serve and those that do not.
func (f *fleet) fill(s *Store) {
	s.Entries = make([]Entry, 0, len(f.bySlug))
	for _, slug := range f.slugs() {
		st := f.bySlug[slug]
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
	if len(f.tokens[wire.NewToken(st.slug)]) > 0 {
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

// with adds st to list unless it was the last to be added.
func with(list []*standing, st *standing) []*standing {
	if n := len(list); n > 0 && list[n-1] == st {
		return list
	}
	return append(list, st)
}

func without(list []*standing, st *standing) []*standing {
	return slices.DeleteFunc(list, func(o *standing) bool { return o == st })
}
