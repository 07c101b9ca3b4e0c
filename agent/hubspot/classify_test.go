package hubspot_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
)

func TestClassify(t *testing.T) {
	tests := []struct {
		method, path string
		want         hubspot.Op
	}{
		{"GET", "/crm/v3/objects/contacts", hubspot.Op{ObjectType: "contacts", APIVersion: "v3", Read: true}},
		{"GET", "/crm/v3/objects/contacts/", hubspot.Op{ObjectType: "contacts", APIVersion: "v3", Read: true}},
		{"GET", "/crm/objects/2026-03/contacts/51", hubspot.Op{ObjectType: "contacts", ObjectID: "51", APIVersion: "2026-03", Read: true}},
		{"HEAD", "/crm/objects/2026-09-beta/0-1/51", hubspot.Op{ObjectType: "contacts", ObjectID: "51", APIVersion: "2026-09-beta", Read: true}},
		{"PATCH", "/crm/v3/objects/contact/51", hubspot.Op{ObjectType: "contacts", ObjectID: "51", APIVersion: "v3"}},
		{"PATCH", "/crm/v3/objects/Companies/5", hubspot.Op{ObjectType: "companies", ObjectID: "5", APIVersion: "v3"}},
		{"POST", "/crm/v3/objects/0-2", hubspot.Op{ObjectType: "companies", APIVersion: "v3"}},
		{"POST", "/crm/v3/objects/0-3", hubspot.Op{ObjectType: "deals", APIVersion: "v3"}},
		{"DELETE", "/crm/v3/objects/0-5/9", hubspot.Op{ObjectType: "tickets", ObjectID: "9", APIVersion: "v3"}},
		{"GET", "/crm/v3/objects/0-162/9", hubspot.Op{ObjectType: "0-162", ObjectID: "9", APIVersion: "v3", Read: true}},
		{"GET", "/crm/v3/objects/2-123456/9", hubspot.Op{ObjectType: "2-123456", ObjectID: "9", APIVersion: "v3", Read: true}},
		{"GET", "/crm/v3/objects/p123_car/9", hubspot.Op{ObjectType: "p123_car", ObjectID: "9", APIVersion: "v3", Read: true}},
		{"GET", "/crm/v3/objects/%63ontacts/5%31", hubspot.Op{ObjectType: "contacts", ObjectID: "51", APIVersion: "v3", Read: true}},
		{"GET", "/crm/v3/objects/contacts/jo@example.com?idProperty=email", hubspot.Op{ObjectType: "contacts", ObjectID: "*@example.com", APIVersion: "v3", Read: true}},
		{"GET", "/crm/v3/objects/contacts/jo%40example.com", hubspot.Op{ObjectType: "contacts", ObjectID: "*@example.com", APIVersion: "v3", Read: true}},
		{"GET", "/crm/v3/objects/contacts/jo%2540example.com", hubspot.Op{ObjectType: "contacts", ObjectID: "*@example.com", APIVersion: "v3", Read: true}},
		{"POST", "/crm/v3/objects/contacts/search", hubspot.Op{ObjectType: "contacts", APIVersion: "v3", Read: true, Search: true}},
		{"POST", "/crm/objects/2026-03/deals/search", hubspot.Op{ObjectType: "deals", APIVersion: "2026-03", Read: true, Search: true}},
		{"POST", "/crm/v3/objects/search", hubspot.Op{APIVersion: "v3"}},
		{"POST", "/crm/v3/objects/contacts/51/search", hubspot.Op{ObjectType: "contacts", ObjectID: "51", APIVersion: "v3"}},
		{"PUT", "/crm/v3/objects/contacts/search", hubspot.Op{ObjectType: "contacts", APIVersion: "v3"}},
		{"POST", "/crm/v3/objects/contacts/batch/read", hubspot.Op{ObjectType: "contacts", APIVersion: "v3", Read: true}},
		{"POST", "/crm/v3/objects/contacts/batch/create", hubspot.Op{ObjectType: "contacts", APIVersion: "v3"}},
		{"POST", "/crm/v3/objects/contacts/batch/upsert", hubspot.Op{ObjectType: "contacts", APIVersion: "v3"}},
		{"POST", "/crm/v3/objects/contacts/merge", hubspot.Op{ObjectType: "contacts", APIVersion: "v3"}},
		{"POST", "/crm/v3/objects/contacts/gdpr-delete", hubspot.Op{ObjectType: "contacts", APIVersion: "v3"}},
		{"PUT", "/crm/v4/objects/contacts/51/associations/companies/7", hubspot.Op{ObjectType: "contacts", ObjectID: "51", APIVersion: "v4"}},
		{"POST", "/crm/v4/associations/contact/companies/batch/read", hubspot.Op{ObjectType: "contacts", APIVersion: "v4", Read: true}},
		{"POST", "/crm/associations/2026-03/0-1/0-2/batch/create", hubspot.Op{ObjectType: "contacts", APIVersion: "2026-03"}},
		{"GET", "/crm/v3/lists/77", hubspot.Op{ObjectType: "lists", ObjectID: "77", APIVersion: "v3", Read: true}},
		{"POST", "/crm/v3/lists/search", hubspot.Op{ObjectType: "lists", APIVersion: "v3", Read: true}},
		{"POST", "/crm/v3/lists", hubspot.Op{ObjectType: "lists", APIVersion: "v3"}},
		{"GET", "/crm/v3/properties/contacts/email", hubspot.Op{ObjectType: "properties", ObjectID: "email", APIVersion: "v3", Read: true}},
		{"GET", "/crm/v3/pipelines/deals", hubspot.Op{ObjectType: "pipelines", APIVersion: "v3", Read: true}},
		{"GET", "/crm/v3/owners", hubspot.Op{ObjectType: "owners", APIVersion: "v3", Read: true}},
		{"PATCH", "/crm-object-schemas/v3/schemas/2-1", hubspot.Op{ObjectType: "schemas", ObjectID: "2-1", APIVersion: "v3"}},
		{"GET", "/contacts/v1/contact/vid/51/profile", hubspot.Op{ObjectType: "contacts", ObjectID: "51", APIVersion: "v1", Read: true}},
		{"POST", "/contacts/v1/contact/email/jo@example.com/profile", hubspot.Op{ObjectType: "contacts", ObjectID: "*@example.com", APIVersion: "v1"}},
		{"POST", "/contacts/v1/contact", hubspot.Op{ObjectType: "contacts", APIVersion: "v1"}},
		{"GET", "/contacts/v1/lists/12/contacts/all", hubspot.Op{ObjectType: "lists", ObjectID: "12", APIVersion: "v1", Read: true}},
		{"GET", "/companies/v2/companies/7", hubspot.Op{ObjectType: "companies", ObjectID: "7", APIVersion: "v2", Read: true}},
		{"GET", "/deals/v1/deal/paged", hubspot.Op{ObjectType: "deals", APIVersion: "v1", Read: true}},
		{"DELETE", "/engagements/v1/engagements/9", hubspot.Op{ObjectType: "engagements", ObjectID: "9", APIVersion: "v1"}},
		{"GET", "/crm-objects/v1/objects/tickets/3", hubspot.Op{ObjectType: "tickets", ObjectID: "3", APIVersion: "v1", Read: true}},
		{"GET", "/crm-objects/v1/x", hubspot.Op{APIVersion: "v1", Read: true}},
		{"GET", "/account-info/v3/details", hubspot.Op{APIVersion: "v3", Read: true}},
		{"POST", "/crm/v3/properties/search", hubspot.Op{ObjectType: "properties", APIVersion: "v3"}},
		{"POST", "/crm/pipelines/2026-03/query", hubspot.Op{ObjectType: "pipelines", APIVersion: "2026-03"}},
		{"POST", "/crm/v3/properties/contacts/batch/read", hubspot.Op{ObjectType: "properties", APIVersion: "v3", Read: true}},
		{"POST", "/cms/v3/source-code/draft/content/search", hubspot.Op{APIVersion: "v3"}},
		{"POST", "/CMS/V3/Source-Code/draft/content/search", hubspot.Op{}},
		{"POST", "/CRM/V3/Properties/search", hubspot.Op{}},
		{"POST", "/cms/source-code/2026-03/published/content/batch/read", hubspot.Op{APIVersion: "2026-03"}},
		{"POST", "/cms/v3/hubdb/tables/7/rows/draft/batch/read", hubspot.Op{APIVersion: "v3", Read: true}},
		{"POST", "/automation/v4/flows", hubspot.Op{APIVersion: "v4"}},
		{"POST", "/search", hubspot.Op{}},
		{"POST", "/v3", hubspot.Op{APIVersion: "v3"}},
		{"GET", "/crm", hubspot.Op{Read: true}},
		{"DELETE", "/nothing/known", hubspot.Op{}},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			target, err := hubspot.ParseTarget(tt.path)
			require.NoError(t, err)
			require.Equal(t, tt.want, hubspot.Classify(tt.method, target))
		})
	}
	require.Equal(t, hubspot.Op{}, hubspot.Classify("POST", hubspot.Target{}), "the zero target")
}

