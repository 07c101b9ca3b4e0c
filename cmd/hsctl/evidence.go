package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// maxNote bounds what a checkpoint or a key may be.
const maxNote = 64 << 10

func newAuditCheckpoint(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "checkpoint",
		Short: "Print a signed checkpoint of the log",
		Example: `hsctl audit checkpoint
hsctl audit checkpoint | ssh backup 'cat >> checkpoints'`,
		Long: `The checkpoint is a signed note (C2SP tlog-checkpoint): the log's name, its size
and its root hash. Kept where nobody who can write the log can change it, it
shows that all records up to it are still there and unchanged.`,
		Args:        positional(0, 0),
		Annotations: exits(8, 12),
		RunE:        func(cmd *cobra.Command, _ []string) error { return printText(cmd.Context(), e, "/v1/audit/checkpoint") },
	}
}

func newAuditKey(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "key",
		Short:   "Print the key that verifies checkpoints and exports",
		Example: `hsctl audit key > acme-audit.pub`,
		Long: `The key is public, in the form of signed notes: name+hash+base64. Give it to
whoever is to verify an export; they must get it from you, not with the export.`,
		Args:        positional(0, 0),
		Annotations: exits(8, 12),
		RunE:        func(cmd *cobra.Command, _ []string) error { return printText(cmd.Context(), e, "/v1/audit/key") },
	}
}

func newAuditProve(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "prove SEQ",
		Short: "Prove that a record is in the log",
		Example: `hsctl audit prove 4711
hsctl audit prove 4711 -o json > proof.json`,
		Long: `The proof is the record as stored, its salt, the hashes from its leaf to the root,
and a signed checkpoint. It is checked here with the agent's key before it is
printed; the exit code is 13 if it does not hold.`,
		Args:        positional(1, 1),
		Annotations: exits(8, 12, 13),
		RunE:        func(cmd *cobra.Command, args []string) error { return runAuditProve(cmd.Context(), e, args[0]) },
	}
}

func runAuditProve(ctx context.Context, e *env, arg string) error {
	seq, err := strconv.ParseUint(arg, 10, 63)
	if err != nil {
		return usagef("%s is no record's number", wire.Quote(arg))
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	key, err := fetchText(ctx, c, "/v1/audit/key")
	if err != nil {
		return err
	}
	known, err := chain.ParseVerifiers(key)
	if err != nil {
		return fmt.Errorf("the agent's key: %w", err)
	}
	p := &chain.Proof{}
	if err := c.Do(ctx, http.MethodGet, "/v1/audit/proof/"+strconv.FormatUint(seq, 10), nil, nil, p); err != nil {
		return err
	}
	r, err := p.Verify(known)
	if err == nil && p.Seq != seq {
		err = fmt.Errorf("it is of record %d", p.Seq)
	}
	if err != nil {
		return &exitError{wire.ExitVerification, fmt.Errorf("the proof of record %d does not hold: %w", seq, err)}
	}
	if e.format() != formatTable {
		b, err := json.Marshal(p)
		if err != nil {
			return fmt.Errorf("encode the proof: %w", err)
		}
		return e.writeJSON(append(b, '\n'))
	}
	text := fmt.Sprintf("record %d is in the log of %d records\nleaf    %s\n", p.Seq, p.Size, p.Leaf)
	for _, h := range p.Hashes {
		text += fmt.Sprintf("        %s\n", h)
	}
	if r == nil {
		text += "record  pruned: its hash alone is left\n"
	} else {
		text += fmt.Sprintf("salt    %x\nrecord  %s\n", p.Salt, wire.Printable(string(p.Record)))
	}
	if _, err := io.WriteString(e.stdout, text); err != nil {
		return err
	}
	return e.writeJSON([]byte(p.Checkpoint)) // escapes what could steer a terminal
}

func newAuditExport(e *env) *cobra.Command {
	o := &exportOptions{}
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Export records: one client's with proofs, or in the form of another system",
		Example: `hsctl audit export --slug acme-corp --proofs -O acme.jsonl
hsctl audit export --slug acme-corp --proofs --from 2026-11-01 --to 2026-11-30 -O acme.jsonl
hsctl audit verify acme.jsonl --key acme-audit.pub
hsctl audit export --format csv --slug acme-corp -O acme.csv
hsctl audit export --format ecs --after 41999 --follow`,
		Long: `Without --proofs records come as --format says: jsonl (as stored), csv, ecs
(Elastic Common Schema), ocsf (API Activity) or cloudevents. Each line tells its
number; a run that was broken off goes on with --after NUMBER and loses nothing.

With --proofs the file is JSONL: a signed manifest, then each record as stored, with its salt
and its path to the root of a signed checkpoint. Whoever has the log's key (hsctl
audit key) can check that nothing was changed, dropped, added or reordered, and
learns nothing of other clients.`,
		Args:        positional(0, 0),
		Annotations: exits(8, 12),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.hasAfter = cmd.Flags().Changed("after")
			return o.run(cmd.Context(), e)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.slug, "slug", "", "only records of this `slug`")
	f.StringVar(&o.format, "format", "", "`format`: jsonl (default), csv, ecs, ocsf or cloudevents")
	f.Uint64Var(&o.after, "after", 0, "only records after this `sequence` number")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with new records as they come")
	f.BoolVar(&o.proofs, "proofs", false, "with salts, proofs and a signed manifest")
	f.StringVar(&o.from, "from", "", "only from this `time` on: RFC 3339, or a date")
	f.StringVar(&o.to, "to", "", "only up to this `time`: RFC 3339, or a date")
	f.StringVarP(&o.file, "out-file", "O", "", "write to `FILE`, which appears whole or not at all")
	_ = cmd.RegisterFlagCompletionFunc("slug", completeSlugs(e, 0)) // fails for unknown flags only
	_ = cmd.RegisterFlagCompletionFunc("format", words(exportFormats...))
	return cmd
}

