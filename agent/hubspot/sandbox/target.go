package sandbox

import (
	"regexp"
	"slices"
	"strings"
)

// target is a request's path, cut up: its segments without the API version,
// which HubSpot puts in different places ("/crm/v3/objects/contacts" and
// "/crm/objects/2026-03/contacts" are one target).
type target struct {
	version string
	seg     []string
}

var versionForm = regexp.MustCompile(`^(v[0-9]+|[0-9]{4}-[0-9]{2}(-beta)?)$`)

func parseTarget(path string) target {
	var t target
	for seg := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		switch {
		case seg == "":
		case t.version == "" && versionForm.MatchString(seg):
			t.version = seg
		default:
			t.seg = append(t.seg, seg)
		}
	}
	return t
}

// is reports whether the target is just this path.
func (t target) is(seg ...string) bool { return slices.Equal(t.seg, seg) }

// under reports whether the target begins with this path.
func (t target) under(seg ...string) bool {
	return len(t.seg) >= len(seg) && slices.Equal(t.seg[:len(seg)], seg)
}

// objectType returns the name of the CRM object type of "/crm/objects/{type}…",
// as it came if the sandbox does not know it, "" for another target.
func (t target) objectType() string {
	if len(t.seg) < 3 || !t.under("crm", "objects") {
		return ""
	}
	if k := kindOf(t.seg[2]); k != nil {
		return k.name
	}
	return t.seg[2]
}

// search reports whether the target is a search endpoint.
func (t target) search() bool {
	return len(t.seg) == 4 && t.under("crm", "objects") && t.seg[3] == "search"
}