func TestRecordPath(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", "/crm/v3/objects/contacts", "/crm/v3/objects/contacts"},
		{"kept", "/a?limit=10&after=NTI%3D&archived=true&properties=a,b&associations=x&idProperty=email", "/a?limit=10&after=NTI%3D&archived=true&properties=a,b&associations=x&idProperty=email"},
		{"not kept", "/a?q=secret&email=jo%40x.de&limit=1&x=", "/a?q=*&email=*&limit=1&x=*"},
		{"repeated", "/a?properties=a&properties=b&q=1&q=2", "/a?properties=a&properties=b&q=*&q=*"},
		{"bare words", "/a?archived&secret&&", "/a?archived&*&&"},
		{"address as name", "/a?jo@x.de=1&jo%40x.de=1", "/a?*&*"},
		{"address as kept value", "/a?after=jo%2540x.de&properties=a;b@c", "/a?after=*&properties=*"},
		{"another case is another name", "/a?Limit=10&%6Cimit=3", "/a?Limit=*&%6Cimit=*"},
		{"address", "/contacts/v1/contact/email/jo.doe@example.com/profile", "/contacts/v1/contact/email/*@example.com/profile"},
		{"escaped address", "/crm/v3/objects/contacts/jo%2Bx%40example.com", "/crm/v3/objects/contacts/*@example.com"},
		{"address escaped twice", "/c/jo%2540example.com", "/c/*@example.com"},
		{"no address", "/cms/@hubspot/theme", "/cms/@hubspot/theme"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			target, err := hubspot.ParseTarget(tt.in)
			require.NoError(t, err)
			require.Equal(t, tt.want, hubspot.RecordPath(target))
		})
	}
}

func TestRecordRaw(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"token", "/oauth/v1/access-tokens/" + token, "/oauth/v1/access-tokens/pat-na1-***"},
		{"escaped token", "/oauth/%70at" + token[3:] + "/x", "/oauth/pat-na1-***/x"},
		{"token as kept value", "/a?after=" + token, "/a?after=pat-na1-***"},
		{"credential", "/a?hapikey=abc", "/a?hapikey=*"},
		{"control bytes", "/a\r\nb\x1b[2J", `/a\x0d\x0ab\x1b[2J`},
		{"empty", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, hubspot.RecordRaw(tt.in))
		})
	}
	long := make([]byte, 1<<20)
	require.LessOrEqual(t, len(hubspot.RecordRaw(string(long))), hubspot.MaxRecordPath)
}
