package main_test

import (
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Two builds in different folders give the same bytes.
func TestThreat63ReproducibleBuild(t *testing.T) {
	var sums []string
	for range 2 {
		dir := filepath.Join(t.TempDir(), "source")
		copySource(t, "../..", dir)
		cmd := exec.Command("make", "build", "VERSION=v0.0.0-test")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		for _, name := range []string{"hsagentd", "hsctl"} {
			b, err := os.ReadFile(filepath.Join(dir, "bin", name))
			require.NoError(t, err)
			require.NotContains(t, string(b), dir, "a path of the build is in %s", name)
			sums = append(sums, fmt.Sprintf("%s %x", name, sha256.Sum256(b)))
		}
	}
	require.Equal(t, sums[:2], sums[2:])
}

// What would show the memory or the stacks of a program to who asks is not in it.
func TestThreat62NoProfiler(t *testing.T) {
	list := exec.Command("go", "list", "-deps", ".", "../hsctl")
	list.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := list.Output()
	require.NoError(t, err)
	linked := strings.Fields(string(out))
	require.Contains(t, linked, "net/http", "the list is one")
	for _, bad := range []string{"net/http/pprof", "runtime/pprof", "golang.org/x/net/trace"} {
		require.NotContains(t, linked, bad)
	}
}

// The daemon loads no library, and nothing in it can run another program but the
// demo, which runs what the user types.
func TestThreat33RunsNothingElse(t *testing.T) {
	program := filepath.Join(t.TempDir(), "hsagentd")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	f, err := elf.Open(program)
	require.NoError(t, err)
	defer f.Close()
	for _, p := range f.Progs {
		require.NotContains(t, []elf.ProgType{elf.PT_INTERP, elf.PT_DYNAMIC}, p.Type, "it is not static")
	}

	list := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{$p := .}}{{range .GoFiles}}{{$p.Dir}}/{{.}}\n{{end}}{{end}}", ".")
	list.Env = build.Env
	out, err = list.Output()
	require.NoError(t, err)
	var who []string
	for line := range strings.Lines(string(out)) {
		name := strings.TrimSpace(line)
		if name == "" || strings.Contains(name, "golang.org/x/sys@") { // which has every system call, and uses none
			continue
		}
		src, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(src, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ImportSpec:
				if n.Path.Value == `"os/exec"` || n.Path.Value == `"plugin"` {
					who = append(who, filepath.Base(name))
				}
			case *ast.SelectorExpr:
				if slices.Contains([]string{"StartProcess", "ForkExec", "Exec"}, n.Sel.Name) && isPackage(n.X, "os", "syscall", "unix") {
					who = append(who, filepath.Base(name)+": "+n.Sel.Name)
				}
			}
			return true
		})
	}
	require.Equal(t, []string{"demo.go"}, who)
}

func isPackage(x ast.Expr, names ...string) bool {
	id, ok := x.(*ast.Ident)
	return ok && slices.Contains(names, id.Name)
}

// copySource copies what a build reads.
func copySource(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if rel == ".git" || rel == "bin" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		if !e.Type().IsRegular() || rel == ".git" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	}))
}
