package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/hsagent/hsagentd/auditstore"
)

// acceptLoss lets an audit log that has lost records go on, and records that.
func acceptLoss(ctx context.Context, e *env, args []string) error {
	f := newFlags("hsagentd accept-loss")
	if done, err := f.begin(e, args, helpAcceptLoss); done {
		return err
	}
	c, err := loadConfig(e, f)
	if err != nil {
		return err
	}
	log := newLogger(e, c.LogFormat, c.LogLevel.Level)
	gap, err := auditstore.AcceptLoss(ctx, c.audit(log))
	if err != nil {
		err = withCode(auditCode(err), fmt.Errorf("accept the loss: %w", err))
	}
	// Root mends the service's log, which must stay the service's.
	owned := filepath.WalkDir(c.AuditDir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == c.AuditDir {
			return err
		}
		return giveTo(c.AuditDir, path)
	})
	if err = errors.Join(err, owned); err != nil {
		return err
	}
	lost := fmt.Sprintf("the log of %d records with root %s is lost", gap.Lost, gap.Root)
	if gap.Lost == gap.Kept {
		lost = "the write-ahead log could not be read, and what it alone may have had is lost"
	}
	_, err = fmt.Fprintf(e.stdout, "recorded as record %d: %s; %s goes on after %d\n", gap.Seq, lost, c.AuditDir, gap.Kept)
	return err
}
