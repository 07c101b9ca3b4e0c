package auditstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

const (
	maxBatch      = 512     // records
	maxBatchBytes = 1 << 20 // about
)

// A sequencer is what only the writing goroutine touches.
type sequencer struct {
	index  index
	open   map[attempt]uint64
	sealed uint64
	salts  [maxBatch * chain.SaltSize]byte
}

// An attempt is what an intent and its outcome have in common.
type attempt struct {
	callID string
	number int
}

// run is the sequencer's goroutine. It ends when the store is closed, with the
// queue written, or when the log is shut.
func (s *Store) run() {
	defer close(s.stopped)
	for {
		select {
		case <-s.wake:
		case <-s.dead:
			return
		}
		for {
			batch, sealDue, closing := s.take()
			last := closing && len(batch) == 0
			if len(batch) == 0 && !sealDue && !last {
				break
			}
			s.write(batch, sealDue || last)
			if last || s.failure() != nil {
				return
			}
		}
	}
}

// take removes a batch from the queue, if somebody waits for it.
func (s *Store) take() (batch []*item, sealDue, closing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sealDue, s.sealDue = s.sealDue, false
	if !s.urgent && !s.closing {
		return nil, sealDue, false
	}
	n, bytes := 0, 0
	for n < len(s.queue) && n < maxBatch && bytes < maxBatchBytes-2*chain.MaxRecord {
		if r := s.queue[n].rec; r != nil {
			bytes += min(512+len(r.Path)+len(r.Reason), chain.MaxRecord) + 512
		}
		sealDue = sealDue || s.queue[n].seal
		n++
	}
	batch = s.queue[:n:n]
	s.queue = s.queue[n:]
	if len(s.queue) == 0 {
		s.queue, s.urgent = nil, false
	}
	return batch, sealDue, s.closing
}

// write makes a batch durable and answers who waits for it.
func (s *Store) write(batch []*item, withSeal bool) {
	s.watch(batch)
	results, short, err := s.tryWrite(batch, withSeal)
	late := s.unwatch()
	switch {
	case err != nil:
		s.fail(batch, err)
		return
	case short != nil:
		s.refuse(batch, short)
		return
	}
	s.publish()
	for i, it := range batch {
		it.reply(results[i])
	}
	if late {
		s.endLate(batch)
	}
}

// tryWrite writes nothing if there is no room for it, which short says.
func (s *Store) tryWrite(batch []*item, withSeal bool) (results []result, short, err error) {
	if err := s.dir.check(s.wal.file()); err != nil {
		return nil, nil, err
	}
	if short := s.dir.room(s.minFree.Load()); short != nil {
		return nil, short, nil
	}
	if results, err = s.commit(batch, withSeal); err != nil {
		return nil, nil, err
	}
	s.handOut()
	return results, nil, nil
}

// fail shuts the log.
func (s *Store) fail(batch []*item, err error) {
	s.latch(err)
	for _, it := range batch {
		it.reply(result{err: s.failure()})
	}
}

// refuse answers all who wait, for want of space: also those behind the batch,
// to whom it would never come.
func (s *Store) refuse(batch []*item, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turnAway(append(batch, s.queue...), fmt.Errorf("%w: %w", ErrUnavailable, err))
}

// turnAway answers all who wait in a queue. Lazy records, which tell how calls
// ended that have already left, stay in it unless the store closes. It needs mu.
func (s *Store) turnAway(queue []*item, err error) {
	s.short = err.Error()
	var keep []*item
	for _, it := range queue {
		if it.done == nil && !s.closing {
			keep = append(keep, it)
		}
		it.reply(result{err: err})
	}
	s.queue, s.urgent = keep, false
	if len(keep) > 0 && s.lag == nil {
		s.lag = time.AfterFunc(max(s.cfg.Lag, time.Second), s.lagOver)
	}
}

// publish shows readers what is durable now.
func (s *Store) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.short = ""
	size := s.seq.index.tree.Size()
	s.durable.Store(size)
	if s.grown != nil {
		close(s.grown)
		s.grown = nil
	}
	if size > s.seq.sealed && s.sealing == nil && !s.closing {
		s.sealing = time.AfterFunc(sealAfter, s.sealTime)
	}
}

