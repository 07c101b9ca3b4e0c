// Package docs_test keeps the documentation honest: what it lists is compared
// with the code, and what it says to type is typed.
package docs_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

func TestRecordFields(t *testing.T) {
	var want []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[chain.Record]()) {
		want = append(want, jsonName(f))
	}
	require.Equal(t, want, firstColumn(t, "audit-records.md", "## Fields"))

	want = nil
	for _, f := range reflect.VisibleFields(reflect.TypeFor[chain.Caller]()) {
		want = append(want, jsonName(f))
	}
	require.ElementsMatch(t, want, firstColumn(t, "audit-records.md", "### The caller"))
}

func TestRecordKinds(t *testing.T) {
	want := constants(t, "../auditstore/chain/record.go", "Kind")
	require.Equal(t, want, firstColumn(t, "audit-records.md", "## Kinds"))
	var kinds []string
	for _, k := range chain.Kinds() {
		kinds = append(kinds, string(k))
	}
	require.Equal(t, want, kinds)
}

func TestErrorCodes(t *testing.T) {
	var want []string
	for _, v := range constants(t, "../wire/errors.go", "Code") {
		if v != "client_abort" && v != "leak_masked" { // of records only
			want = append(want, v)
		}
	}
	require.ElementsMatch(t, want, firstColumn(t, "api.md", "## Errors"))
}

func TestRoutes(t *testing.T) {
	var want []string
	routes := regexp.MustCompile(`\{http\.Method(\w+), "(/[^"]*)"`)
	for _, m := range routes.FindAllStringSubmatch(read(t, "../agent/api.go"), -1) {
		want = append(want, strings.ToUpper(m[1])+" "+m[2])
	}
	require.NotEmpty(t, want)
	require.ElementsMatch(t, want, firstColumn(t, "api.md", "## Requests"))
}

// The OpenAPI document has every request of the table of routes, and calls; and
// every code with its status.
func TestOpenAPI(t *testing.T) {
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			For         string `json:"x-for"`
			Responses   map[string]json.RawMessage
		}
		Components struct {
			Schemas struct {
				Code struct {
					Enum   []string
					Status map[string]int `json:"x-status"`
				}
			}
		}
	}
	text := read(t, "../agent/openapi.json")
	require.NoError(t, json.Unmarshal([]byte(text), &doc))
	require.Equal(t, "3.1.0", doc.OpenAPI)
	var got []string
	ids := map[string]bool{}
	for path, ops := range doc.Paths {
		for method, op := range ops {
			require.NotEmpty(t, op.OperationID, path)
			require.False(t, ids[op.OperationID], "two operations are called %s", op.OperationID)
			ids[op.OperationID] = true
			require.Contains(t, op.Responses, "default", "%s %s: errors are not described", method, path)
			got = append(got, strings.ToUpper(method)+" "+path+" "+op.For)
		}
	}
	var want []string
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		want = append(want, m+" /v1/call/{slug}/{path} all")
	}
	routes := regexp.MustCompile(`\{http\.Method(\w+), "(/[^"]*)", (true|false)`)
	for _, m := range routes.FindAllStringSubmatch(read(t, "../agent/api.go"), -1) {
		who := map[string]string{"true": "managers", "false": "all"}[m[3]]
		want = append(want, strings.ToUpper(m[1])+" "+m[2]+" "+who)
	}
	require.ElementsMatch(t, want, got, "agent/openapi.json and the table of routes in agent/api.go differ")

	var codes []string
	for _, c := range constants(t, "../wire/errors.go", "Code") {
		if c != "client_abort" && c != "leak_masked" { // of records only
			codes = append(codes, c)
			require.Equal(t, wire.Code(c).Status(), doc.Components.Schemas.Code.Status[c], c)
		}
	}
	require.ElementsMatch(t, codes, doc.Components.Schemas.Code.Enum)
	for _, m := range regexp.MustCompile(`"\$ref": "#/([^"]+)"`).FindAllStringSubmatch(text, -1) {
		require.True(t, within(t, []byte(text), strings.Split(m[1], "/")), "agent/openapi.json refers to %s", m[1])
	}
}

// within reports whether a JSON document has something at the path.
func within(t *testing.T, doc []byte, path []string) bool {
	t.Helper()
	if len(path) == 0 {
		return true
	}
	var object map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(doc, &object))
	next, ok := object[path[0]]
	return ok && within(t, next, path[1:])
}

func TestExitCodes(t *testing.T) {
	var want []string
	exits := regexp.MustCompile(`(?m)^\tExit\w+ += (\d+)$`)
	for _, m := range exits.FindAllStringSubmatch(read(t, "../wire/errors.go"), -1) {
		want = append(want, m[1])
	}
	require.NotEmpty(t, want)
	require.Equal(t, want, firstColumn(t, "../README.md", "## Exit codes of hsctl"))
	require.Equal(t, want, firstColumn(t, "operations.md", "### By exit code"))
}

