package sandbox_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/wire"
)

func serve(s *sandbox.Server, method, path string, token wire.Token) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, nil)
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	w := httptest.NewRecorder()
	s.ServeHTTP(w, req)
	return w
}

func TestListPages(t *testing.T) {
	r := start(t, nil)
	for _, base := range []string{"/crm/v3/objects/contacts", "/crm/objects/2026-03/contacts", "/crm/v3/objects/0-1", "/crm//v3/objects/contacts/"} {
		ids := map[any]bool{}
		path := base + "?limit=10&properties=email"
		pages := 0
		for path != "" {
			res := r.do(acmeToken, "GET", path, "")
			require.Equal(t, 200, res.status)
			pages++
			for _, o := range res.results() {
				o := o.(map[string]any)
				require.False(t, ids[o["id"]], "no object twice")
				ids[o["id"]] = true
				require.IsType(t, "", o["id"])
				require.Contains(t, o["properties"], "email")
			}
			path = ""
			if after, ok := res.get("paging", "next", "after").(string); ok {
				require.Contains(t, res.get("paging", "next", "link"), "after="+after)
				path = base + "?limit=10&properties=email&after=" + after
			}
		}
		require.Equal(t, 3, pages)
		require.Len(t, ids, 25)
	}
	require.Len(t, r.do(acmeToken, "GET", "/crm/v3/objects/companies", "").results(), 10, "the default limit")
}

func TestObjectLife(t *testing.T) {
	r := start(t, nil)
	const base = "/crm/v3/objects/contacts"
	made := r.do(acmeToken, "POST", base, `{"properties":{"email":"Ada@example.com","firstname":"Ada"}}`)
	require.Equal(t, 201, made.status)
	id := made.body["id"].(string)
	require.Contains(t, made.header.Get("Location"), id)

	again := r.do(acmeToken, "POST", base, `{"properties":{"email":"ada@example.com"}}`)
	require.Equal(t, 409, again.status)
	require.Equal(t, "Contact already exists. Existing ID: "+id, again.get("message"))
	require.Equal(t, "CONFLICT", again.get("category"))

	require.Equal(t, id, r.do(acmeToken, "GET", base+"/ada@example.com?idProperty=email", "").get("id"))
	changed := r.do(acmeToken, "PATCH", base+"/"+id, `{"properties":{"firstname":"Ida","annualrevenue":12.5}}`)
	require.Equal(t, 200, changed.status)
	require.Equal(t, "Ida", changed.get("properties", "firstname"))
	require.Equal(t, "12.5", changed.get("properties", "annualrevenue"), "properties are strings")

	require.Equal(t, 404, r.do(gammaToken, "GET", base+"/"+id, "").status, "another portal's object")
	require.Equal(t, 404, r.do(gammaToken, "DELETE", base+"/"+id, "").status)
	gone := r.do(acmeToken, "DELETE", base+"/"+id, "")
	require.Equal(t, 204, gone.status)
	require.Empty(t, gone.raw)
	lost := r.do(acmeToken, "GET", base+"/"+id, "")
	require.Equal(t, 404, lost.status)
	require.Equal(t, "OBJECT_NOT_FOUND", lost.get("category"))
	require.Equal(t, true, r.do(acmeToken, "GET", base+"/"+id+"?archived=true", "").get("archived"))
	require.Len(t, r.do(acmeToken, "GET", base+"?archived=true", "").results(), 1)
	require.Equal(t, 25, r.Objects(acme, "contacts"))
}

