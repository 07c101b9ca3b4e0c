package hubspot

// An Op says what a call does, as far as its method and path tell.
type Op struct {
	ObjectType string // "contacts", "deals", "2-123456"; "" if the path is not known
	ObjectID   string // "" if the path names none
	APIVersion string // "v3", "2026-03"; "" if the path has none
	Read       bool   // changes nothing at HubSpot: may be sent again after a failure
	Search     bool   // a search of CRM objects, which has a limit of its own
}

// Classify tells what a call of method to t does. A path it does not know has
// an empty type; it is never an error.
func Classify(method string, t Target) Op { return Op{} }
