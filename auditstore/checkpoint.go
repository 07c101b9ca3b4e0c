package auditstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// ErrLoss means that the log is sound in itself, but shorter than, or another
// than, one of its own checkpoints says. [AcceptLoss] goes on from there. It
// wraps [ErrDamaged].
var ErrLoss = fmt.Errorf("%w: records are lost", ErrDamaged)

// checkpointFile is the plain file of all checkpoints in the log's directory.
const checkpointFile = "checkpoints"

// A signer makes checkpoints and hands them out. Only the sequencer signs.
type signer struct {
	keys   chain.Keys // nil: no checkpoints
	signed uint64     // size of the last checkpoint
	stale  bool       // the keys differ from those that the database knows
	due    string     // signed, and not durable yet

	last   atomic.Pointer[string] // durable
	local  FileSink
	sink   Sink // nil: none
	failed atomic.Pointer[string]

	mu      sync.Mutex
	pending string
	wake    chan struct{}
	done    chan struct{}
}

// Checkpoint returns a signed checkpoint over all records queued so far: the
// last one, if nothing has come since. Where the log takes nothing more, it is
// the last one that was made.
func (s *Store) Checkpoint(ctx context.Context) (string, error) {
	if s.sign.keys == nil {
		return "", fmt.Errorf("%w: it has no key", ErrUnavailable)
	}
	_, err := s.await(ctx, &item{done: make(chan result, 1), seal: true})
	last := s.sign.last.Load()
	switch {
	case last != nil && (err == nil || errors.Is(err, ErrUnavailable)):
		return *last, nil
	case err != nil:
		return "", err
	}
	return "", fmt.Errorf("%w: it has no records yet", ErrUnavailable)
}

// Key returns the public half of the key that signs, as name+hash+base64.
func (s *Store) Key() string {
	if s.sign.keys == nil {
		return ""
	}
	return s.sign.keys[0].Verifier()
}

// sign adds a checkpoint to a seal.
func (g *signer) sign(s *sealed) error {
	if g.keys == nil {
		return nil
	}
	c := chain.Checkpoint{Origin: g.keys[0].Name(), Size: s.seal.size, Root: s.seal.root}
	note, err := c.Sign(g.keys)
	if err != nil {
		return err
	}
	s.note = note
	if g.stale {
		s.keys = strings.Join(g.keys.Verifiers(), "\n")
	}
	g.due, g.stale, g.signed = note, false, c.Size
	return nil
}

// handOut passes on a checkpoint that has become durable. The copy in the
// log's directory is not synced: the write-ahead log has the same, and the file is
// behind it at most.
func (s *Store) handOut() {
	g := &s.sign
	if g.due == "" {
		return
	}
	note := g.due
	g.due = ""
	g.last.Store(&note)
	if err := g.local.put(note, false); err != nil {
		s.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "a checkpoint was not written to its file", slog.Any("error", err))
	}
	if g.sink == nil {
		return
	}
	g.mu.Lock()
	g.pending = note // a sink that is slow gets the latest
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// feed is the goroutine that writes to the sink, which may be slow or hang.
func (g *signer) feed(log *slog.Logger) {
	defer close(g.done)
	for range g.wake {
		g.mu.Lock()
		note := g.pending
		g.pending = ""
		g.mu.Unlock()
		if note == "" {
			continue
		}
		err := g.sink.Put(note)
		if err == nil {
			g.failed.Store(nil)
			continue
		}
		text := err.Error()
		g.failed.Store(&text)
		log.LogAttrs(context.Background(), slog.LevelError, "a checkpoint did not reach its sink", slog.String("sink", g.sink.String()), slog.Any("error", err))
	}
}

// close waits until the sink has the last checkpoint, but not for ever. The
// sequencer has ended.
func (g *signer) close() {
	if g.wake == nil {
		return
	}
	close(g.wake)
	select {
	case <-g.done:
	case <-time.After(closeGrace):
	}
}