type exportOptions struct {
	slug, from, to, file, format string
	proofs, follow               bool

	after    uint64
	hasAfter bool // the flag was given
}

func (o *exportOptions) run(ctx context.Context, e *env) error {
	switch {
	case !o.proofs:
		return o.runPlain(ctx, e)
	case o.format != "" || o.follow || o.hasAfter:
		return usagef("--proofs goes with --slug, --from, --to and -O alone: what it writes is one whole file")
	}
	if o.slug == "" {
		return usagef("--proofs needs --slug: an export with proofs is of one client's records")
	}
	slug, err := wire.ParseSlug(o.slug)
	if err != nil {
		return &exitError{wire.ExitUsage, fmt.Errorf("--slug: %w", err)}
	}
	q := url.Values{}
	for k, v := range map[string]string{"from": o.from, "to": o.to} {
		if v != "" {
			q.Set(k, v)
		}
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	out, err := openOutput(e, o.file)
	if err != nil {
		return err
	}
	defer out.discard()
	resp, err := c.Stream(ctx, http.MethodGet, "/v1/audit/export/"+slug.String(), q, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if _, err := io.Copy(out, resp.Body); err != nil {
		return fmt.Errorf("the export broke off: %w", err)
	}
	return out.commit()
}

func newAuditPrune(e *env) *cobra.Command {
	o := &pruneOptions{}
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Erase what old records say; their hashes stay",
		Example: `hsctl audit prune --before 2025-11-01
hsctl audit prune --before 2025-11-01 --slug acme-corp --yes`,
		Long: `Bytes and salts of the records before the date are erased for good. Their hashes
stay, so that the log verifies, and what was pruned is recorded. Slugs of
audit.legal_hold in the agent's config are left alone. On a terminal hsctl asks
first. A time more than a day ahead, which leaves nothing, is refused without --yes.`,
		Args:        positional(0, 0),
		Annotations: exits(8, 12),
		RunE:        func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), e) },
	}
	f := cmd.Flags()
	f.StringVar(&o.before, "before", "", "records before this `date` (UTC, its own day is kept), or RFC 3339")
	f.StringVar(&o.slug, "slug", "", "only records of this `slug`")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	_ = cmd.RegisterFlagCompletionFunc("slug", completeSlugs(e, 0)) // fails for unknown flags only
	return cmd
}

type pruneOptions struct {
	before, slug string
	yes          bool
}

func (o *pruneOptions) run(ctx context.Context, e *env) error {
	if o.before == "" {
		return usagef("--before is needed: a date such as 2025-11-01")
	}
	whose := "all clients"
	if o.slug != "" {
		s, err := wire.ParseSlug(o.slug)
		if err != nil {
			return &exitError{wire.ExitUsage, fmt.Errorf("--slug: %w", err)}
		}
		whose = s.String()
	}
	if at, ok := parseMoment(o.before); ok && !o.yes && at.After(time.Now().AddDate(0, 0, 1)) { // tomorrow's date means: today's too
		return usagef("--before %s is in the future: that erases every record of %s there is, for good. Give an earlier date or, if all of them are meant, --yes too", o.before, whose)
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, ok := terminal(e.stdin); ok && !o.yes {
		ok, err := e.confirm(ctx, fmt.Sprintf("erase the records of %s before %s for good?", whose, o.before))
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("nothing was pruned")
		}
	}
	got := &wire.Pruned{}
	if err := c.Do(ctx, http.MethodPost, "/v1/audit/prune", nil, wire.Prune{Before: o.before, Slug: o.slug}, got); err != nil {
		return err
	}
	return e.emit(got, func() *table { return &table{header: []string{"pruned"}, rows: [][]cell{{text(got.Pruned)}}} })
}

// printText prints a plain text of the agent's.
func printText(ctx context.Context, e *env, path string) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	text, err := fetchText(ctx, c, path)
	if err != nil {
		return err
	}
	return e.writeJSON([]byte(text)) // escapes what could steer a terminal
}

func fetchText(ctx context.Context, c *wire.Client, path string) (string, error) {
	resp, err := c.Stream(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxNote))
	if err != nil {
		return "", fmt.Errorf("read the agent's answer: %w", err)
	}
	return string(b), nil
}
