package hubspot

import (
	"maps"
	"strings"
)

// Aliases are HubSpot's other names of its object types, in lower case, and the
// one that policies compare: types have a number, and a singular that some
// paths take in place of the plural.
func Aliases() map[string]string { return maps.Clone(aliases) }

var aliases = func() map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(typeNames)) {
		names := strings.Fields(line)
		for _, name := range names {
			m[name] = names[len(names)-1]
		}
	}
	return m
}()

// typeNames has a line for each of HubSpot's own object types. The last name is
// the one in paths.
const typeNames = `
0-1 contact contacts
0-2 company companies
0-3 deal deals
0-5 ticket tickets
0-7 product products
0-8 line_item line_items
0-14 quote quotes
0-18 communication communications
0-19 feedback_submission feedback_submissions
0-27 task tasks
0-46 note notes
0-47 meeting meetings
0-48 call calls
0-49 email emails
0-53 invoice invoices
0-54 marketing_event marketing_events
0-69 subscription subscriptions
0-74 goal_target goal_targets
0-84 discount discounts
0-85 fee fees
0-86 tax taxes
0-101 commerce_payment commerce_payments
0-115 user users
0-116 postal_mail
0-123 order orders
0-136 lead leads
0-142 cart carts
0-162 service services
0-410 course courses
0-420 listing listings
0-421 appointment appointments
0-970 project projects
`

// CanonicalPath is a checked path as policies compare it: decoded, and with one
// name for each of HubSpot's object types, whichever of its names it has.
func CanonicalPath(path string) string {
	segs := strings.Split(path, "/")
	for i, s := range segs {
		segs[i] = decodeAll(s)
		if name, ok := aliases[strings.ToLower(segs[i])]; ok {
			segs[i] = name
		}
	}
	return strings.Join(segs, "/")
}
