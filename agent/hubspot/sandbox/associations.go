package sandbox

import (
	"net/http"
	"strconv"
)

// linked is a list of associated objects inside another answer.
type linked struct {
	Results []link `json:"results"`
}

type link struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

// associationTypes are the numbers of the unlabelled associations.
var associationTypes = map[string]int{
	"contact_to_company": 279, "company_to_contact": 280,
	"deal_to_company": 341, "company_to_deal": 342,
	"deal_to_contact": 3, "contact_to_deal": 4,
	"ticket_to_contact": 16, "contact_to_ticket": 15,
}

// associated returns what the object is linked to, by the wanted type names.
func (o *object) associated(k *kind, wanted []string) map[string]linked {
	var out map[string]linked
	for _, name := range wanted {
		to := kindOf(name)
		if to == nil || len(o.links[to.name]) == 0 {
			continue
		}
		if out == nil {
			out = map[string]linked{}
		}
		out[to.name] = linked{Results: o.links3(k, to)}
	}
	return out
}

func (o *object) links3(k, to *kind) []link {
	out := []link{}
	for _, id := range o.links[to.name] {
		out = append(out, link{ID: strconv.FormatInt(id, 10), Type: k.singular + "_to_" + to.singular})
	}
	return out
}

// associations answers GET …/{id}/associations/{toType}, in the shape of v3
// or in the newer one.
func (x *exchange) associations(st *store, key, toType string) *answer {
	to := kindOf(toType)
	if to == nil {
		return invalid("Unable to infer object type from: %s", toType)
	}
	p := x.access.portal
	p.mu.Lock()
	defer p.mu.Unlock()
	o := st.find(key, "")
	if o == nil {
		return objectNotFound("resource not found")
	}
	if x.target.version == "v3" {
		return reply(http.StatusOK, linked{Results: o.links3(st.kind, to)})
	}
	type assocType struct {
		Category string  `json:"category"`
		TypeID   int     `json:"typeId"`
		Label    *string `json:"label"`
	}
	type result struct {
		ToObjectID int64       `json:"toObjectId"`
		Types      []assocType `json:"associationTypes"`
	}
	out := struct {
		Results []result `json:"results"`
	}{[]result{}}
	for _, id := range o.links[to.name] {
		out.Results = append(out.Results, result{id, []assocType{{
			Category: "HUBSPOT_DEFINED", TypeID: associationTypes[st.kind.singular+"_to_"+to.singular],
		}}})
	}
	return reply(http.StatusOK, out)
}