// A test that proves a threat is named TestThreat and the number of its row, or
// TestFault if it breaks the machine.
func TestTableOfThreats(t *testing.T) {
	defined := map[string]bool{}
	fn := regexp.MustCompile(`(?m)^func (Test(?:Threat|Fault)\w+)\(t \*testing\.T\)`)
	walk(t, "..", "_test.go", func(_, text string) {
		for _, m := range fn.FindAllStringSubmatch(text, -1) {
			defined[m[1]] = true
		}
	})
	number := regexp.MustCompile(`^TestThreat(\d+)(?:And(\d+))?`)
	listed := map[string]bool{}
	last := 0
	for _, row := range table(t, "threat-model.md", "## Threats, and the test of each") {
		n, err := strconv.Atoi(row[0])
		require.NoError(t, err)
		require.Greater(t, n, last, "rows are in order")
		last = n
		names := codeSpans(row[3])
		if len(names) == 0 {
			require.Equal(t, "*open*", row[3], "row %d", n)
		}
		for _, name := range names {
			require.True(t, defined[name], "row %d names %s, and no such test exists", n, name)
			if strings.HasPrefix(name, "TestFault") {
				continue
			}
			m := number.FindStringSubmatch(name)
			require.NotNil(t, m, name)
			require.Contains(t, []int{atoi(m[1]), atoi(m[2])}, n, "%s stands in row %d", name, n)
			listed[name] = true
		}
	}
	for name := range defined {
		require.True(t, listed[name] || strings.HasPrefix(name, "TestFault"), "docs/threat-model.md does not list %s: add it to its row", name)
	}
}

var link = regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`)

// Links to files of the repository lead somewhere, to headings too.
func TestLinks(t *testing.T) {
	walk(t, "..", ".md", func(path, text string) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			to := path
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(path), m[1])
			}
			_, err := os.Stat(to)
			require.NoError(t, err, "%s links to %s", path, m[1])
			if m[2] != "" {
				require.Contains(t, anchors(read(t, to)), m[2], "%s links to %s%s", path, m[1], m[2])
			}
		}
	})
}

func anchors(text string) []string {
	var out []string
	odd := regexp.MustCompile(`[^a-z0-9 _-]`)
	for line := range strings.Lines(text) {
		if h, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			h = odd.ReplaceAllString(strings.ToLower(strings.TrimSpace(h)), "")
			out = append(out, "#"+strings.ReplaceAll(h, " ", "-"))
		}
	}
	return out
}

// Decisions are short, or nobody reads them.
func TestDecisionsAreShort(t *testing.T) {
	files, err := filepath.Glob("adr/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		text := read(t, f)
		require.LessOrEqual(t, strings.Count(text, "\n"), 60, f)
		for _, h := range []string{"## Context", "## Decision", "## Consequences", "## Alternatives refused"} {
			require.Contains(t, text, h, f)
		}
	}
}

// walk calls fn with every file below dir whose name ends so.
func walk(t *testing.T, dir, end string, fn func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, end):
			fn(path, read(t, path))
		}
		return nil
	})
	require.NoError(t, err)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// table returns the cells of the first table behind the heading.
func table(t *testing.T, path, heading string) [][]string {
	t.Helper()
	_, text, ok := strings.Cut(read(t, path), "\n"+heading+"\n")
	require.True(t, ok, "%s has no %q", path, heading)
	var rows [][]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if rows != nil {
				break
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	require.Greater(t, len(rows), 2, "%s: %q has no table", path, heading)
	return rows[2:] // without the heads and the line below them
}

// firstColumn returns what stands in the first cells of a table: the texts in
// backquotes, or the bare text where there are none.
func firstColumn(t *testing.T, path, heading string) []string {
	t.Helper()
	var out []string
	for _, row := range table(t, path, heading) {
		if names := codeSpans(row[0]); names != nil {
			out = append(out, names...)
		} else {
			out = append(out, row[0])
		}
	}
	return out
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

func codeSpans(s string) []string {
	var out []string
	for _, m := range codeSpan.FindAllStringSubmatch(s, -1) {
		out = append(out, m[1])
	}
	return out
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// constants returns the values of a file's string constants of the named type.
func constants(t *testing.T, path, typ string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	require.NoError(t, err)
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := v.Type.(*ast.Ident); ok && id.Name == typ {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			out = append(out, s)
		}
		return true
	})
	require.NotEmpty(t, out)
	return out
}

// atoi is 0 for a group that did not match.
func atoi(s string) int {
	n, _ := strconv.Atoi(s) // the expression matched digits or nothing
	return n
}
