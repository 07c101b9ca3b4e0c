package agent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// A member is a key of a JSON object and the text of its value.
type member struct{ key, value string }

func object(ms []member) string {
	texts := make([]string, len(ms))
	for i, m := range ms {
		texts[i] = fmt.Sprintf("%q: %s", m.key, m.value)
	}
	return "{" + strings.Join(texts, ", ") + "}"
}

// entryMembers are a portal's entry in the store, with every key that there is.
func entryMembers(p sandbox.Portal) []member {
	return []member{
		{"token", fmt.Sprintf("%q", p.Token.Reveal())}, {"portalId", fmt.Sprint(p.ID)}, {"clientSlug", fmt.Sprintf("%q", p.Slug)},
		{"kind", `"service-key"`}, {"baseUrl", `"https://api.hubapi.com"`},
		{"addedAt", `"2026-11-23T10:00:00Z"`}, {"lastRotatedAt", `"2026-11-23T10:00:00Z"`}, {"verifiedAt", `"2026-11-23T10:00:00Z"`},
		{"datacenter", `"na1"`}, {"dataHostingLocation", `"na1"`}, {"timeZone", `"Europe/Berlin"`}, {"accountType", `"STANDARD"`},
		{"scopes", `["oauth"]`}, {"previous", fmt.Sprintf(`{"token": "pat-na1-00000000-0000-4000-8000-%012d", "until": "2026-11-30T10:00:00Z"}`, p.ID)},
	}
}

// plainStore is the plaintext of a store of these portals, newer than any that
// tests write otherwise.
func plainStore(portals []sandbox.Portal) string {
	entries := make([]member, len(portals))
	for i, p := range portals {
		entries[i] = member{p.Slug, object(entryMembers(p)[:3])}
	}
	return object([]member{{"version", "99"}, {"portals", object(entries)}})
}

// What becomes of a store that has a damage in the entry of one portal.
type fate int

const (
	serves   fate = iota // the portal as well: what was damaged only describes it
	rejected             // the portal alone
	refused              // the store, and the one before serves on
)

// A damage is one way in which members of an object are spoiled.
type damage struct {
	name   string
	do     func(ms []member, i int) []member // spoils the i-th
	noJSON bool
}

// damages are all ways to spoil a member that does not happen to be good with
// one of them.
func damages() []damage {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	values := []string{
		"null", "[]", "[[]]", "{}", `{"a": 1}`, "true", `""`, `" "`, `"\n"`, `"\u0000"`, `"\ud800"`, `"ü"`, `"\u202e"`, `"Bearer x"`, `"` + strings.Repeat("x", 5000) + `"`,
		"0", "-1", "-1001", "1.5", "1001.0", "1e3", `"1001"`, "9007199254740992", "9007199254740993", "18446744073709551616", "1e400", "-0", deep(20),
	}
	broken := []string{"NaN", "Infinity", "-", "01", "'a'", `"` + "\n" + `"`, "nul", "", "[", "}", deep(10_000), strings.Repeat("[", 10_000), "undefined", "1 2", "0x10", "\xff"}
	var out []damage
	replace := func(v string, noJSON bool) {
		out = append(out, damage{fmt.Sprintf("is %.20s", v), func(ms []member, i int) []member {
			ms[i].value = v
			return ms
		}, noJSON})
	}
	for _, v := range values {
		replace(v, false)
	}
	for _, v := range broken {
		replace(v, true)
	}
	put := func(name string, at int, of func(m member) member) { // beside it, before or behind
		out = append(out, damage{name, func(ms []member, i int) []member { return slices.Insert(ms, i+at, of(ms[i])) }, false})
	}
	put("stands twice", 0, func(m member) member { return m })
	put("stands twice, null first", 0, func(m member) member { return member{m.key, "null"} })
	put("stands twice, null last", 1, func(m member) member { return member{m.key, "null"} })
	put("stands there in capitals too", 1, func(m member) member { return member{strings.ToUpper(m.key), m.value} })
	put("stands there with a capital too", 0, func(m member) member { return member{strings.ToUpper(m.key[:1]) + m.key[1:], "null"} })
	return out
}

