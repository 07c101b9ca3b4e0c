package auditstore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// A batch must fit into one transaction: 15 % of a memtable.
const (
	maxBatch      = 512
	maxBatchBytes = 256 << 10
)

// A sequencer is what only the writing goroutine touches.
type sequencer struct {
	tree   chain.Tree
	slugs  map[string]*place
	whole  place // of the log
	open   map[attempt]uint64
	sealed uint64
	salts  [maxBatch * chain.SaltSize]byte
	buf    []byte // of the batch's values, which Badger keeps until it is committed
	hashes []chain.Hash
}

// A place is where a slug's records have come to.
type place struct {
	next uint64 // slugSeq
	day  day
	any  bool // there is a record, and day is its day
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
	if err := s.dir.check(s.witness.f, s.witness.path); err != nil {
		s.fail(batch, err)
		return
	}
	if err := s.dir.room(s.minFree.Load()); err != nil {
		s.refuse(batch, err)
		return
	}
	results, err := s.commit(batch, withSeal)
	if err != nil {
		s.fail(batch, err)
		return
	}
	s.publish()
	s.handOut()
	for i, it := range batch {
		it.reply(results[i])
	}
}

// fail shuts the log.
func (s *Store) fail(batch []*item, err error) {
	s.latch(err)
	for _, it := range batch {
		it.reply(result{err: s.failure()})
	}
}

// refuse answers all who wait, for want of space: also those behind the batch,
// to whom it would never come. Lazy records, which tell how calls ended that
// have already left, stay queued unless the store closes.
func (s *Store) refuse(batch []*item, err error) {
	err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.short = err.Error()
	var keep []*item
	for _, it := range append(batch, s.queue...) {
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
	size := s.seq.tree.Size()
	s.durable.Store(size)
	if s.grown != nil {
		close(s.grown)
		s.grown = nil
	}
	if size > s.seq.sealed && s.sealing == nil && !s.closing {
		s.sealing = time.AfterFunc(sealAfter, s.sealTime)
	}
}

// commit writes a batch as one transaction, and the witness at the same time.
// After an error the state in memory is ahead of the disk and of no more use.
func (s *Store) commit(batch []*item, withSeal bool) (results []result, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("write a batch: panic: %v", p)
		}
	}()
	q := &s.seq
	before := q.tree.Size()
	q.buf = q.buf[:0]
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	salts := q.salts[:len(batch)*chain.SaltSize]
	if _, err := rand.Read(salts); err != nil {
		return nil, fmt.Errorf("draw salts: %w", err)
	}
	results = make([]result, len(batch))
	for i, it := range batch {
		if it.rec == nil {
			continue
		}
		salt := salts[i*chain.SaltSize : (i+1)*chain.SaltSize]
		results[i], err = s.add(txn, it.rec, salt, q.tree.Size() == before)
		if err != nil {
			return nil, fmt.Errorf("write record %d: %w", q.tree.Size(), err)
		}
	}
	size := q.tree.Size()
	s.size.Store(size)
	behind := size > q.sealed || s.sign.keys != nil && size > s.sign.signed
	if withSeal = behind && (withSeal || size-q.sealed >= sealEvery); withSeal {
		if err := s.seal(txn); err != nil {
			return nil, err
		}
	}
	if size == before && !withSeal {
		return results, nil
	}
	if err := s.sync(txn, before); err != nil {
		return nil, err
	}
	return results, nil
}

// sync commits the transaction and notes the tree in the witness meanwhile.
// Only when both are synced is the batch durable, and the next one begins.
func (s *Store) sync(txn *badger.Txn, before uint64) error {
	size := s.seq.tree.Size()
	committed := make(chan error, 1)
	txn.CommitWith(func(err error) { committed <- err })
	var noted error
	if size > before {
		noted = s.witness.note(size, s.seq.tree.Root())
	}
	if err := <-committed; err != nil {
		return fmt.Errorf("commit records %d to %d: %w", before, size, errors.Join(err, noted))
	}
	if noted == nil && size > before {
		noted = s.witness.mark(size)
	}
	return noted
}

