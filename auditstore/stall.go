package auditstore

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// patience is how long a batch may take. A disk that takes longer may hang for
// good, and an error never comes.
const patience = 10 * time.Second

var errStalled = fmt.Errorf("%w: its disk has not answered for %v", ErrUnavailable, patience)

// watch has giveUp called if writing the batch takes too long.
func (s *Store) watch(batch []*item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches++
	number := s.batches
	s.batch, s.writing = batch, time.AfterFunc(patience, func() { s.giveUp(number) })
}

// unwatch ends that, and reports whether it took too long.
func (s *Store) unwatch() (late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing.Stop()
	late = s.stalled
	s.batch, s.writing, s.stalled = nil, nil, false
	return late
}

// giveUp tells all who wait that the disk does not answer for the batch of that
// number; until it does, whoever comes is told so at once. What is queued behind
// the batch is not written, save lazy records. What is in the batch may come to
// be in the log.
func (s *Store) giveUp(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.batches != number || s.writing == nil || s.err != nil || s.closing {
		return
	}
	s.stalled = true
	s.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "nothing is recorded until the disk answers", slog.Any("error", errStalled))
	for _, it := range s.batch {
		it.reply(result{err: errStalled})
	}
	s.turnAway(s.queue, errStalled)
}

// endLate gives an outcome to the calls of a batch that was given up and is
// durable after all: they have not left.
func (s *Store) endLate(batch []*item) {
	s.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn, "the audit log's disk answers again")
	for _, it := range batch {
		if it.done == nil || it.rec == nil || it.rec.Kind != chain.CallIntent {
			continue
		}
		rec := *it.rec
		rec.Kind, rec.TS, rec.Error = chain.CallOutcome, wire.Time{}, string(wire.CodeAuditUnavailable)
		rec.Rule, rec.ConfirmedBy = "", ""
		if err := s.AppendLazy(rec); err != nil {
			return // the log is shut: opening it ends them
		}
	}
}