// Whatever stands in the store in place of one value, the agent serves on: a
// damage in one portal's entry is that portal's own trouble at most.
func TestThreat37Payloads(t *testing.T) {
	r := newRig(t, rigOptions{portals: portalsOf(10), quiet: true})
	r.ready(10)
	version, taken, loaded := r.agent.Status().Store.Version, 0, r.agent.Status().Store.Version
	write := func(what, plain string, want fate) {
		t.Helper()
		taken++
		r.writePlain(plain)
		err := r.agent.Reload(t.Context(), false)
		if want == refused {
			require.Error(t, err, what)
			r.clean(what, err.Error())
			require.NotEmpty(t, r.agent.Status().Store.LastError, what)
			require.Equal(t, loaded, r.agent.Status().Store.Version, what)
		} else {
			require.NoError(t, err, what)
			loaded = version
			require.Equal(t, loaded, r.agent.Status().Store.Version, what)
			p, err := r.client.Portal(t.Context(), slugOf(t, "client-0"))
			require.NoError(t, err, what)
			require.Equal(t, want == rejected, p.State == wire.StateRejected, "%s: %+v", what, p)
			r.clean(what, fmt.Sprintf("%+v", p))
			if want == rejected {
				require.NotEmpty(t, p.Reason, what)
				r.call("client-0", "GET", tagged("client-0"), nil).refused(t, wire.CodePortalRejected)
			} else {
				require.Equal(t, 200, r.call("client-0", "GET", tagged("client-0"), nil).status, what)
			}
		}
		other := r.portals[1+taken%9].Slug
		require.Equal(t, 200, r.call(other, "GET", tagged(other), nil).status, what)
	}
	store := func(spoil func(top, portals, entry []member) (t, p, e []member)) string {
		version++
		entry := entryMembers(r.portals[0])
		var portals []member
		for _, p := range r.portals {
			portals = append(portals, member{p.Slug, object(entryMembers(p))})
		}
		top := []member{{"version", fmt.Sprint(version)}, {"lastUpdated", `"2026-11-23T10:00:00Z"`}, {"portals", ""}}
		_, _, entry = spoil(nil, nil, entry)
		portals[0].value = object(entry)
		_, portals, _ = spoil(nil, portals, nil)
		top[2].value = object(portals)
		top, _, _ = spoil(top, nil, nil)
		return object(top)
	}
	only := func(of *[]member, with func(ms []member) []member) {
		if *of != nil {
			*of = with(*of)
		}
	}

	for _, d := range damages() {
		for i, m := range entryMembers(r.portals[0]) { // in the entry
			want := serves
			switch {
			case d.noJSON:
				want = refused
			case d.name == "is null" && i >= 3: // as if it were not there
			case i < 5 || strings.HasPrefix(d.name, "stands"):
				want = rejected
			}
			write("the entry's "+m.key+" "+d.name, store(func(top, portals, entry []member) (a, b, c []member) {
				only(&entry, func(ms []member) []member { return d.do(ms, i) })
				return top, portals, entry
			}), want)
		}
		want := rejected // of the whole entry
		switch {
		case d.noJSON:
			want = refused
		case strings.Contains(d.name, "capital"):
			want = serves // another slug, and one that is none
		}
		if strings.HasPrefix(d.name, "stands there in capitals") {
			want = rejected // it has the same token
		}
		write("the entry "+d.name, store(func(top, portals, entry []member) (a, b, c []member) {
			only(&portals, func(ms []member) []member { return d.do(ms, 0) })
			return top, portals, entry
		}), want)
		for i, key := range []string{"version", "lastUpdated", "portals"} { // of the whole
			want := refused
			if key == "lastUpdated" && !d.noJSON && !strings.HasPrefix(d.name, "stands") {
				want = serves // it is for people
			}
			write(key+" "+d.name, store(func(top, portals, entry []member) (a, b, c []member) {
				only(&top, func(ms []member) []member { return d.do(ms, i) })
				return top, portals, entry
			}), want)
		}
		if strings.HasPrefix(d.name, "is ") {
			write("the store "+d.name, d.do([]member{{}}, 0)[0].value, refused)
		}
	}

	good := func() string {
		return store(func(top, portals, entry []member) (a, b, c []member) { return top, portals, entry })
	}
	for name, spoil := range map[string]func(s string) string{
		"a byte order mark": func(s string) string { return "\ufeff" + s },
		"bytes behind it":   func(s string) string { return s + "x" },
		"another behind it": func(s string) string { return s + s },
		"a NUL behind it":   func(s string) string { return s + "\x00" },
		"UTF-16":            func(s string) string { return strings.Join(strings.Split(s, ""), "\x00") },
		"a comment":         func(s string) string { return "// a store\n" + s },
		"a comma too many":  func(s string) string { return strings.Replace(s, "}}", "},}", 1) },
		"a version too low": func(s string) string {
			return strings.Replace(s, fmt.Sprintf(`"version": %d`, version), `"version": 1`, 1)
		},
		"no version":          func(s string) string { return strings.Replace(s, `"version"`, `"generation"`, 1) },
		"no portals":          func(s string) string { return strings.Replace(s, `"portals"`, `"clients"`, 1) },
		"portals in capitals": func(s string) string { return strings.Replace(s, `"portals"`, `"PORTALS"`, 1) },
	} {
		write(name, spoil(good()), refused)
	}
	for _, key := range []string{"token", "portalId", "clientSlug"} { // one missing, and one by another name
		for name, by := range map[string]string{"is missing": "x", "stands in capitals": strings.ToUpper(key)} {
			write("the entry's "+key+" "+name, strings.Replace(good(), fmt.Sprintf("%q: ", key), fmt.Sprintf("%q: ", by), 1), rejected)
		}
	}
	// Unknown keys are other programs' business, whatever they hold.
	for _, v := range []string{"null", "[]", "{}", "-1.5e300", `"\u0000"`, `{"token": "pat-na1-00000000-0000-4000-8000-00000000000c"}`} {
		write("an unknown key that is "+v, store(func(top, portals, entry []member) (a, b, c []member) {
			only(&entry, func(ms []member) []member { return append(ms, member{"x-note", v}) })
			only(&top, func(ms []member) []member { return append(ms, member{"x-note", v}) })
			return top, portals, entry
		}), serves)
	}
	// What two entries claim, neither has.
	for _, key := range []int{0, 1} {
		write("another's "+entryMembers(r.portals[0])[key].key, store(func(top, portals, entry []member) (a, b, c []member) {
			only(&entry, func(ms []member) []member {
				ms[key] = entryMembers(r.portals[9])[key]
				return ms
			})
			return top, portals, entry
		}), rejected)
		r.call("client-9", "GET", tagged("client-9"), nil).refused(t, wire.CodePortalRejected)
		write("mended", good(), serves)
	}
	require.Greater(t, taken, 800)
	t.Logf("%d stores", taken)
	require.Empty(t, r.crossed())
	require.Empty(t, r.records(chain.Filter{Kind: chain.PortalQuarantined}))
	r.checkLog()
	r.cleanAll()
}
