package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

func newPolicy(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Show the rules of who may call what, and what they say to a call",
		Example: `hsctl policy
hsctl policy test acme-corp GET /crm/v3/objects/contacts
hsctl policy test --as reports --exe /usr/bin/curl acme-corp DELETE /crm/v3/objects/contacts/1`,
		Long:        `Rules stand in the daemon's config: see hsagentd.toml(5).`,
		Args:        subcommandNeeded,
		Annotations: exits(8),
		RunE:        func(cmd *cobra.Command, _ []string) error { return showPolicy(cmd.Context(), e) },
	}
	cmd.AddCommand(newPolicyTest(e))
	return cmd
}

func showPolicy(ctx context.Context, e *env) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	var p wire.Policy
	if err := c.Do(ctx, http.MethodGet, "/v1/policy", nil, nil, &p); err != nil {
		return err
	}
	return e.emit(p, func() *table {
		t := &table{header: []string{"name", "effect", "callers", "portals", "methods", "paths"}}
		for _, r := range p.Rules {
			t.rows = append(t.rows, []cell{
				text(r.Name), effectCell(r.Effect), text(callersOf(&r)),
				text(anyOf(r.Portals)), text(anyOf(r.Methods)), text(anyOf(r.Paths)),
			})
		}
		return t
	})
}

// callersOf tells whom a rule is about.
func callersOf(r *wire.PolicyRule) string {
	var parts []string
	add := func(what string, names []string) {
		if len(names) > 0 {
			parts = append(parts, what+" "+strings.Join(names, ","))
		}
	}
	add("user", r.Users)
	add("group", r.Groups)
	var exes []string
	for _, x := range r.Exes {
		if x.SHA256 != "" {
			x.Path += " sha256:" + x.SHA256[:min(12, len(x.SHA256))] + "…"
		}
		exes = append(exes, x.Path)
	}
	add("exe", exes)
	add("unit", r.Units)
	if len(parts) == 0 {
		return "any"
	}
	return strings.Join(parts, ", ")
}

func anyOf(list []string) string {
	if len(list) == 0 {
		return "any"
	}
	return strings.Join(list, ",")
}

func effectCell(effect string) cell {
	return cell{effect, map[string]string{"allow": green, "confirm": yellow, "deny": red}[effect]}
}

func newPolicyTest(e *env) *cobra.Command {
	in := &wire.PolicyTest{}
	cmd := &cobra.Command{
		Use:   "test SLUG METHOD PATH",
		Short: "Tell what the policy says to a call, and why; nothing is sent",
		Example: `hsctl policy test acme-corp GET /crm/v3/objects/contacts
hsctl policy test --as reports --exe /usr/bin/curl acme-corp DELETE /crm/v3/objects/contacts/1`,
		Long: `The rule that is named is the one that the record of such a call names. Without
options it is about you; about others only managers may ask. A program or unit
that is not given is one that no rule names.`,
		Args:              positional(3, 3),
		ValidArgsFunction: completeCall(e),
		Annotations:       exits(8),
		RunE:              func(cmd *cobra.Command, args []string) error { return runPolicyTest(cmd.Context(), e, in, args) },
	}
	f := cmd.Flags()
	f.StringVar(&in.User, "as", "", "ask about `USER`, a name or a uid")
	f.StringVar(&in.Exe, "exe", "", "ask about the program at `PATH`")
	f.StringVar(&in.Unit, "unit", "", "ask about a process of the systemd unit `UNIT`")
	return cmd
}

func runPolicyTest(ctx context.Context, e *env, in *wire.PolicyTest, args []string) error {
	slugs, err := parseSlugs(args[:1])
	if err != nil {
		return err
	}
	if in.Method, err = parseMethod(args[1]); err != nil {
		return err
	}
	if in.Path, err = parseTarget(args[2], nil); err != nil {
		return err
	}
	in.Slug = slugs[0].String()
	if in.Exe != "" {
		if err := hashExe(in); err != nil {
			return err
		}
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	var v wire.PolicyVerdict
	if err := c.Do(ctx, http.MethodPost, "/v1/policy/test", nil, in, &v); err != nil {
		return err
	}
	err = e.emit(v, func() *table {
		t := &table{header: []string{"rule", "effect", "matches", "because"}}
		for _, r := range v.Rules {
			matches, because := "yes", ""
			if !r.Matches {
				matches, because = "no", r.Mismatch+" do not match"
			}
			t.rows = append(t.rows, []cell{text(r.Name), effectCell(r.Effect), text(matches), text(because)})
		}
		t.rows = append(t.rows, []cell{text(v.Rule), effectCell(v.Effect), text("verdict"), text(v.Reason)})
		return t
	})
	if err == nil && v.Effect == "deny" {
		return &exitError{wire.ExitDenied, fmt.Errorf("denied: %s", v.Reason)}
	}
	return err
}

// hashExe makes the path that the kernel would name, and adds the digest of the
// file if it can be read here.
func hashExe(in *wire.PolicyTest) error {
	path, err := filepath.Abs(in.Exe)
	if err != nil {
		return fmt.Errorf("--exe: %w", err)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	in.Exe = path
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return usagef("--exe %s is no program", wire.Quote(in.Exe))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil // a program of another machine, or not ours to read: only its path is known
	}
	defer func() { _ = f.Close() }() // only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("--exe: %w", err)
	}
	in.SHA256 = hex.EncodeToString(h.Sum(nil))
	return nil
}