// startSigner takes the keys, and compares the log with its checkpoints. It
// returns the record of a change of keys, if there is one.
func (s *Store) startSigner(t *tail) (*chain.Record, error) {
	g := &s.sign
	g.local = FileSink(layoutOf(s.cfg.Dir).checkpoints)
	var known signed
	if err := s.db.View(func(txn *badger.Txn) (err error) { known, err = readSigned(txn); return err }); err != nil {
		return nil, err
	}
	if s.cfg.Keys != nil {
		keys, err := s.cfg.Keys(known.origin)
		if err != nil {
			return nil, err
		}
		if g.keys, err = keys.For(known.nameOr(keys)); err != nil {
			return nil, err
		}
	}
	kept, err := s.kept(known)
	if err != nil {
		return nil, err
	}
	if !s.cfg.acceptLoss {
		if err := s.lost(kept, t.tree); err != nil {
			return nil, err
		}
	}
	if s.cfg.acceptLoss {
		if s.gap, err = s.gapIn(kept, t.tree); err != nil {
			return nil, err
		}
	}
	if g.keys == nil {
		return nil, nil
	}
	if f, ok := s.cfg.Sink.(FileSink); ok {
		if err := f.usable(); err != nil {
			return nil, err
		}
	}
	g.signed = min(known.size, t.tree.Size()) // above it, only of a log that is lost
	if known.note != "" && s.gap == nil {
		g.last.Store(&known.note)
		// A crash may have come before the file had it.
		if last, err := g.local.Last(); err == nil && last != known.note {
			if err := g.local.put(known.note, false); err != nil {
				return nil, err
			}
		}
	}
	if g.sink = s.cfg.Sink; g.sink != nil {
		g.wake, g.done = make(chan struct{}, 1), make(chan struct{})
		go g.feed(s.cfg.Log)
		if known.note != "" && s.gap == nil && !slices.ContainsFunc(kept, func(k keptNote) bool { return k.who == g.sink.String() && k.note == known.note }) {
			g.pending = known.note
			g.wake <- struct{}{}
		}
	}
	now := g.keys.Verifiers()
	g.stale = !slices.Equal(now, known.keys)
	if !g.stale || known.keys == nil {
		return nil, nil
	}
	return &chain.Record{Kind: chain.AuditKey,
		Reason: "signed by " + strings.Join(now, " and ") + "; before by " + strings.Join(known.keys, " and ")}, nil
}

// signed is what the database knows of checkpoints.
type signed struct {
	origin string
	note   string
	size   uint64
	root   chain.Hash
	keys   chain.Verifiers
}

// nameOr is the log's name: once it has one, it keeps it.
func (k *signed) nameOr(keys chain.Keys) string {
	if k.origin != "" {
		return k.origin
	}
	return keys[0].Name()
}

func readSigned(txn *badger.Txn) (k signed, err error) {
	note, err := value(txn, checkpointKey)
	if err != nil || note == nil {
		return k, err
	}
	c, err := chain.ParseCheckpoint(string(note))
	if err != nil {
		return k, fmt.Errorf("%w: the checkpoint in the database: %w", ErrDamaged, err)
	}
	k.note, k.origin, k.size, k.root = string(note), c.Origin, c.Size, c.Root
	keys, err := value(txn, keysKey)
	if err == nil && keys != nil {
		k.keys = strings.Split(string(keys), "\n")
	}
	return k, err
}

// value returns a copy of what stands under a key, nil if nothing does.
func value(txn *badger.Txn, key string) ([]byte, error) {
	it, err := txn.Get([]byte(key))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", ErrDamaged, key, err)
	}
	v, err := it.ValueCopy(nil)
	if err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", ErrDamaged, key, err)
	}
	return v, nil
}

// A keptNote is a checkpoint of this log that somebody has kept.
type keptNote struct {
	chain.Checkpoint
	who  string
	note string
}

// kept collects the last checkpoints of the database, of the file beside it
// and of the sink.
func (s *Store) kept(known signed) ([]keptNote, error) {
	var out []keptNote
	add := func(who, note string) error {
		if note == "" {
			return nil
		}
		c, err := chain.ParseCheckpoint(note)
		if err != nil {
			return fmt.Errorf("%w: %s: the last checkpoint: %w", ErrDamaged, who, err)
		}
		if known.origin != "" && c.Origin != known.origin {
			return fmt.Errorf("%w: the last checkpoint in %s is of the log %s, and this one is %s; %s",
				ErrLoss, who, c.Origin, known.origin, mend)
		}
		out = append(out, keptNote{*c, who, note})
		return nil
	}
	if err := add("the database", known.note); err != nil {
		return nil, err
	}
	sinks := []Sink{FileSink(layoutOf(s.cfg.Dir).checkpoints)}
	if s.cfg.Sink != nil {
		sinks = append(sinks, s.cfg.Sink)
	}
	for _, sink := range sinks {
		note, err := sink.Last()
		if err != nil {
			return nil, err
		}
		if err := add(sink.String(), note); err != nil && !s.cfg.acceptLoss {
			return nil, err
		}
	}
	return out, nil
}

// lost returns an error that wraps ErrLoss if the log is shorter than one of
// the checkpoints, or another log than one of them is of.
func (s *Store) lost(kept []keptNote, tree *chain.Tree) error {
	return s.db.View(func(txn *badger.Txn) error {
		for _, k := range kept {
			if k.Size > tree.Size() {
				return fmt.Errorf("%w: %s holds %d records, and the checkpoint in %s is of %d; %s", ErrLoss, s.cfg.Dir, tree.Size(), k.who, k.Size, mend)
			}
			at, err := chain.TreeAt(k.Size, hashReader(txn))
			if err != nil {
				return fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			if at.Root() != k.Root {
				return fmt.Errorf("%w: the first %d records in %s are not those of the checkpoint in %s; %s", ErrLoss, k.Size, s.cfg.Dir, k.who, mend)
			}
		}
		return nil
	})
}
