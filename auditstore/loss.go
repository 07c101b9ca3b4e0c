package auditstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// ErrNoLoss is what [AcceptLoss] returns where there is nothing to accept.
var ErrNoLoss = errors.New("nothing is lost: the audit log is the one that its write-ahead log and checkpoints know")

// AcceptLoss lets a log go on that [Open] refuses with [ErrLoss]: one that is
// shorter than, or another than, what the write-ahead log, a checkpoint or the sink
// knows of it, or whose write-ahead log cannot be read. What is there must be sound
// in itself: the database, and the write-ahead log up to the first batch that cannot
// be read. The gap is recorded as
// [chain.AuditGap], signed, and handed to the sink.
func AcceptLoss(ctx context.Context, c Config) (*chain.Gap, error) {
	c.acceptLoss = true
	s, err := Open(ctx, c)
	if err != nil {
		return nil, err
	}
	if s.gap == nil {
		return nil, errors.Join(ErrNoLoss, s.Close())
	}
	if _, err := s.Checkpoint(ctx); s.sign.keys != nil && err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	if failed := s.sign.failed.Load(); failed != nil {
		return nil, fmt.Errorf("the gap is recorded, but the sink does not know of it: %s: mend that, and run it again", *failed)
	}
	return s.gap, nil
}

// lookAnyway is look for a log that may have lost its database or its write-ahead log.
func lookAnyway(dir string) (f *found, lost *sighting, err error) {
	f, err = look(dir)
	if !errors.Is(err, ErrDamaged) {
		return f, nil, err
	}
	f = &found{layout: layoutOf(dir)}
	lost = &sighting{root: new(chain.Tree).Root()}
	if f.history, _ = readWAL(f.wal); f.history != nil { // as far as it can be read
		*lost = f.history.last()
	}
	f.crashed, err = wasCrashed(f)
	return f, lost, err
}

// salvage takes the log as its database holds it, if that is sound in itself.
// What is lost is the log that the write-ahead log knew.
func (s *Store) salvage(ctx context.Context, f *found) (*tail, error) {
	t := newTail()
	txn := s.db.NewTransaction(false)
	defer txn.Discard()
	size, err := t.readEnd(txn)
	if err != nil {
		return nil, err
	}
	if err := t.checkFormat(txn, size == 0); err != nil {
		return nil, err
	}
	if f.history != nil {
		last := f.history.last()
		s.witnessed = &last
	}
	v := &verification{db: s.db, txn: txn, size: size}
	v.each = t.pair
	if err := v.run(ctx); err != nil {
		return nil, err
	}
	if !v.report.OK() {
		return nil, fmt.Errorf("%w: what is left cannot be gone on with: restore the directory from a backup", damaged(s.cfg.Dir, &v.report))
	}
	if t.tree, err = chain.TreeAt(size, hashReader(txn)); err != nil {
		return nil, err
	}
	return t, nil
}

// gapIn returns the gap between the log and what is known of it, or nil.
func (s *Store) gapIn(kept []keptNote, tree *chain.Tree) (*chain.Gap, error) {
	g := chain.Gap{Seq: tree.Size(), Kept: tree.Size()}
	found := s.witnessed != nil
	err := s.db.View(func(txn *badger.Txn) error {
		had := func(size uint64, root chain.Hash) (bool, error) {
			if size > tree.Size() {
				return false, nil
			}
			at, err := chain.TreeAt(size, hashReader(txn))
			return err == nil && at.Root() == root, err
		}
		if found {
			g.Lost, g.Root = s.witnessed.size, s.witnessed.root
			// Nobody knows what stood behind the last batch that can be read: it
			// may be more than the database has.
			if ok, err := had(g.Lost, g.Root); err != nil {
				return err
			} else if ok {
				g.Lost, g.Root = tree.Size(), tree.Root()
			}
		}
		for _, k := range kept {
			if s.sign.keys == nil || k.Origin == s.sign.keys[0].Name() {
				if ok, err := had(k.Size, k.Root); err != nil {
					return err
				} else if ok {
					continue
				}
			}
			if !found || k.Size > g.Lost {
				g.Lost, g.Root = k.Size, k.Root
			}
			found = true
		}
		return nil
	})
	if err != nil || !found {
		return nil, err
	}
	return &g, nil
}

// recordGap puts the record of a loss into the database, as long as the old
// write-ahead log still tells of it: whoever kills the process leaves a log that
// is refused, or one that says what it lacks.
func (s *Store) recordGap() error {
	if s.gap == nil {
		return nil
	}
	rec := &chain.Record{Kind: chain.AuditGap, Reason: s.gap.Reason()}
	var salt [chain.SaltSize]byte
	_, err := rand.Read(salt[:])
	b := &filling{}
	if err == nil {
		var r result
		r, err = s.add(b, rec, salt[:])
		err = errors.Join(err, r.err)
	}
	if err == nil {
		err = b.flush(s.db)
	}
	if err != nil {
		return fmt.Errorf("record the loss: %w", err)
	}
	s.notes = append(s.notes, string(rec.Kind)+": "+rec.Reason)
	return nil
}
