package sandbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// object is one CRM record. It is guarded by its portal's mu.
type object struct {
	id                           int64
	props                        map[string]string
	created, updated, archivedAt time.Time // archivedAt is zero while it lives
	links                        map[string][]int64
}

// store holds a portal's objects of one type, live and archived.
type store struct {
	kind *kind
	byID map[int64]*object
	ids  []int64 // ascending
}

// view is how an object looks in an answer.
type view struct {
	ID           string             `json:"id"`
	Properties   map[string]*string `json:"properties"`
	CreatedAt    string             `json:"createdAt"`
	UpdatedAt    string             `json:"updatedAt"`
	Archived     bool               `json:"archived"`
	ArchivedAt   string             `json:"archivedAt,omitempty"`
	Associations map[string]linked  `json:"associations,omitempty"`
	New          *bool              `json:"new,omitempty"`
	TraceID      string             `json:"objectWriteTraceId,omitempty"`
}

// view shows the object with the wanted properties, or with the type's usual
// ones if none are named. Three stand in every answer.
func (o *object) view(k *kind, wanted []string) view {
	if len(wanted) == 0 {
		wanted = k.defaults
	}
	v := view{
		ID:         strconv.FormatInt(o.id, 10),
		Properties: make(map[string]*string, len(wanted)+3),
		CreatedAt:  stamp(o.created),
		UpdatedAt:  stamp(o.updated),
		Archived:   !o.archivedAt.IsZero(),
	}
	if v.Archived {
		v.ArchivedAt = stamp(o.archivedAt)
	}
	show := func(name string) {
		if value, ok := o.props[name]; ok {
			v.Properties[name] = &value
		} else if k.knows(name) {
			v.Properties[name] = nil
		}
	}
	for _, name := range wanted {
		show(name)
	}
	for _, name := range []string{"createdate", "hs_object_id", k.modified} {
		show(name)
	}
	return v
}

// propValue is a property's value in a request: HubSpot takes numbers and
// booleans as well, and keeps strings.
type propValue string

// UnmarshalJSON takes a string, number, boolean or null.
func (p *propValue) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*p = propValue(s)
	case '{', '[':
		return fmt.Errorf("a property value is no %s", b[:1])
	case 'n':
		*p = ""
	default:
		*p = propValue(b)
	}
	return nil
}

// problem says what is wrong with a property. A list of them, as JSON, stands
// inside the message of a 400.
type problem struct {
	IsValid   bool   `json:"isValid"`
	Message   string `json:"message"`
	Error     string `json:"error"`
	Name      string `json:"name"`
	Localized string `json:"localizedErrorMessage"`
	PortalID  int64  `json:"portalId"`
}

// check returns the 400 for properties that the portal does not take, or nil.
func (p *portal) check(k *kind, props map[string]propValue) *answer {
	var problems []problem
	add := func(name, code, format string, args ...any) {
		msg := fmt.Sprintf(format, args...)
		problems = append(problems, problem{Message: msg, Error: code, Name: name, Localized: msg, PortalID: p.cfg.ID})
	}
	names := make([]string, 0, len(props))
	for name := range props {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := string(props[name])
		switch {
		case !k.knows(name):
			add(name, "PROPERTY_DOESNT_EXIST", "Property %q does not exist", name)
		case name == "createdate" || name == "hs_object_id" || name == k.modified:
			add(name, "READ_ONLY_VALUE", "%q is a read only property; its value cannot be set.", name)
		case name == "email" && value != "" && !plausibleEmail(value):
			add(name, "INVALID_EMAIL", "Email address %s is invalid", value)
		case name == "amount" && value != "":
			if _, err := strconv.ParseFloat(value, 64); err != nil {
				add(name, "INVALID_DOUBLE", "%s was not a valid number.", value)
			}
		}
	}
	if problems == nil {
		return nil
	}
	list, err := json.Marshal(problems)
	if err != nil {
		return reply(500, err.Error())
	}
	return invalid("Property values were not valid: %s", list)
}

func plausibleEmail(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && local != "" && strings.Contains(domain, ".") && !strings.ContainsAny(s, " <>,;")
}

// find returns a live object by ID, or by another property. E-mail addresses
// are compared without regard to case.
func (st *store) find(key, property string) *object {
	if property == "" || property == "hs_object_id" {
		id, err := strconv.ParseInt(key, 10, 64)
		if err != nil {
			return nil
		}
		return live(st.byID[id])
	}
	for _, id := range st.ids {
		if o := live(st.byID[id]); o != nil && key != "" && strings.EqualFold(o.props[property], key) {
			return o
		}
	}
	return nil
}

func live(o *object) *object {
	if o == nil || !o.archivedAt.IsZero() {
		return nil
	}
	return o
}

// conflict returns the 409 for an e-mail address that another contact has.
func (st *store) conflict(props map[string]propValue, self int64) *answer {
	email := string(props["email"])
	if st.kind.name != "contacts" || email == "" {
		return nil
	}
	if o := st.find(email, "email"); o != nil && o.id != self {
		return refusal(409, apiError{
			Message:  fmt.Sprintf("Contact already exists. Existing ID: %d", o.id),
			Category: "CONFLICT",
		})
	}
	return nil
}

// createLocked adds an object; its properties have been checked.
func (p *portal) createLocked(st *store, props map[string]propValue, now time.Time) *object {
	p.nextID++
	o := &object{id: p.nextID, props: make(map[string]string, len(props)+3), created: now, links: map[string][]int64{}}
	o.props["createdate"] = stamp(now)
	o.props["hs_object_id"] = strconv.FormatInt(o.id, 10)
	o.set(st.kind, props, now)
	st.byID[o.id] = o
	st.ids = append(st.ids, o.id)
	return o
}

func (o *object) set(k *kind, props map[string]propValue, now time.Time) {
	for name, value := range props {
		if value == "" {
			delete(o.props, name)
			continue
		}
		o.props[name] = string(value)
	}
	o.updated = now
	o.props[k.modified] = stamp(now)
}

// from returns the position of the first ID after id.
func (st *store) from(id int64) int {
	return sort.Search(len(st.ids), func(i int) bool { return st.ids[i] > id })
}

// Objects returns how many live objects of a type ("contacts") a portal has.
func (s *Server) Objects(portalID int64, objectType string) int {
	p, k := s.portal(portalID), kindOf(objectType)
	if p == nil || k == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, o := range p.stores[k.name].byID {
		if live(o) != nil {
			n++
		}
	}
	return n
}
