package auditstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

const (
	pruneBatch = 500     // records in one transaction
	pruneChunk = 1 << 16 // records that one record of it names, at most
	pruneText  = 6 << 10 // bytes of that record's list, at most
)

// Prune erases bytes and salts of the records before a time: those of one slug
// or, with "", of all that are not held. Their hashes stay, so that the tree
// verifies. Before anything is erased a record says which; the caller is the
// one who asked for it. Calls that have no outcome yet, and records about the
// log itself, stay.
//
// Who reads the log does not see the bytes from then on. Badger drops them from
// its files as it compacts them, which is begun at once, and for what was still
// in its write-ahead log at the next start. Copies elsewhere are not touched.
func (s *Store) Prune(ctx context.Context, slug string, before time.Time, caller *chain.Caller) (uint64, error) {
	if slug != "" && slices.Contains(s.cfg.Hold, slug) {
		return 0, fmt.Errorf("prune %s: %w", slug, chain.ErrHeld)
	}
	s.pruning.Lock()
	defer s.pruning.Unlock()
	if _, err := s.await(ctx, &item{done: make(chan result, 1), seal: true}); err != nil {
		return 0, err
	}
	_, done, err := s.reading(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	p := &pruner{s: s, ctx: ctx, slug: slug, before: wire.At(before).Time, caller: caller}
	err = p.run()
	if p.total > 0 {
		err = errors.Join(err, s.wipe(ctx))
		s.flatten(func() error { return nil })
	}
	if err != nil {
		return p.total, fmt.Errorf("prune the records before %s: %w", wire.At(before), err)
	}
	return p.total, nil
}

// A pruner collects what is to be pruned, in the order of the log, and erases
// it a chunk at a time.
type pruner struct {
	s      *Store
	ctx    context.Context //nolint:containedctx // a pruner lives no longer than the call that it serves
	slug   string
	before time.Time
	caller *chain.Caller

	done uint64 // before it the log as a whole has nothing to prune any more

	chunk []pruneOne
	seqs  []chain.Range
	text  int // bytes of seqs, about
	total uint64
}

type pruneOne struct {
	seq  uint64
	slug string
}

func (p *pruner) run() error {
	parts, err := p.parts()
	if err != nil {
		return err
	}
	done := p.done
	if len(parts) > 0 && parts[0].lo == done {
		done = parts[0].hi
	}
	for _, part := range parts {
		for lo := part.lo; lo < part.hi; lo = windowOf(lo) + window {
			// A transaction for each window: a long one would keep what is erased.
			found, stays, err := p.find(stretch{lo, min(windowOf(lo)+window, part.hi)})
			if err != nil {
				return err
			}
			done = min(done, stays)
			for _, one := range found {
				if err := p.add(one); err != nil {
					return err
				}
			}
		}
	}
	if err := p.flush(); err != nil || p.slug != "" || done == p.done {
		return err
	}
	return p.s.db.Update(func(txn *badger.Txn) error {
		return txn.Set([]byte(prunedKey), append(binary.BigEndian.AppendUint64(nil, done), p.held()...))
	})
}

// held is what no prune of the whole log touches.
func (p *pruner) held() string { return strings.Join(p.s.cfg.Hold, "\n") }

// parts are the stretches of the log whose days are before the time, from where
// it was pruned before up to the first call that has no outcome.
func (p *pruner) parts() (parts []stretch, err error) {
	err = p.s.db.View(func(txn *badger.Txn) error {
		b, err := value(txn, sealKey)
		if err != nil || b == nil {
			return err
		}
		sl, err := parseSeal(b)
		if err != nil {
			return err
		}
		if p.slug == "" {
			b, err := value(txn, prunedKey)
			if err != nil {
				return err
			}
			if len(b) >= 8 && string(b[8:]) == p.held() {
				p.done = binary.BigEndian.Uint64(b)
			}
		}
		q := &query{txn: txn, f: chain.Filter{To: p.before}}
		prefix := []byte(wholeDay)
		if p.slug != "" {
			prefix = slugDays(p.slug)
		}
		parts, err = q.days(prefix, stretch{p.done, sl.open})
		return err
	})
	return parts, err
}

// find lists what is to be pruned in a window of the log, and returns the first
// record that stays only because it is too young.
func (p *pruner) find(w stretch) (found []pruneOne, stays uint64, err error) {
	stays = math.MaxUint64
	err = p.s.db.View(func(txn *badger.Txn) error {
		states := statementSeqs(txn, w)
		bySlug := make(map[string][]uint64)
		it := txn.NewIterator(badger.IteratorOptions{Prefix: rowsIn(windowOf(w.lo))})
		defer it.Close()
		for it.Seek(rowKey(w.lo)); it.Valid(); it.Next() {
			seq, _ := keySeq(it.Item().Key())
			if seq >= w.hi {
				break
			}
			err := it.Item().Value(func(v []byte) error {
				e, err := parseEntry(v)
				wanted := e.slug == p.slug || p.slug == "" && !slices.Contains(p.s.cfg.Hold, e.slug)
				switch {
				case err != nil || !wanted || states[seq]:
				case time.UnixMilli(e.millis).Before(p.before):
					bySlug[e.slug] = append(bySlug[e.slug], seq)
				default:
					stays = min(stays, seq)
				}
				return err
			})
			if err != nil {
				return atRecord(seq, err)
			}
		}
		for slug, seqs := range bySlug {
			here, err := unpruned(txn, slug, seqs)
			if err != nil {
				return err
			}
			found = append(found, here...)
		}
		return p.s.unwanted(p.ctx)
	})
	slices.SortFunc(found, func(a, b pruneOne) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	return found, stays, err
}

// unpruned are those of a slug's records that have bytes.
func unpruned(txn *badger.Txn, slug string, seqs []uint64) (out []pruneOne, err error) {
	i := 0
	err = eachOf(txn, slug, stretch{seqs[0], seqs[len(seqs)-1] + 1}, func(seq uint64, it *badger.Item) error {
		for i < len(seqs) && seqs[i] < seq {
			i++
		}
		if i < len(seqs) && seqs[i] == seq && !isStub(it) {
			out = append(out, pruneOne{seq, slug})
		}
		return nil
	})
	return out, err
}

// add puts a record into the chunk, which is erased when it is full.
func (p *pruner) add(one pruneOne) error {
	p.seqs = chain.AddTo(p.seqs, one.seq)
	if r := p.seqs[len(p.seqs)-1]; r.Last-r.First < 2 { // a number more in the list
		p.text += len(chain.Range{First: one.seq, Last: one.seq}.String()) + 1
	}
	p.chunk = append(p.chunk, one)
	if len(p.chunk) < pruneChunk && p.text < pruneText {
		return nil
	}
	return p.flush()
}

// flush records what is going to be erased, and erases it.
func (p *pruner) flush() error {
	if len(p.chunk) == 0 {
		return nil
	}
	if err := p.s.unwanted(p.ctx); err != nil {
		return err
	}
	say := chain.Pruning{Before: p.before, Seqs: p.seqs}
	rc, err := p.s.Append(context.WithoutCancel(p.ctx), chain.Record{
		Kind: chain.AuditPruned, ClientSlug: p.slug, Caller: p.caller, Reason: say.Reason(),
	})
	if err != nil {
		return err
	}
	// The database has what says so before it lacks what it is about.
	if _, err := p.s.fill.wait(context.WithoutCancel(p.ctx), p.s.stopRead); err != nil {
		return err
	}
	if err := p.s.erase(p.chunk, rc.Seq); err != nil {
		return err
	}
	_ = unmapMuch(p.s.db) // it costs nothing but memory
	p.total += uint64(len(p.chunk))
	p.chunk, p.seqs, p.text = p.chunk[:0], nil, 0
	return nil
}

// wipe takes what was erased out of the write-ahead log.
func (s *Store) wipe(ctx context.Context) error {
	if _, err := s.await(context.WithoutCancel(ctx), &item{wipe: true, done: make(chan result, 1)}); err != nil {
		return err
	}
	_, err := s.fill.wait(context.WithoutCancel(ctx), s.stopRead)
	return err
}

// erase puts stubs in the place of records, and notes that what the record
// statement says is done.
func (s *Store) erase(chunk []pruneOne, statement uint64) error {
	for len(chunk) > 0 {
		n := min(pruneBatch, len(chunk))
		err := s.db.Update(func(txn *badger.Txn) error {
			for _, one := range chunk[:n] {
				if err := eraseOne(txn, one); err != nil {
					return fmt.Errorf("erase record %d: %w", one.seq, err)
				}
			}
			if n < len(chunk) {
				return nil
			}
			return errors.Join(
				txn.Set([]byte(erasedKey), binary.BigEndian.AppendUint64(nil, statement)),
				txn.Set([]byte(flattenKey), binary.BigEndian.AppendUint64(nil, statement)))
		})
		if err != nil {
			return err
		}
		chunk = chunk[n:]
	}
	return nil
}

func eraseOne(txn *badger.Txn, one pruneOne) error {
	key := recKey(one.slug, one.seq)
	it, err := txn.Get(key)
	if err != nil || isStub(it) {
		return err
	}
	var st stub
	var leaf chain.Hash
	err = it.Value(func(v []byte) error {
		if len(v) < chain.SaltSize {
			return errShort
		}
		leaf = chain.Leaf(v[:chain.SaltSize], v[chain.SaltSize:])
		r, err := chain.Decode(v[chain.SaltSize:])
		if err != nil {
			return err
		}
		st = stub{millis: r.TS.UnixMilli(), intent: r.Kind == chain.CallIntent}
		if r.SlugSeq != nil {
			st.next = *r.SlugSeq + 1
		}
		return nil
	})
	if err != nil {
		return err
	}
	return txn.SetEntry(badger.NewEntry(key, st.bytes(leaf)).WithMeta(stubMeta))
}

// finishPruning erases what a crash has left of what the last record about
// pruning says.
func (s *Store) finishPruning() error {
	var chunk []pruneOne
	var statement uint64
	err := s.db.View(func(txn *badger.Txn) error {
		states, err := readStatements(txn, s.seq.index.tree.Size())
		if err != nil || len(states.prunes) == 0 {
			return err
		}
		statement = states.prunes[len(states.prunes)-1].seq
		erased, err := value(txn, erasedKey)
		if err != nil || len(erased) == 8 && binary.BigEndian.Uint64(erased) >= statement {
			return err
		}
		r, err := readRecord(txn, statement)
		if err != nil {
			return err
		}
		p, err := chain.ParsePruning(r)
		if err != nil {
			return err
		}
		for _, g := range p.Seqs {
			for seq := g.First; seq <= g.Last && len(chunk) < pruneChunk; seq++ {
				e, err := readEntry(txn, seq)
				if err != nil {
					return err
				}
				chunk = append(chunk, pruneOne{seq, e.slug})
			}
		}
		return nil
	})
	if err == nil {
		err = s.erase(chunk, statement)
	}
	if err != nil {
		return fmt.Errorf("finish pruning: %w", err)
	}
	return nil
}