// commit writes a batch to the write-ahead log, and gives it to the filler. After an
// error the state in memory is ahead of the disk and of no more use.
func (s *Store) commit(batch []*item, withSeal bool) ([]result, error) {
	q := &s.seq
	if len(q.index.slugs)+len(batch) > maxPlaces {
		// They are read from the database again, which must have them all for that.
		if _, err := s.fill.wait(context.Background(), nil); err != nil {
			return nil, err
		}
		clear(q.index.slugs)
	}
	before := sighting{q.index.tree.Size(), q.index.tree.Root()}
	salts := q.salts[:len(batch)*chain.SaltSize]
	if _, err := rand.Read(salts); err != nil {
		return nil, fmt.Errorf("draw salts: %w", err)
	}
	b := s.fill.empty()
	b.frame, b.size = beginFrame(b.frame), before.size
	results := make([]result, len(batch))
	for i, it := range batch {
		b.wipe = b.wipe || it.wipe
		if it.rec == nil {
			continue
		}
		var err error
		if results[i], err = s.add(b, it.rec, salts[i*chain.SaltSize:(i+1)*chain.SaltSize]); err != nil {
			return nil, fmt.Errorf("write record %d: %w", q.index.tree.Size(), err)
		}
	}
	size := q.index.tree.Size()
	s.size.Store(size)
	behind := size > q.sealed || s.sign.keys != nil && size > s.sign.signed
	if withSeal = behind && (withSeal || size-q.sealed >= sealEvery); withSeal {
		sl, err := s.seal()
		if err != nil {
			return nil, err
		}
		b.frame = appendSeal(b.frame, sl)
		q.index.seal(b, sl)
	}
	if size == before.size && !withSeal && !b.wipe {
		return results, nil
	}
	return results, s.sync(b, before)
}

// sync makes a batch durable.
func (s *Store) sync(b *filling, before sighting) error {
	f := frame{before: before.size, sighting: sighting{b.size, s.seq.index.tree.Root()}}
	if !b.wipe && !s.wal.full(b.frame) {
		if err := s.wal.append(b.frame, f); err != nil {
			return err
		}
		s.push(b)
		return nil
	}
	s.fill.hurryNow()
	old, err := s.wal.turn(s.dead, b.frame, f, before, b.wipe)
	if err != nil {
		return err
	}
	b.turned, b.old = true, old
	s.push(b)
	return nil
}

// push gives a batch to the filler. Before that may clear a file of the
// write-ahead log, readers look at the other one.
func (s *Store) push(b *filling) {
	s.mu.Lock()
	s.written = s.wal.segment()
	s.mu.Unlock()
	s.fill.push(b)
}

// add puts one record into a batch. A record that cannot be encoded gets an
// error in its result and no number.
func (s *Store) add(b *filling, rec *chain.Record, salt []byte) (result, error) {
	x := &s.seq.index
	at, err := x.place(rec.ClientSlug)
	if err != nil {
		return result{}, err
	}
	slugSeq := at.next
	rec.Seq, rec.SlugSeq = x.tree.Size(), nil
	if rec.ClientSlug != "" {
		rec.SlugSeq = &slugSeq
	}
	if rec.TS.IsZero() {
		rec.TS.Time = s.cfg.now()
	}
	rec.TS = wire.At(rec.TS.Time)
	if rec.Actor == "" {
		rec.Actor = s.cfg.Actor
	}
	var value []byte
	b.frame, value, err = appendStored(b.frame, salt, func(to []byte) ([]byte, error) { return appendTrimmed(to, rec) })
	if err != nil {
		return result{err: err}, nil //nolint:nilerr // the record's own error, not the log's
	}
	leaf, err := x.add(b, head{rec.ClientSlug, rec.TS.UnixMilli(), rec.Kind}, value)
	if err != nil {
		return result{}, err
	}
	s.seq.pair(rec)
	return result{receipt: chain.Receipt{Seq: rec.Seq, Leaf: leaf}}, nil
}

// pair keeps the intents that have no outcome yet.
func (q *sequencer) pair(rec *chain.Record) {
	switch rec.Kind {
	case chain.CallIntent:
		q.open[attempt{rec.CallID, rec.Attempt}] = rec.Seq
	case chain.CallOutcome, chain.CallInterrupted:
		delete(q.open, attempt{rec.CallID, rec.Attempt})
	default:
	}
}

// seal says how far the log goes now, and signs it.
func (s *Store) seal() (*sealed, error) {
	q := &s.seq
	sl := &sealed{seal: seal{size: q.index.tree.Size(), root: q.index.tree.Root(), open: q.index.tree.Size()}}
	for _, seq := range q.open {
		sl.seal.open = min(sl.seal.open, seq)
	}
	q.sealed = sl.seal.size
	return sl, s.sign.sign(sl)
}
