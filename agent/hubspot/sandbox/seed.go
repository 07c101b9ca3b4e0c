package sandbox

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

var (
	firstNames = []string{"Ada", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Grace", "Hanna", "Ivo", "Jun", "Kofi", "Lena", "Mateo", "Nadia", "Oskar", "Priya", "Quinn", "Rosa", "Sven", "Tomoko"}
	lastNames  = []string{"Abel", "Brandt", "Castillo", "Dubois", "Eriksen", "Fontana", "Gruber", "Haddad", "Ito", "Jansen", "Kowalski", "Larsen", "Moreau", "Novak", "Okafor", "Petrov", "Rossi", "Schmidt", "Tanaka", "Vargas"}
	firms      = []string{"Northwind", "Bluefield", "Harbor", "Lakeside", "Summit", "Granite", "Orchard", "Meridian", "Foxglove", "Ironbridge"}
	trades     = []string{"Logistics", "Analytics", "Foods", "Robotics", "Consulting", "Textiles", "Media", "Energy"}
	cities     = []string{"Boston", "Lisbon", "Hamburg", "Toronto", "Osaka", "Nairobi", "Lyon", "Austin"}
	titles     = []string{"Buyer", "Head of Operations", "Engineer", "Managing Director", "Accountant", "Marketing Lead"}
	stages     = []string{"appointmentscheduled", "qualifiedtobuy", "presentationscheduled", "contractsent", "closedwon", "closedlost"}
	cycles     = []string{"subscriber", "lead", "marketingqualifiedlead", "opportunity", "customer"}
	topics     = []string{"Invoice is missing", "Cannot sign in", "Delivery is late", "Question about the contract", "Export stops half way"}
)

// seed fills the portal with data that depends on its ID alone, but for the
// times, which lie in the year before now.
func (p *portal) seed(now time.Time) {
	// IDs of their own for each portal: an object in the wrong answer shows.
	p.nextID = p.cfg.ID * 10_000
	p.stores = make(map[string]*store, len(kinds))
	for _, k := range kinds {
		p.stores[k.name] = &store{kind: k, byID: map[int64]*object{}}
	}
	companies := p.fill("companies", limitOf(p.cfg.Companies, 10), now, func(i int) map[string]propValue {
		firm, trade := pick(firms, i+p.offset()), pick(trades, i/len(firms)+i+p.offset())
		return map[string]propValue{
			"name":              propValue(firm + " " + trade),
			"domain":            propValue(fmt.Sprintf("%s-%s%d.example", strings.ToLower(firm), strings.ToLower(trade), i+1)),
			"city":              propValue(pick(cities, i)),
			"industry":          propValue(strings.ToUpper(trade)),
			"numberofemployees": propValue(strconv.Itoa(12 + i*37%900)),
		}
	})
	contacts := p.fill("contacts", limitOf(p.cfg.Contacts, 25), now, func(i int) map[string]propValue {
		first := pick(firstNames, i+p.offset())
		last := pick(lastNames, i/len(firstNames)+3*i+p.offset())
		props := map[string]propValue{
			"firstname":        propValue(first),
			"lastname":         propValue(last),
			"email":            propValue(fmt.Sprintf("%s.%s.%d@example.com", strings.ToLower(first), strings.ToLower(last), i+1)),
			"jobtitle":         propValue(pick(titles, i)),
			"lifecyclestage":   propValue(pick(cycles, i)),
			"hubspot_owner_id": propValue(strconv.FormatInt(p.ownerID(i%2), 10)),
		}
		if i%4 != 3 { // some have no phone
			props["phone"] = propValue(fmt.Sprintf("+1 555 01%02d", i%100))
		}
		if len(companies) > 0 {
			co := companies[i%len(companies)]
			props["company"] = propValue(co.props["name"])
			props["associatedcompanyid"] = propValue(co.props["hs_object_id"])
		}
		return props
	})
	deals := p.fill("deals", limitOf(p.cfg.Deals, 12), now, func(i int) map[string]propValue {
		return map[string]propValue{
			"dealname":  propValue(fmt.Sprintf("%s renewal %d", pick(firms, i+p.offset()), i+1)),
			"amount":    propValue(strconv.Itoa(500 + i*1750%48_000)),
			"dealstage": propValue(pick(stages, i)),
			"pipeline":  "default",
			"closedate": propValue(stamp(now.AddDate(0, 0, i-20).Truncate(24 * time.Hour))),
		}
	})
	tickets := p.fill("tickets", limitOf(p.cfg.Tickets, 8), now, func(i int) map[string]propValue {
		return map[string]propValue{
			"subject":            propValue(pick(topics, i+p.offset())),
			"content":            "Please call back.",
			"hs_pipeline":        "0",
			"hs_pipeline_stage":  propValue(strconv.Itoa(1 + i%4)),
			"hs_ticket_priority": propValue(pick([]string{"LOW", "MEDIUM", "HIGH"}, i)),
		}
	})
	join("contacts", contacts, "companies", companies)
	join("deals", deals, "companies", companies)
	join("deals", deals, "contacts", contacts)
	join("tickets", tickets, "contacts", contacts)
}

// fill makes n objects, the first the oldest.
func (p *portal) fill(kind string, n int, now time.Time, props func(i int) map[string]propValue) []*object {
	if n >= unlimited { // a negative count: none
		return nil
	}
	st := p.stores[kind]
	out := make([]*object, 0, n)
	step := 365 * 24 * time.Hour / time.Duration(n+1)
	for i := range n {
		at := now.Add(-step * time.Duration(n-i)).Truncate(time.Second)
		out = append(out, p.createLocked(st, props(i), at))
	}
	return out
}

// join ties each of the from objects to one of the to objects, both ways.
func join(fromKind string, from []*object, toKind string, to []*object) {
	if len(to) == 0 {
		return
	}
	for i, o := range from {
		other := to[i%len(to)]
		o.links[toKind] = append(o.links[toKind], other.id)
		other.links[fromKind] = append(other.links[fromKind], o.id)
	}
}

func pick(list []string, i int) string { return list[i%len(list)] }

// offset makes the names of one portal begin elsewhere than another's.
func (p *portal) offset() int { return int(p.cfg.ID % 17) }

func (p *portal) ownerID(i int) int64 { return made("owner", p.cfg.ID) + int64(i) }