func TestRefusals(t *testing.T) {
	r := start(t, func(p *sandbox.Portal) {
		p.Scopes = []string{"crm.objects.contacts.read", "crm.objects.contacts.write"}
	})
	tests := []struct {
		name, method, path, body string
		status                   int
		contains                 string
	}{
		{"bad email", "POST", "/crm/v3/objects/contacts", `{"properties":{"email":"nobody"}}`, 400, `INVALID_EMAIL`},
		{"names the portal", "POST", "/crm/v3/objects/contacts", `{"properties":{"email":"nobody"}}`, 400, `\"portalId\":12345678`},
		{"unknown property", "POST", "/crm/v3/objects/contacts", `{"properties":{"nope":"x"}}`, 400, `PROPERTY_DOESNT_EXIST`},
		{"not JSON", "POST", "/crm/v3/objects/contacts", `{`, 400, `VALIDATION_ERROR`},
		{"limit too large", "GET", "/crm/v3/objects/contacts?limit=101", "", 400, `VALIDATION_ERROR`},
		{"bad cursor", "GET", "/crm/v3/objects/contacts?after=x", "", 400, `VALIDATION_ERROR`},
		{"unknown type", "GET", "/crm/v3/objects/ghosts", "", 400, `Unable to infer object type`},
		{"unknown path", "GET", "/crm/v3/ghosts", "", 404, `resource not found`},
		{"no scope", "GET", "/crm/v3/objects/deals", "", 403, `"requiredGranularScopes":["crm.objects.deals.read"]`},
		{"no scope to write", "POST", "/crm/v3/objects/tickets", `{}`, 403, `crm.objects.tickets.write`},
		{"wrong method", "PUT", "/crm/v3/objects/contacts", `{}`, 405, `error`},
		{"search limit", "POST", "/crm/v3/objects/contacts/search", `{"limit":201}`, 400, `VALIDATION_ERROR`},
		{"search depth", "POST", "/crm/v3/objects/contacts/search", `{"after":"9999"}`, 400, `10000`},
		{"search length", "POST", "/crm/v3/objects/contacts/search", `{"query":"` + strings.Repeat("x", 3000) + `"}`, 400, `3000`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := r.do(acmeToken, tt.method, tt.path, tt.body)
			require.Equal(t, tt.status, res.status, string(res.raw))
			require.Contains(t, string(res.raw), tt.contains)
			require.Equal(t, res.get("correlationId"), res.header.Get("X-HubSpot-Correlation-Id"))
		})
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", r.url+"/crm/v3/objects/contacts", strings.NewReader("a=b"))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+acmeToken.Reveal())
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := r.send(req)
	require.NoError(t, err)
	require.Equal(t, 415, res.status)
}

func TestSearch(t *testing.T) {
	r := start(t, func(p *sandbox.Portal) { p.Deals, p.SearchLimit = -1, -1 })
	var ids []string
	for i, name := range []string{"Blue door", "Red door", "Blue roof", "plain"} {
		body := fmt.Sprintf(`{"properties":{"dealname":%q,"amount":"%d"}}`, name, (i+1)*9)
		res := r.do(acmeToken, "POST", "/crm/v3/objects/deals", body)
		require.Equal(t, 201, res.status)
		ids = append(ids, res.body["id"].(string))
	}
	require.Equal(t, 200, r.do(acmeToken, "PATCH", "/crm/v3/objects/deals/"+ids[0], `{"properties":{"dealtype":"newbusiness"}}`).status)
	one := func(filter string) string { return `{"filterGroups":[{"filters":[` + filter + `]}]}` }
	tests := []struct {
		name, body string
		want       []string
	}{
		{"everything", `{}`, []string{"Blue door", "Red door", "Blue roof", "plain"}},
		{"EQ", one(`{"propertyName":"dealname","operator":"EQ","value":"red door"}`), []string{"Red door"}},
		{"NEQ", one(`{"propertyName":"dealname","operator":"NEQ","value":"plain"}`), []string{"Blue door", "Red door", "Blue roof"}},
		{"CONTAINS_TOKEN", one(`{"propertyName":"dealname","operator":"CONTAINS_TOKEN","value":"blue"}`), []string{"Blue door", "Blue roof"}},
		{"part of a word", one(`{"propertyName":"dealname","operator":"CONTAINS_TOKEN","value":"pl*"}`), []string{"plain"}},
		{"GT is numeric", one(`{"propertyName":"amount","operator":"GT","value":"9"}`), []string{"Red door", "Blue roof", "plain"}},
		{"LT", one(`{"propertyName":"amount","operator":"LT","value":18}`), []string{"Blue door"}},
		{"HAS_PROPERTY", one(`{"propertyName":"dealtype","operator":"HAS_PROPERTY"}`), []string{"Blue door"}},
		{"IN", one(`{"propertyName":"amount","operator":"IN","values":["9","36"]}`), []string{"Blue door", "plain"}},
		{"and", one(`{"propertyName":"amount","operator":"GT","value":"9"},{"propertyName":"amount","operator":"LT","value":"36"}`), []string{"Red door", "Blue roof"}},
		{
			"or", `{"filterGroups":[{"filters":[{"propertyName":"amount","operator":"EQ","value":"9"}]},{"filters":[{"propertyName":"amount","operator":"EQ","value":"27"}]}]}`,
			[]string{"Blue door", "Blue roof"},
		},
		{"sorted", `{"sorts":[{"propertyName":"amount","direction":"DESCENDING"}]}`, []string{"plain", "Blue roof", "Red door", "Blue door"}},
		{"query", `{"query":"ROOF"}`, []string{"Blue roof"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := r.do(acmeToken, "POST", "/crm/v3/objects/deals/search", tt.body)
			require.Equal(t, 200, res.status, string(res.raw))
			var names []string
			for _, o := range res.results() {
				names = append(names, o.(map[string]any)["properties"].(map[string]any)["dealname"].(string))
			}
			require.Equal(t, tt.want, names)
			require.Equal(t, float64(len(tt.want)), res.get("total"))
			for name := range res.header {
				require.NotContains(t, name, "Ratelimit")
			}
		})
	}
	page := r.do(acmeToken, "POST", "/crm/objects/2026-03/deals/search", `{"limit":3}`)
	require.Equal(t, "3", page.get("paging", "next", "after"))
	page = r.do(acmeToken, "POST", "/crm/objects/2026-03/deals/search", `{"limit":3,"after":"3"}`)
	require.Len(t, page.results(), 1)
	require.Nil(t, page.get("paging"))
}

