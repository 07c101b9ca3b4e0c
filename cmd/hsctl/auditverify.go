package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

func newAuditVerify(e *env) *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Check every record and hash of the log, or an exported file",
		Example: `hsctl audit verify
hsctl audit verify acme.jsonl --key acme-audit.pub`,
		Long: `Without FILE the agent reads the whole log and computes its tree anew.

With FILE, from hsctl audit export --proofs, no agent is needed: the signatures,
each record and that none is missing are checked here. The key must have come
from elsewhere than the file. - is stdin.

The exit code is 13 if anything was changed, dropped, added or reordered.`,
		Args:        positional(0, 1),
		Annotations: exits(8, 12, 13),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && key == "":
				return usagef("--key is needed: the verifier key that hsctl audit key prints, or a file with it")
			case len(args) == 1:
				return verifyExport(e, args[0], key)
			case key != "":
				return usagef("--key is for a FILE: the agent knows its own key")
			}
			return verifyLog(cmd.Context(), e)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "the verifier `key` of the file, or a file with it")
	return cmd
}

// verifyLog has the agent verify its log.
func verifyLog(ctx context.Context, e *env) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	resp, err := c.Stream(ctx, http.MethodPost, "/v1/audit/verify", nil, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	report, err := readVerification(e, resp.Body)
	if err != nil {
		return err
	}
	if report.OK() && e.format() == formatTable {
		return printSound(e, report)
	}
	if err := e.emit(report, func() *table { return damageTable(report) }); err != nil {
		return err
	}
	if report.OK() {
		return nil
	}
	n := max(report.Damaged, uint64(len(report.Damage)))
	return &exitError{wire.ExitVerification, fmt.Errorf("the audit log is damaged: %s in %s", counted(n, "fault"), counted(report.Records, "record"))}
}

// counted is a number of things, one or many.
func counted(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// readVerification reads the agent's lines: how far it has come, and last the
// result.
func readVerification(e *env, r io.Reader) (*wire.AuditReport, error) {
	var bar *progress
	dec := json.NewDecoder(r)
	for {
		var line struct {
			wire.AuditProgress
			wire.AuditReport
		}
		if err := dec.Decode(&line); err != nil {
			return nil, fmt.Errorf("the verification broke off: %w", err)
		}
		if line.Total == 0 {
			if bar != nil {
				bar.erase()
			}
			return &line.AuditReport, nil
		}
		if bar == nil {
			bar = newProgress(e, "records", int(min(line.Total, 1<<50)))
		}
		bar.reach(int(min(line.Done, line.Total, 1<<50)))
	}
}

// printSound tells in words that nothing is wrong, and what a reader should know.
func printSound(e *env, r *wire.AuditReport) error {
	text := fmt.Sprintf("ok: %d records, root %s\n", r.Records, wire.Printable(r.Root))
	if r.Checkpoints > 0 {
		text += fmt.Sprintf("    agrees with %d signed checkpoints\n", r.Checkpoints)
	}
	if r.PrunedRecords > 0 {
		text += fmt.Sprintf("    %d of them were pruned: %s\n", r.PrunedRecords, stretches(r.Pruned))
	}
	for _, g := range r.Gaps {
		text += fmt.Sprintf("    record %d: a loss was accepted: of a log of %d records; this one goes on after %d\n", g.Seq, g.Lost, g.Kept)
	}
	_, err := io.WriteString(e.stdout, text)
	return err
}

// stretches writes the first few ranges.
func stretches(ranges []wire.AuditRange) (s string) {
	const few = 5
	for i, r := range ranges {
		if i == few {
			return s + " …"
		}
		if i > 0 {
			s += ", "
		}
		s += chain.Range(r).String()
	}
	return s
}

// A fileReport is what was found in an export. Its seqs are the log's.
type fileReport struct {
	Slug         string  `json:"slug"`
	FirstSlugSeq *uint64 `json:"firstSlugSeq"`
	LastSlugSeq  *uint64 `json:"lastSlugSeq"`
	Checkpoint   string  `json:"checkpoint"`
	wire.AuditReport
}

// verifyExport verifies a file without an agent.
func verifyExport(e *env, file, key string) error {
	known, err := readVerifiers(key)
	if err != nil {
		return err
	}
	in := e.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	}
	rep, err := chain.VerifyExport(in, known, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	out := asFileReport(rep)
	if out.OK() && e.format() == formatTable {
		return printExport(e, &out, rep)
	}
	if err := e.emit(out, func() *table { return damageTable(&out.AuditReport) }); err != nil {
		return err
	}
	if out.OK() {
		return nil
	}
	return &exitError{wire.ExitVerification, fmt.Errorf("%s is not what the log's key has signed: %s", file, counted(out.Damaged, "fault"))}
}

// readVerifiers takes verifier keys, or a file with them.
func readVerifiers(key string) (chain.Verifiers, error) {
	known, err := chain.ParseVerifiers(key)
	if err == nil {
		return known, nil
	}
	f, ferr := os.Open(key)
	if ferr != nil {
		if errors.Is(ferr, os.ErrNotExist) {
			return nil, usagef("--key %s is neither a verifier key (name+hash+base64) nor a file", wire.Quote(key))
		}
		return nil, ferr
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxNote))
	if err != nil {
		return nil, err
	}
	if known, err = chain.ParseVerifiers(string(b)); err != nil {
		return nil, usagef("--key %s: %w", wire.Quote(key), err)
	}
	return known, nil
}

func asFileReport(rep *chain.ExportReport) fileReport {
	out := fileReport{AuditReport: wire.AuditReport{
		Records: rep.Records, Root: rep.Root.String(), Damaged: rep.Damaged, Damage: []wire.AuditDamage{},
		Checkpoints: rep.Checkpoints, PrunedRecords: rep.PrunedRecords,
	}}
	if m := rep.Manifest; m != nil {
		out.Slug, out.FirstSlugSeq, out.LastSlugSeq, out.Checkpoint = m.Slug, m.FirstSlugSeq, m.LastSlugSeq, m.Checkpoint
	}
	for _, d := range rep.Damage {
		out.Damage = append(out.Damage, wire.AuditDamage{Seq: d.Seq, Kind: string(d.Kind), Detail: d.Detail})
	}
	for _, p := range rep.Pruned {
		out.Pruned = append(out.Pruned, wire.AuditRange(p))
	}
	return out
}

// printExport tells in words what the file proves.
func printExport(e *env, out *fileReport, rep *chain.ExportReport) error {
	which := "no records"
	if out.FirstSlugSeq != nil {
		which = fmt.Sprintf("%d records, slugSeq %s", out.Records, chain.Range{First: *out.FirstSlugSeq, Last: *out.LastSlugSeq})
	}
	text := fmt.Sprintf("ok: %s of %s\n", which, wire.Printable(out.Slug))
	if m := rep.Manifest; m.From == nil && m.To == nil {
		text += "    these are all up to the checkpoint\n"
	} else {
		text += fmt.Sprintf("    these are all from %s to %s\n", orOpen(m.From, "the beginning"), orOpen(m.To, "the checkpoint"))
	}
	if out.PrunedRecords > 0 {
		text += fmt.Sprintf("    %d more were pruned: slugSeq %s\n", out.PrunedRecords, stretches(out.Pruned))
	}
	c := rep.Checkpoint
	text += fmt.Sprintf("    checkpoint of %s: %d records, root %s\n", wire.Printable(c.Origin), c.Size, c.Root)
	_, err := io.WriteString(e.stdout, text)
	return err
}

func orOpen(t *wire.Time, open string) string {
	if t == nil {
		return open
	}
	return t.String()
}
