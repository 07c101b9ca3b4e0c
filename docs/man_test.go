package docs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var programs string // where TestMain built hsagentd and hsctl

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if err := buildPrograms(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(programs) }() // best effort at the end of the tests
		return m.Run()
	}())
}

func buildPrograms() (err error) {
	// Not $TMPDIR, which may be long: sockets live below it. Others may look
	// in, for the tests that run as another user.
	if programs, err = os.MkdirTemp("/tmp", "hs"); err != nil {
		return err
	}
	if err := os.Chmod(programs, 0o755); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-o", programs, "../cmd/hsagentd", "../cmd/hsctl")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

var (
	helpFlag    = regexp.MustCompile(`(?m)^ +(?:-(\w), )?--([a-z-]+)`)
	helpCommand = regexp.MustCompile(`(?m)^  ([a-z]+) +\S`)
	manFlag     = regexp.MustCompile(`\bFl -([a-z][a-z-]*)`)
	manShort    = regexp.MustCompile(`\bFl (\w)\b`)
)

// Every command of hsctl has its part of the manual page, with exactly its
// flags; flags of all commands stand at the front.
func TestHsctlManual(t *testing.T) {
	page := read(t, "../packaging/man/hsctl.1")
	front, rest, ok := strings.Cut(page, "\n.Sh COMMANDS\n")
	require.True(t, ok)
	rest, _, ok = strings.Cut(rest, "\n.Sh ")
	require.True(t, ok)
	parts := map[string]string{}
	for _, part := range strings.Split("\n"+rest, "\n.Ss ")[1:] {
		title, text, _ := strings.Cut(part, "\n")
		var words []string
		for _, w := range strings.Fields(title) {
			if w == strings.ToLower(w) && w != "..." {
				words = append(words, w)
			}
		}
		parts[strings.Join(words, " ")] = text
	}

	global := flagsOf(front)
	own := flagsOf(section(hsctlHelp(t), "OPTIONS"))
	require.Subset(t, global, append(own, flagsOf(section(hsctlHelp(t), "GLOBAL OPTIONS"))...))
	var seen []string
	var visit func(path []string)
	visit = func(path []string) {
		help := hsctlHelp(t, path...)
		name := strings.Join(path, " ")
		if len(path) > 0 {
			seen = append(seen, name)
			require.Contains(t, parts, name, "hsctl.1 has no .Ss %s", name)
			want := slices.DeleteFunc(flagsOf(section(help, "OPTIONS")), func(f string) bool { return f == "help" || f == "h" })
			require.ElementsMatch(t, want, flagsOf(parts[name]), "the flags of hsctl %s", name)
		}
		for _, m := range helpCommand.FindAllStringSubmatch(section(help, "COMMANDS"), -1) {
			visit(append(slices.Clone(path), m[1]))
		}
	}
	visit(nil)
	for name := range parts {
		require.Contains(t, seen, name, "hsctl.1 has a command that hsctl has not")
	}
}

func hsctlHelp(t *testing.T, path ...string) string { return help(t, "hsctl", path...) }

func help(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), filepath.Join(programs, program), append(args, "--help")...).Output()
	require.NoError(t, err)
	return string(out)
}

// section is the part of a help text under a heading.
func section(text, heading string) string {
	_, after, ok := strings.Cut(text, "\n"+heading+"\n")
	if !ok {
		return ""
	}
	before, _, _ := strings.Cut(after, "\n\n")
	return before
}

// flagsOf lists the flags in a help text or in the list of a manual page, long
// and short ones.
func flagsOf(text string) []string {
	var out []string
	add := func(names ...string) {
		for _, f := range names {
			if f != "" && !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
	}
	for _, m := range helpFlag.FindAllStringSubmatch(text, -1) {
		add(m[1], m[2])
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, ".It Fl ") {
			continue
		}
		for _, m := range manFlag.FindAllStringSubmatch(line, -1) {
			add(m[1])
		}
		for _, m := range manShort.FindAllStringSubmatch(line, -1) {
			add(m[1])
		}
	}
	return out
}

func TestHsagentdManual(t *testing.T) {
	want := flagsOf(help(t, "hsagentd"))
	for _, verb := range []string{"init", "check", "demo"} {
		for _, f := range flagsOf(help(t, "hsagentd", verb)) {
			if !slices.Contains(want, f) {
				want = append(want, f)
			}
		}
	}
	require.ElementsMatch(t, want, flagsOf(read(t, "../packaging/man/hsagentd.8")))
}

var tomlTag = regexp.MustCompile("`toml:\"([a-z_]+)\"[` ]")

// The keys of the config are those that the program reads, in the manual page
// and in the file that init writes.
func TestConfigManual(t *testing.T) {
	keys := func(path, expr string) []string {
		var out []string
		for _, m := range regexp.MustCompile(expr).FindAllStringSubmatch(read(t, path), -1) {
			if !slices.Contains(out, m[1]) { // a table of an example may stand twice
				out = append(out, m[1])
			}
		}
		return out
	}
	var want []string
	rule, _, _ := strings.Cut(read(t, "../wire/policy.go"), "type PolicyExe")
	for _, m := range tomlTag.FindAllStringSubmatch(read(t, "../cmd/hsagentd/config.go")+rule, -1) {
		table := slices.Contains([]string{"upstream", "quota", "audit", "consumer", "rule"}, m[1])
		if !table && !slices.Contains(want, m[1]) {
			want = append(want, m[1])
		}
	}
	require.NotEmpty(t, want)
	require.ElementsMatch(t, want, keys("../packaging/man/hsagentd.toml.5", `(?m)^\.It Ic ([a-z_]+)$`))
	require.ElementsMatch(t, want, keys("../cmd/hsagentd/config.toml", `(?m)^#([a-z_]+) = `))
}

// run runs a command, whose output goes to a file so that what it leaves in
// the background does not keep us.
func run(ctx context.Context, t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Start())
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // it may have ended
	defer stop()
	werr := cmd.Wait()
	text := read(t, out.Name())
	require.NoError(t, errors.Join(werr, out.Close()), text)
	return text
}
