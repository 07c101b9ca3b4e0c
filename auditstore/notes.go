package auditstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// A notary compares a log's tree with checkpoints: with the database's own,
// with all in the file beside it, and with the last one of the sink.
type notary struct {
	txn     *badger.Txn
	size    uint64
	live    bool // the log grows meanwhile
	crashed bool // the file's end may be behind, or torn
	known   signed
	states  *statements
	keys    chain.Verifiers // that may have signed any of them
	lost    []chain.Gap     // whose lost checkpoints may still come in the file
	report  *chain.Report
}

// check compares. trusted are the keys that must have signed the last one; nil
// takes the database's word for them.
func (n *notary) check(ctx context.Context, dir string, sink Sink, trusted chain.Verifiers) error {
	if trusted == nil {
		trusted = n.known.keys
	}
	n.keys = slices.Concat(trusted, n.states.keys)
	if n.known.note != "" {
		if _, err := chain.OpenCheckpoint(n.known.note, trusted); err != nil {
			n.report.Add(n.known.size, chain.BadNote, "the database: %v", err)
		}
		if _, err := chain.OpenCheckpoint(n.known.note, n.known.keys); err != nil {
			n.report.Add(n.known.size, chain.BadIndex, "the list of keys that sign: %v", err)
		}
	}
	n.lost = slices.Clone(n.states.gaps)
	last, err := n.file(ctx, layoutOf(dir).checkpoints)
	if err != nil {
		return err
	}
	n.lost = nil // the sink's last checkpoint is of the log that goes on
	if n.known.note != "" && last != n.known.note && !n.crashed && !n.live {
		n.report.Add(n.known.size, chain.BadNote, "the last checkpoint in %s is not the database's", checkpointFile)
	}
	if sink == nil {
		return nil
	}
	note, err := sink.Last()
	if err != nil {
		return err
	}
	if note != "" {
		n.note(note, sink.String())
	}
	return nil
}

// file reads all checkpoints in a file and returns the last one.
func (n *notary) file(ctx context.Context, path string) (last string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the checkpoints: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var before uint64
	torn := false
	noNote := func() {
		n.report.Add(before, chain.BadNote, "%s has text that is no checkpoint after the one of %d records", checkpointFile, before)
	}
	err = eachNote(f, func(piece string) error {
		if torn {
			noNote()
		}
		if torn = !isWhole(piece); torn {
			return ctx.Err()
		}
		last = piece
		lost := n.accepted(before)
		size, ok := n.note(piece, checkpointFile)
		if !ok {
			return ctx.Err()
		}
		if size <= before && !lost {
			n.report.Add(size, chain.BadNote, "%s: the checkpoint of %d records stands after that of %d", checkpointFile, size, before)
		}
		before = size
		return ctx.Err()
	})
	if torn && !n.crashed && !n.live {
		noNote()
	}
	return last, err
}

// note compares one checkpoint and returns its size, if it is one of this log's.
func (n *notary) note(note, who string) (size uint64, ok bool) {
	c, err := chain.OpenCheckpoint(note, n.keys)
	switch {
	case err != nil:
		n.report.Add(n.size, chain.BadNote, "%s: %v", who, err)
		return 0, false
	case c.Origin != n.known.origin:
		if !n.accepted(c.Size) {
			n.report.Add(c.Size, chain.BadNote, "%s: a checkpoint is of the log %s", who, c.Origin)
		}
		return c.Size, true
	case c.Size > n.size:
		if !n.live && !n.accepted(c.Size) {
			n.report.Add(n.size, chain.Missing, "%s: a checkpoint is of %d records", who, c.Size)
		}
		return c.Size, true
	}
	n.report.Checkpoints++
	tree, err := chain.TreeAt(c.Size, hashReader(n.txn))
	if err == nil && tree.Root() == c.Root {
		// What was signed after a gap was recorded is of the log that goes on, and
		// so is all that stands behind it.
		n.lost = slices.DeleteFunc(n.lost, func(g chain.Gap) bool { return g.Seq < c.Size })
	} else if !n.accepted(c.Size) {
		n.report.Add(max(c.Size, 1)-1, chain.BadRoot, "the log up to here is not the one of the checkpoint of %d records in %s", c.Size, who)
	}
	return c.Size, true
}

// accepted reports whether an operator has accepted that a checkpoint of that
// size, which stands here, is of a log that is lost.
func (n *notary) accepted(size uint64) bool {
	return slices.ContainsFunc(n.lost, func(g chain.Gap) bool { return size <= g.Lost })
}
