package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// check reads everything offline and says what is wrong and how to mend it.
func check(ctx context.Context, e *env, args []string) error {
	f := newFlags("hsagentd check")
	if done, err := f.begin(e, args, helpCheck); done {
		return err
	}
	r := &checkup{env: e}
	c, err := loadConfig(e, f)
	if err != nil {
		r.problem("config", err, "edit the file, or see hsagentd --help")
		return r.result()
	}
	if _, _, _, err := c.groups(); err != nil {
		r.problem("config", err, "edit the file, or see hsagentd --help")
	} else if c.File == "" {
		r.ok("config", "none: all defaults")
	} else {
		r.ok("config", c.File)
	}
	r.checkStore(ctx, c)
	r.checkAudit(ctx, c)
	return r.result()
}

// A checkup collects what was found. What cannot be written to stdout is of no
// use to anybody, so that error is the result.
type checkup struct {
	env      *env
	problems int
	err      error
}

func (r *checkup) ok(item, text string) { r.line("ok", item, text) }

func (r *checkup) problem(item string, err error, mend string) {
	r.problems++
	for line := range strings.Lines(err.Error()) {
		r.line("problem", item, strings.TrimSuffix(line, "\n"))
	}
	r.line("", "", "→ "+mend)
}

func (r *checkup) line(verdict, item, text string) {
	_, err := fmt.Fprintf(r.env.stdout, "%-8s %-9s %s\n", verdict, item, wire.Printable(wire.MaskTokens(text)))
	r.err = errors.Join(r.err, err)
}

func (r *checkup) result() error {
	if r.err == nil && r.problems > 0 {
		return &codeError{code: exitConfig} // said already
	}
	return r.err
}

func (r *checkup) checkStore(ctx context.Context, c *config) {
	path := c.findIdentity()
	given, err := passphraseFile(r.env)
	if err != nil {
		r.problem("identity", err, "put the passphrase there, for this user alone to read")
		return
	}
	id, err := identityLoader(path, &passphraseOnce{given})(nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.problem("identity", err, "make one with hsagentd init, or bring back the copy that you kept")
		return
	case errors.Is(err, credstore.ErrPassphrase) && given == nil:
		r.ok("identity", path+": protected, not opened (give HSAGENT_PASSPHRASE_FILE to check the store too)")
		return
	case errors.Is(err, credstore.ErrPassphrase):
		r.problem("identity", err, "put the right passphrase into what HSAGENT_PASSPHRASE_FILE names")
		return
	case err != nil:
		r.problem("identity", err, "mend its rights, or bring back the copy that you kept")
		return
	}
	r.ok("identity", path)
	store, err := credstore.Open(c.Store, id).Load(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.problem("store", err, "make one with hsagentd init, or name it with --store")
		return
	case errors.Is(err, fs.ErrPermission):
		r.problem("store", err, "give it to the agent's user, chmod 600 it, and run the check as that user")
		return
	case err != nil:
		r.problem("store", err, "bring back a copy of the store; it must be encrypted to this identity: "+id.Recipient())
		return
	}
	for _, bad := range store.Rejected {
		r.problem("store", fmt.Errorf("%s is rejected: %s", bad.Slug, bad.Reason), "onboard it again: hsctl remove "+bad.Slug+"; hsctl onboard "+bad.Slug)
	}
	if len(store.Rejected) == 0 {
		r.ok("store", fmt.Sprintf("%s: version %d, %d portals", c.Store, store.Version, len(store.Entries)))
	}
}

func (r *checkup) checkAudit(ctx context.Context, c *config) {
	if _, err := os.Stat(c.AuditDir); errors.Is(err, fs.ErrNotExist) {
		r.ok("audit", c.AuditDir+": not begun yet")
		return
	}
	log := slog.New(slog.DiscardHandler)
	a := c.audit(log)
	if keys, err := c.readKeys(c.findKey()); err == nil {
		a.Keys = func(string) (chain.Keys, error) { return keys, nil }
		r.ok("audit key", c.findKey())
	} else if a.Keys = nil; !errors.Is(err, fs.ErrNotExist) {
		r.problem("audit key", err, "bring back the copy that you kept, or move it away: a new one is then made, and that is recorded")
	}
	report, err := auditstore.CheckSigned(ctx, a)
	switch {
	case errors.Is(err, auditstore.ErrInUse):
		r.problem("audit", err, "stop the agent first, or ask it: hsctl audit verify")
	case err != nil:
		r.problem("audit", err, "keep a copy of "+c.AuditDir+" as it is, and bring back one that is sound")
	case !report.OK():
		for _, d := range report.Damage {
			r.line("problem", "audit", d.String())
		}
		r.problem("audit", fmt.Errorf("%d of %d records are damaged or missing", report.Damaged, report.Records),
			"keep a copy of "+c.AuditDir+" as it is; the records before the first damage are sound. If its end is lost for good: hsagentd accept-loss")
	default:
		r.ok("audit", fmt.Sprintf("%s: %d records, all sound", c.AuditDir, report.Records))
		if report.PrunedRecords > 0 {
			r.ok("audit", fmt.Sprintf("%d of them were pruned", report.PrunedRecords))
		}
		for _, g := range report.Gaps {
			r.ok("audit", fmt.Sprintf("record %d: a loss was accepted: of a log of %d records; this one goes on after %d", g.Seq, g.Lost, g.Kept))
		}
	}
}
