package sandbox

import "slices"

// kind is a CRM object type: its names, and what its objects look like.
type kind struct {
	name       string // "contacts"
	singular   string // "contact"
	number     string // "0-1"
	defaults   []string
	properties []string // known ones besides defaults
	modified   string   // the property with the time of the last change
}

var kinds = []*kind{
	{
		name: "contacts", singular: "contact", number: "0-1", modified: "lastmodifieddate",
		defaults: []string{"createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname"},
		properties: []string{
			"address", "associatedcompanyid", "annualrevenue", "city", "company", "country", "fax", "hs_lead_status", "hs_additional_emails",
			"hs_merged_object_ids", "hubspot_owner_id", "industry", "jobtitle", "language", "lifecyclestage", "mobilephone", "notes",
			"phone", "salutation", "state", "website", "zip",
		},
	},
	{
		name: "companies", singular: "company", number: "0-2", modified: "hs_lastmodifieddate",
		defaults: []string{"createdate", "domain", "hs_lastmodifieddate", "hs_object_id", "name"},
		properties: []string{
			"address", "annualrevenue", "city", "country", "description", "hs_merged_object_ids", "hubspot_owner_id", "industry",
			"lifecyclestage", "numberofemployees", "phone", "state", "type", "website", "zip",
		},
	},
	{
		name: "deals", singular: "deal", number: "0-3", modified: "hs_lastmodifieddate",
		defaults:   []string{"amount", "closedate", "createdate", "dealname", "dealstage", "hs_lastmodifieddate", "hs_object_id", "pipeline"},
		properties: []string{"dealtype", "description", "hs_merged_object_ids", "hs_priority", "hubspot_owner_id", "deal_currency_code"},
	},
	{
		name: "tickets", singular: "ticket", number: "0-5", modified: "hs_lastmodifieddate",
		defaults: []string{
			"content", "createdate", "hs_lastmodifieddate", "hs_object_id", "hs_pipeline", "hs_pipeline_stage", "hs_ticket_category",
			"hs_ticket_priority", "subject",
		},
		properties: []string{"hs_merged_object_ids", "hubspot_owner_id", "source_type"},
	},
}

// kindOf finds a type by any of its names, nil if there is none.
func kindOf(name string) *kind {
	for _, k := range kinds {
		if name == k.name || name == k.singular || name == k.number {
			return k
		}
	}
	return nil
}

func (k *kind) knows(property string) bool {
	return slices.Contains(k.defaults, property) || slices.Contains(k.properties, property)
}

func (k *kind) scope(verb string) string { return "crm.objects." + k.name + "." + verb }

// allScopes is what a token may do if its portal does not say.
func allScopes() []string {
	scopes := []string{"oauth", "files", "crm.objects.owners.read"}
	for _, k := range kinds {
		scopes = append(scopes, k.scope("read"), k.scope("write"))
	}
	return scopes
}