// add puts one record into the transaction. A record that cannot be encoded
// gets an error in its result and no number.
func (s *Store) add(txn *badger.Txn, rec *chain.Record, salt []byte, first bool) (result, error) {
	q := &s.seq
	at, err := s.place(rec.ClientSlug)
	if err != nil {
		return result{}, err
	}
	seq, slugSeq := q.tree.Size(), at.next
	rec.Seq = seq
	rec.SlugSeq = nil
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
	start := len(q.buf)
	buf, err := appendTrimmed(append(q.buf, salt...), rec)
	if err != nil {
		return result{err: err}, nil //nolint:nilerr // the record's own error, not the log's
	}
	value := buf[start:len(buf):len(buf)]
	leaf := chain.Leaf(salt, value[chain.SaltSize:])
	q.hashes = q.tree.Add(leaf, q.hashes[:0])
	e := entry{millis: rec.TS.UnixMilli(), first: first, slug: rec.ClientSlug, hashes: q.hashes}

	mid := len(buf)
	q.buf = e.appendTo(buf)
	err = errors.Join(
		txn.Set(recKey(rec.ClientSlug, seq), value),
		txn.Set(seqKey(seqPrefix, seq), q.buf[mid:len(q.buf):len(q.buf)]),
	)
	day := dayOf(rec.TS.Time)
	if q.whole.enter(day) {
		err = errors.Join(err, txn.Set(seqKey(wholeDay, seq), day.bytes()))
	}
	if at.enter(day) {
		err = errors.Join(err, txn.Set(slugDay(rec.ClientSlug, seq), day.bytes()))
	}
	if rec.Kind.IsStatement() {
		err = errors.Join(err, txn.Set(seqKey(statePrefix, seq), nil))
	}
	at.next++
	q.pair(rec)
	return result{receipt: chain.Receipt{Seq: seq, Leaf: leaf}}, err
}

// enter notes the day of a record, and reports whether it differs from that of
// the record before.
func (p *place) enter(d day) bool {
	if p.any && p.day == d {
		return false
	}
	p.any, p.day = true, d
	return true
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

// place returns where the slug's records have come to, from disk at first.
func (s *Store) place(slug string) (*place, error) {
	if p := s.seq.slugs[slug]; p != nil {
		return p, nil
	}
	p := new(place)
	err := s.db.View(func(txn *badger.Txn) error {
		return lastOf(txn, slug, s.seq.tree.Size(), func(it *badger.Item) error {
			return it.Value(func(v []byte) error {
				if isStub(it) {
					st, err := parseStub(v)
					p.next, p.any, p.day = st.next, true, dayOfMillis(st.millis)
					return err
				}
				if len(v) < chain.SaltSize {
					return errShort
				}
				r, err := chain.Decode(v[chain.SaltSize:])
				if err != nil {
					return err
				}
				if r.SlugSeq != nil {
					p.next = *r.SlugSeq + 1
				}
				p.any, p.day = true, dayOf(r.TS.Time)
				return nil
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the last record of %s: %w", wire.Quote(slug), err)
	}
	s.seq.slugs[slug] = p
	return p, nil
}

// last calls fn with the last item under prefix, if there is any.
func last(txn *badger.Txn, prefix []byte, fn func(*badger.Item) error) error {
	it := txn.NewIterator(badger.IteratorOptions{Reverse: true, Prefix: prefix})
	defer it.Close()
	it.Seek(append(append([]byte(nil), prefix...), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	if !it.ValidForPrefix(prefix) {
		return nil
	}
	return fn(it.Item())
}

// seal writes how far the log goes now, and signs it.
func (s *Store) seal(txn *badger.Txn) error {
	q := &s.seq
	sl := seal{size: q.tree.Size(), root: q.tree.Root(), open: q.tree.Size()}
	for _, seq := range q.open {
		sl.open = min(sl.open, seq)
	}
	if err := txn.Set([]byte(sealKey), sl.bytes()); err != nil {
		return fmt.Errorf("seal the log: %w", err)
	}
	q.sealed = sl.size
	return s.checkpoint(txn)
}
