package sandbox

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// page is a list answer.
type page struct {
	Results []view  `json:"results"`
	Paging  *paging `json:"paging,omitempty"`
}

type paging struct {
	Next next `json:"next"`
}

type next struct {
	After string `json:"after"`
	Link  string `json:"link,omitempty"`
}

// objects answers everything below /crm/objects/{type}.
func (x *exchange) objects() *answer {
	k := kindOf(x.target.seg[2])
	if k == nil {
		return invalid("Unable to infer object type from: %s", x.target.seg[2])
	}
	st := x.access.portal.stores[k.name]
	rest := x.target.seg[3:]
	m := x.r.Method
	verb := "read"
	if m != http.MethodGet && m != http.MethodHead {
		verb = "write"
	}
	if len(rest) > 0 && (rest[0] == "search" || len(rest) > 1 && rest[0] == "batch" && rest[1] == "read") {
		verb = "read"
	}
	if refused := x.requireScope(k.scope(verb)); refused != nil {
		return refused
	}
	switch {
	case len(rest) == 0 && m == http.MethodGet:
		return x.list(st)
	case len(rest) == 0 && m == http.MethodPost:
		return x.create(st)
	case len(rest) == 0:
		return notAllowed()
	case len(rest) == 2 && rest[0] == "batch":
		return x.batch(st, rest[1])
	case len(rest) == 3 && rest[1] == "associations" && m == http.MethodGet:
		return x.associations(st, rest[0], rest[2])
	case len(rest) > 1:
		return notThere()
	case m == http.MethodPost && rest[0] == "search":
		return x.search(st)
	case m == http.MethodPost && rest[0] == "merge":
		return x.merge(st)
	case m == http.MethodPost && rest[0] == "gdpr-delete":
		return x.gdprDelete(st)
	case m == http.MethodGet:
		return x.read(st, rest[0])
	case m == http.MethodPatch:
		return x.update(st, rest[0])
	case m == http.MethodDelete:
		return x.archive(st, rest[0])
	}
	return notAllowed()
}

func (x *exchange) list(st *store) *answer {
	q := x.r.URL.Query()
	limit, after := 10, int64(0)
	var err error
	if s := q.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > 100 {
			return invalid("limit must be between 1 and 100, and was %s", s)
		}
	}
	if s := q.Get("after"); s != "" {
		if after, err = strconv.ParseInt(s, 10, 64); err != nil {
			return invalid("after is no cursor of this list: %s", s)
		}
	}
	wanted, archived := listOf(q, "properties"), q.Get("archived") == "true"

	p := x.access.portal
	p.mu.Lock()
	defer p.mu.Unlock()
	out := page{Results: make([]view, 0, limit)}
	for _, id := range st.ids[st.from(after):] {
		o := st.byID[id]
		if archived != !o.archivedAt.IsZero() {
			continue
		}
		if len(out.Results) == limit {
			cursor := out.Results[limit-1].ID
			q.Set("after", cursor)
			out.Paging = &paging{Next: next{After: cursor, Link: "https://api.hubapi.com" + x.r.URL.EscapedPath() + "?" + q.Encode()}}
			break
		}
		v := o.view(st.kind, wanted)
		v.Associations = o.associated(st.kind, listOf(q, "associations"))
		out.Results = append(out.Results, v)
	}
	return reply(http.StatusOK, out)
}

func (x *exchange) read(st *store, key string) *answer {
	q := x.r.URL.Query()
	p := x.access.portal
	p.mu.Lock()
	defer p.mu.Unlock()
	o := st.find(key, q.Get("idProperty"))
	if id, err := strconv.ParseInt(key, 10, 64); err == nil && q.Get("archived") == "true" {
		o = st.byID[id]
	}
	if o == nil {
		return objectNotFound("Object not found.  objectId are usually numeric.")
	}
	v := o.view(st.kind, listOf(q, "properties"))
	v.Associations = o.associated(st.kind, listOf(q, "associations"))
	return reply(http.StatusOK, v)
}

