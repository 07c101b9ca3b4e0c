package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

func TestParseTarget(t *testing.T) {
	tests := []struct {
		name, path string
		query      []string
		want       string // "" is an error
	}{
		{"as it is", "/crm/v3/objects/contacts", nil, "/crm/v3/objects/contacts"},
		{"no slash", "crm/v3", nil, "/crm/v3"},
		{"nothing is cleaned up", "/a//b/%2E%2e/./c?x=%41", nil, "/a//b/%2E%2e/./c?x=%41"},
		{"query", "/a", []string{"q=a b", "q=c&d=e"}, "/a?q=a%20b&q=c%26d%3De"},
		{"query after a query", "/a?x=1", []string{"y=2"}, "/a?x=1&y=2"},
		{"empty value", "/a", []string{"y="}, "/a?y="},
		{"letters outside ASCII in a query", "/a", []string{"q=Müller"}, "/a?q=M%C3%BCller"},
		{"URL in the query", "/a?next=http://x/", nil, "/a?next=http://x/"},
		{"URL", "https://api.hubapi.com/a", nil, ""},
		{"space", "/a b", nil, ""},
		{"line end", "/a\r\nHost: x", nil, ""},
		{"NUL", "/a\x00", nil, ""},
		{"letter outside ASCII", "/ü", nil, ""},
		{"empty", "", nil, ""},
		{"pair without a key", "/a", []string{"=1"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseTarget(tt.path, tt.query)
			if tt.want == "" {
				require.Equal(t, wire.ExitUsage, exitCode(t.Context(), err))
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

func FuzzParseTarget(f *testing.F) {
	f.Add("/crm/v3/objects/contacts?limit=1", "a=b c")
	f.Add("\r\nX: y", "é=\n")
	f.Fuzz(func(t *testing.T, path, pair string) {
		got, err := parseTarget(path, []string{pair})
		if err != nil {
			require.Empty(t, got)
			return
		}
		require.True(t, strings.HasPrefix(got, "/"))
		for i := range len(got) {
			require.True(t, got[i] > ' ' && got[i] < 0x7f, "%q could split the request line", got)
		}
	})
}

func TestFieldsJSON(t *testing.T) {
	tests := []struct {
		name   string
		fields []string
		want   string // "" is an error
	}{
		{"string", []string{"a=b"}, `{"a":"b"}`},
		{"nested", []string{"p.a=1", "p.b=x", "q=y"}, `{"p":{"a":1,"b":"x"},"q":"y"}`},
		{"JSON values", []string{"a=true", "b=null", "c=-1.50", `d=["x"]`, `e={"f":1}`}, `{"a":true,"b":null,"c":-1.50,"d":["x"],"e":{"f":1}}`},
		{"a string of digits", []string{`a="7"`}, `{"a":"7"}`},
		{"long numbers keep their digits", []string{"a=90071992547409931"}, `{"a":90071992547409931}`},
		{"not JSON", []string{"a=007", "b=+49 30", "c=True", "d={x"}, `{"a":"007","b":"+49 30","c":"True","d":"{x"}`},
		{"empty value", []string{"a="}, `{"a":""}`},
		{"value with =", []string{"a=b=c"}, `{"a":"b=c"}`},
		{"no escapes for HTML", []string{"a=<b>&"}, `{"a":"<b>&"}`},
		{"no =", []string{"a"}, ""},
		{"no key", []string{"=a"}, ""},
		{"twice", []string{"a=1", "a=2"}, ""},
		{"below a value", []string{"a=1", "a.b=2"}, ""},
		{"below a JSON object", []string{`a={"c":1}`, "a.b=2"}, ""},
		{"over an object", []string{"a.b=1", "a=2"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := fieldsJSON(tt.fields)
			if tt.want == "" {
				require.Equal(t, wire.ExitUsage, exitCode(t.Context(), err))
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, string(got))
		})
	}
}

func FuzzFieldsJSON(f *testing.F) {
	f.Add("properties.email=x", "properties.age=7")
	f.Add("a=[", "a.b={}")
	f.Fuzz(func(t *testing.T, a, b string) {
		got, err := fieldsJSON([]string{a, b})
		if err == nil {
			require.True(t, json.Valid(got), "%q", got)
		}
	})
}

func TestWithoutAfter(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"no query", "/a", "/a"},
		{"alone", "/a?after=1", "/a"},
		{"among others", "/a?x=%41&after=1&y=2", "/a?x=%41&y=2"},
		{"another name", "/a?afterwards=1", "/a?afterwards=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, withoutAfter(tt.in)) })
	}
}