func TestBatch(t *testing.T) {
	r := start(t, nil)
	const base = "/crm/v3/objects/contacts/batch/"
	made := r.do(acmeToken, "POST", base+"create", `{"inputs":[{"properties":{"email":"a@example.com"}},{"properties":{"email":"b@example.com"}}]}`)
	require.Equal(t, 201, made.status)
	require.Equal(t, "COMPLETE", made.get("status"))
	id := made.results()[0].(map[string]any)["id"].(string)

	whole := r.do(acmeToken, "POST", base+"create", `{"inputs":[{"properties":{"email":"c@example.com"}},{"properties":{"email":"a@example.com"}}]}`)
	require.Equal(t, 409, whole.status)
	require.Equal(t, 27, r.Objects(acme, "contacts"), "nothing of it was made")
	part := r.do(acmeToken, "POST", base+"create",
		`{"inputs":[{"objectWriteTraceId":"1","properties":{"email":"c@example.com"}},{"objectWriteTraceId":"2","properties":{"email":"a@example.com"}}]}`)
	require.Equal(t, 207, part.status)
	require.Equal(t, 1.0, part.get("numErrors"))
	require.Len(t, part.results(), 1)

	require.Equal(t, 200, r.do(acmeToken, "POST", base+"read", `{"inputs":[{"id":"`+id+`"}]}`).status)
	require.Equal(t, 200, r.do(acmeToken, "POST", base+"read", `{"idProperty":"email","inputs":[{"id":"b@example.com"}]}`).status)
	missing := r.do(acmeToken, "POST", base+"read", `{"inputs":[{"id":"`+id+`"},{"id":"1"}]}`)
	require.Equal(t, 207, missing.status)
	require.Contains(t, string(missing.raw), `"ids":["1"]`)
	require.Equal(t, 207, r.do(gammaToken, "POST", base+"read", `{"inputs":[{"id":"`+id+`"}]}`).status, "another portal's object")

	require.Equal(t, 200, r.do(acmeToken, "POST", base+"update", `{"inputs":[{"id":"`+id+`","properties":{"city":"Lyon"}}]}`).status)
	bad := r.do(acmeToken, "POST", base+"update", `{"inputs":[{"id":"`+id+`","properties":{"email":"x"}}]}`)
	require.Equal(t, 207, bad.status)
	up := r.do(acmeToken, "POST", base+"upsert", `{"inputs":[{"id":"new@example.com","idProperty":"email","properties":{"city":"Rome"}},{"id":"a@example.com","idProperty":"email"}]}`)
	require.Equal(t, 200, up.status)
	require.Equal(t, true, up.results()[0].(map[string]any)["new"])
	require.Equal(t, false, up.results()[1].(map[string]any)["new"])
	require.Equal(t, 204, r.do(acmeToken, "POST", base+"archive", `{"inputs":[{"id":"`+id+`"}]}`).status)
	require.Equal(t, 400, r.do(acmeToken, "POST", base+"read", `{"inputs":[]}`).status)
}