// properties reads a body of the form {"properties": {…}}.
func (x *exchange) properties(st *store) (map[string]propValue, *answer) {
	raw, refused := x.readBody()
	if refused != nil {
		return nil, refused
	}
	var in struct {
		Properties map[string]propValue `json:"properties"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, badJSON(err)
	}
	return in.Properties, x.access.portal.check(st.kind, in.Properties)
}

func (x *exchange) create(st *store) *answer {
	props, refused := x.properties(st)
	if refused != nil {
		return refused
	}
	p := x.access.portal
	p.mu.Lock()
	defer p.mu.Unlock()
	if refused := st.conflict(props, 0); refused != nil {
		return refused
	}
	o := p.createLocked(st, props, x.now)
	a := reply(http.StatusCreated, o.view(st.kind, shown(st.kind, props)))
	a.header.Set("Location", "https://api.hubapi.com"+strings.TrimSuffix(x.r.URL.EscapedPath(), "/")+"/"+strconv.FormatInt(o.id, 10))
	return a
}

func (x *exchange) update(st *store, key string) *answer {
	props, refused := x.properties(st)
	if refused != nil {
		return refused
	}
	p := x.access.portal
	p.mu.Lock()
	defer p.mu.Unlock()
	o := st.find(key, x.r.URL.Query().Get("idProperty"))
	if o == nil {
		return objectNotFound("resource not found")
	}
	if refused := st.conflict(props, o.id); refused != nil {
		return refused
	}
	o.set(st.kind, props, x.now)
	return reply(http.StatusOK, o.view(st.kind, shown(st.kind, props)))
}

// archive answers DELETE. What HubSpot says to the second DELETE of an object
// is not documented; here it is 204 like the first.
func (x *exchange) archive(st *store, key string) *answer {
	p := x.access.portal
	p.mu.Lock()
	defer p.mu.Unlock()
	id, err := strconv.ParseInt(key, 10, 64)
	o := st.byID[id]
	if err != nil || o == nil {
		return objectNotFound("resource not found")
	}
	if o.archivedAt.IsZero() {
		o.archivedAt = x.now
	}
	return noContent()
}

// merge moves the second object into the first and archives it. HubSpot makes
// a new record of both; here the first one keeps its ID.
func (x *exchange) merge(st *store) *answer {
	raw, refused := x.readBody()
	if refused != nil {
		return refused
	}
	var in struct {
		Primary string `json:"primaryObjectId"`
		Merged  string `json:"objectIdToMerge"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return badJSON(err)
	}
	p := x.access.portal
	p.mu.Lock()
	defer p.mu.Unlock()
	one, two := st.find(in.Primary, ""), st.find(in.Merged, "")
	if one == nil || two == nil {
		return objectNotFound("resource not found")
	}
	if one == two {
		return invalid("An object cannot be merged with itself.")
	}
	for name, value := range two.props {
		if _, has := one.props[name]; !has {
			one.props[name] = value
		}
	}
	one.set(st.kind, map[string]propValue{"hs_merged_object_ids": propValue(in.Merged)}, x.now)
	two.archivedAt = x.now
	return reply(http.StatusOK, one.view(st.kind, append(slices.Clone(st.kind.defaults), "hs_merged_object_ids")))
}

// gdprDelete removes an object for good.
func (x *exchange) gdprDelete(st *store) *answer {
	raw, refused := x.readBody()
	if refused != nil {
		return refused
	}
	var in struct {
		ObjectID   string `json:"objectId"`
		IDProperty string `json:"idProperty"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return badJSON(err)
	}
	p := x.access.portal
	p.mu.Lock()
	defer p.mu.Unlock()
	o := st.find(in.ObjectID, in.IDProperty)
	if o == nil {
		return objectNotFound("resource not found")
	}
	delete(st.byID, o.id)
	st.ids = slices.DeleteFunc(st.ids, func(id int64) bool { return id == o.id })
	return noContent()
}

// shown is what the answer to a write holds: the usual properties and those
// that were written.
func shown(k *kind, props map[string]propValue) []string {
	names := slices.Clone(k.defaults)
	for name := range props {
		names = append(names, name)
	}
	return names
}

// listOf reads a query parameter that may be repeated or hold commas.
func listOf(q url.Values, name string) []string {
	var out []string
	for _, v := range q[name] {
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.TrimSpace(item); item != "" {
				out = append(out, item)
			}
		}
	}
	return out
}
