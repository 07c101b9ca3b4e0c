package docs_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/modfile"
)

// Every module that is linked is listed with the licence that its folder has.
func TestThreat63Licences(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}", "../cmd/hsagentd", "../cmd/hsctl").Output()
	require.NoError(t, err)
	linked := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if path, dir, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			linked[path] = dir
		}
	}
	marks := map[string]string{
		"Apache-2.0": "Apache License", "MIT": "Permission is hereby granted, free of charge",
		"BSD-3-Clause": "Redistribution and use in source and binary forms",
	}
	listed := map[string]bool{}
	for _, row := range table(t, "licences.md", "## Modules") {
		path := codeSpans(row[0])[0]
		listed[path] = true
		dir, ok := linked[path]
		require.True(t, ok, "%s is listed and not linked", path)
		files, err := filepath.Glob(filepath.Join(dir, "LICENSE*"))
		require.NoError(t, err)
		require.NotEmpty(t, files, "%s has no licence", path)
		require.NotEmpty(t, marks[row[1]], "%s: licence %s needs a judgement", path, row[1])
		require.Contains(t, read(t, files[0]), marks[row[1]], path)
	}
	for path := range linked {
		require.True(t, listed[path], "docs/licences.md lacks %s", path)
	}
}

// Every module that is required by name has its reason in the record of that
// decision, and the record names no other.
func TestThreat63Dependencies(t *testing.T) {
	mod, err := modfile.Parse("go.mod", []byte(read(t, "../go.mod")), nil)
	require.NoError(t, err)
	var direct, reasoned []string
	for _, r := range mod.Require {
		if !r.Indirect {
			direct = append(direct, strings.TrimPrefix(r.Mod.Path, "github.com/"))
		}
	}
	for _, row := range table(t, "adr/0005-dependencies.md", "## Decision") {
		require.NotEmpty(t, row[2], row[0])
		for path := range strings.SplitSeq(row[0], ", ") {
			if !strings.Contains(path, "/") {
				path += "/" + path // fsnotify's owner has its name
			}
			reasoned = append(reasoned, path)
		}
	}
	require.ElementsMatch(t, direct, reasoned)
}