func TestMergeAndAssociations(t *testing.T) {
	r := start(t, nil)
	list := r.do(acmeToken, "GET", "/crm/v3/objects/contacts?limit=2&associations=companies", "").results()
	one, two := list[0].(map[string]any), list[1].(map[string]any)
	id1, id2 := one["id"].(string), two["id"].(string)
	require.Contains(t, one["associations"], "companies")

	v3 := r.do(acmeToken, "GET", "/crm/v3/objects/contacts/"+id1+"/associations/companies", "")
	require.Equal(t, "contact_to_company", v3.results()[0].(map[string]any)["type"])
	v4 := r.do(acmeToken, "GET", "/crm/v4/objects/contacts/"+id1+"/associations/companies", "")
	require.IsType(t, 1.0, v4.results()[0].(map[string]any)["toObjectId"])

	merged := r.do(acmeToken, "POST", "/crm/v3/objects/contacts/merge", `{"primaryObjectId":"`+id1+`","objectIdToMerge":"`+id2+`"}`)
	require.Equal(t, 200, merged.status)
	require.Equal(t, id2, merged.get("properties", "hs_merged_object_ids"))
	require.Equal(t, 404, r.do(acmeToken, "GET", "/crm/v3/objects/contacts/"+id2, "").status)
	require.Equal(t, 204, r.do(acmeToken, "POST", "/crm/v3/objects/contacts/gdpr-delete", `{"objectId":"`+id1+`"}`).status)
	require.Equal(t, 23, r.Objects(acme, "contacts"))
	require.Len(t, r.do(acmeToken, "GET", "/crm/v3/owners", "").results(), 2)
}

func TestUpload(t *testing.T) {
	r := start(t, nil)
	var form bytes.Buffer
	mw := multipart.NewWriter(&form)
	part, err := mw.CreateFormFile("file", "plan.pdf")
	require.NoError(t, err)
	_, err = part.Write(bytes.Repeat([]byte("x"), 1<<20))
	require.NoError(t, err)
	require.NoError(t, mw.Close())
	size := int64(form.Len())

	req, err := http.NewRequestWithContext(t.Context(), "POST", r.url+"/files/v3/files", io.NopCloser(&form))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+acmeToken.Reveal())
	req.Header.Set("Content-Type", mw.FormDataContentType())
	res, err := r.send(req) // chunked: the length is not known
	require.NoError(t, err)
	require.Equal(t, 201, res.status, string(res.raw))
	require.Equal(t, float64(1<<20), res.get("size"))
	require.Equal(t, "pdf", res.get("extension"))
	require.Equal(t, size, r.Requests()[0].BodyBytes)
}

func TestGzip(t *testing.T) {
	r := start(t, nil)
	get := func(path string) result {
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+path, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+acmeToken.Reveal())
		req.Header.Set("Accept-Encoding", "gzip")
		res, err := r.send(req)
		require.NoError(t, err)
		return res
	}
	require.Empty(t, get("/account-info/v3/details").header.Get("Content-Encoding"), "small answers go as they are")
	res := get("/crm/v3/objects/contacts?limit=20")
	require.Equal(t, "gzip", res.header.Get("Content-Encoding"))
	zr, err := gzip.NewReader(bytes.NewReader(res.raw))
	require.NoError(t, err)
	plain, err := io.ReadAll(zr)
	require.NoError(t, err)
	require.True(t, json.Valid(plain))
}

func TestTogether(t *testing.T) {
	r := start(t, func(p *sandbox.Portal) { p.BurstLimit, p.SearchLimit = -1, -1 })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 25 {
				email := fmt.Sprintf("w%d-%d@example.com", i, j)
				_, _ = r.try(acmeToken, "POST", "/crm/v3/objects/contacts", `{"properties":{"email":"`+email+`"}}`)
				_, _ = r.try(acmeToken, "POST", "/crm/v3/objects/contacts/search", `{"query":"`+email+`"}`)
				r.Count()
				r.Requests()
			}
		})
	}
	wg.Wait()
	require.Equal(t, 225, r.Objects(acme, "contacts"))
	require.Equal(t, sandbox.Tally{Arrivals: 400, OK: 400}, r.Count().ByPortal[acme])
}

func BenchmarkList(b *testing.B) {
	s := sandbox.New(sandbox.Config{KeepRequests: -1, Portals: []sandbox.Portal{{ID: acme, Token: acmeToken, BurstLimit: -1, DailyLimit: -1}}})
	b.ReportAllocs()
	for b.Loop() {
		serve(s, "GET", "/crm/v3/objects/contacts?limit=3", acmeToken)
	}
}
