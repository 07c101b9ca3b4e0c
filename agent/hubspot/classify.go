package hubspot

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// An Op says what a call does, as far as its method and path tell.
type Op struct {
	ObjectType string // "contacts", "deals", "2-123456"; "" if the path is not known
	ObjectID   string // "" if the path names none; an e-mail address shows as *@domain
	APIVersion string // "v3", "2026-03"; "" if the path has none
	Read       bool   // changes nothing at HubSpot: may be sent again after any failure
	Search     bool   // a search of CRM objects, which has a limit of its own
}

// version is a segment that names the API's version. It stands anywhere: at
// /crm/v3/objects/… and at /crm/objects/2026-03/… alike.
var version = regexp.MustCompile(`^(v\d+|\d{4}-\d{2}(-beta)?)$`)

// objectTypes gives each well-known object type one name: HubSpot takes its
// number and its singular as well.
var objectTypes = map[string]string{
	"0-1": "contacts", "contact": "contacts", "contacts": "contacts",
	"0-2": "companies", "company": "companies", "companies": "companies",
	"0-3": "deals", "deal": "deals", "deals": "deals",
	"0-5": "tickets", "ticket": "tickets", "tickets": "tickets",
}

// actions are words that stand where an object's ID would.
var actions = map[string]bool{
	"batch": true, "search": true, "merge": true, "gdpr-delete": true,
	"archive": true, "upsert": true, "draft": true,
}

// families are the parts of the CRM API beside its objects. The number is how
// many segments after the family's own name come before an ID.
var families = map[string]int{
	"lists": 0, "imports": 0, "exports": 0, "owners": 0, "schemas": 0,
	"properties": 1, "pipelines": 1, // an object type comes first
}

// Classify tells what a call of method to t does. A path that it does not know
// has an empty type, is a read by its method alone, and is never an error.
func Classify(method string, t Target) Op {
	segs := strings.Split(strings.Trim(t.Path, "/"), "/")
	op := Op{}
	for i, s := range segs {
		if version.MatchString(s) {
			op.APIVersion = s
			segs = append(segs[:i], segs[i+1:]...)
			break
		}
	}
	for i, s := range segs {
		segs[i] = unescape(s)
	}
	op.Read, op.Search = reads(method, segs)
	switch first := at(segs, 0); {
	case first == "crm" && len(segs) > 2:
		op.ObjectType, op.ObjectID = crmObject(segs[1:])
	case first == "crm" && len(segs) == 2:
		if _, ok := families[segs[1]]; ok {
			op.ObjectType = segs[1]
		}
	case first == "crm-object-schemas" && at(segs, 1) == "schemas":
		op.ObjectType, op.ObjectID = "schemas", notAction(at(segs, 2))
	case op.APIVersion == "v1" || op.APIVersion == "v2":
		op.ObjectType, op.ObjectID = legacyObject(segs)
	}
	op.ObjectType = wire.Printable(maskEmail(op.ObjectType))
	op.ObjectID = wire.Printable(maskEmail(op.ObjectID))
	return op
}

// crmObject takes type and ID out of what follows /crm/.
func crmObject(segs []string) (kind, id string) {
	switch family := segs[0]; family {
	case "objects":
		return objectType(segs[1]), notAction(at(segs, 2))
	case "associations": // /associations/{from}/{to}/…: of the first type
		return objectType(segs[1]), ""
	default:
		before, ok := families[family]
		if !ok {
			return "", ""
		}
		return family, notAction(at(segs, 1+before))
	}
}

// legacyObject knows the APIs from before /crm/, such as
// /contacts/v1/contact/vid/51/profile. IDs stand in several places there: the
// first segment with a digit or an @ is taken.
func legacyObject(segs []string) (kind, id string) {
	switch segs[0] {
	case "contacts", "companies", "deals":
		kind = segs[0]
		if at(segs, 1) == "lists" || at(segs, 1) == "groups" {
			kind = segs[1]
		}
	case "engagements":
		kind = "engagements"
	case "owners":
		kind = "owners"
	case "crm-objects":
		if at(segs, 1) != "objects" {
			return "", ""
		}
		kind = objectType(at(segs, 2))
		segs = segs[min(1, len(segs)):]
	default:
		return "", ""
	}
	for _, s := range segs[min(2, len(segs)):] {
		if strings.ContainsAny(s, "0123456789@") {
			return kind, s
		}
	}
	return kind, ""
}

// objectType is the one name of an object type.
func objectType(s string) string {
	if actions[s] {
		return ""
	}
	if name, ok := objectTypes[strings.ToLower(s)]; ok {
		return name
	}
	return s
}

// reads tells whether a request changes nothing, and whether it is a search of
// CRM objects. Half of HubSpot's POSTs that read end in one of a few words; a
// POST in doubt counts as a write, for it is not sent twice.
func reads(method string, segs []string) (read, search bool) {
	switch method {
	case http.MethodGet, http.MethodHead:
		return true, false
	case http.MethodPost:
	default:
		return false, false
	}
	if named(segs) {
		return false, false
	}
	last := at(segs, len(segs)-1)
	switch {
	case last == "search" && len(segs) == 4 && segs[0] == "crm" && segs[1] == "objects":
		return true, true
	case last == "search" || last == "query":
		// In /crm/objects/search the word is an object type.
		return len(segs) >= 3 && (segs[0] != "crm" || segs[1] != "objects"), false
	case last == "read":
		return len(segs) >= 3 && segs[len(segs)-2] == "batch", false
	}
	return false, false
}

// named reports whether the last segments are names that somebody chose, where
// "search" is none of HubSpot's words: of an object type that gets an object, a
// property or a pipeline, or of a file of a website. HubSpot may not tell
// capitals apart.
func named(segs []string) bool {
	switch strings.ToLower(at(segs, len(segs)-2)) {
	case "objects", "properties", "pipelines":
		return true
	}
	return slices.ContainsFunc(segs, func(s string) bool { return strings.EqualFold(s, "source-code") })
}

// at is a segment, or "" where there is none.
func at(segs []string, i int) string {
	if i >= 0 && i < len(segs) {
		return segs[i]
	}
	return ""
}

// notAction is s unless it is a word that says what is done.
func notAction(s string) string {
	if actions[s] {
		return ""
	}
	return s
}
