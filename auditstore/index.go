package auditstore

import (
	"errors"
	"fmt"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// An index makes of each record, in the order of the log, what the database
// gets: the record, its hashes, and the entries that serve queries. It is where
// the tree grows.
type index struct {
	db     *badger.DB
	tree   chain.Tree
	slugs  map[string]*place
	whole  place // of the log
	hashes []chain.Hash
}

// A place is where a slug's records have come to.
type place struct {
	next uint64 // slugSeq
	day  day
	any  bool // there is a record, and day is its day
}

// maxPlaces is how many of them are kept in memory: any caller can name slugs that
// there are not, and their refusals are recorded.
const maxPlaces = 1 << 14

// enter notes the day of a record, and reports whether it differs from that of
// the record before.
func (p *place) enter(d day) bool {
	if p.any && p.day == d {
		return false
	}
	p.any, p.day = true, d
	return true
}

// head is what the index needs of a record.
type head struct {
	slug   string
	millis int64
	kind   chain.Kind
}

// add puts a record into the tree, and what the database is to get of it into
// b. value is its salt and its bytes, which b keeps.
func (x *index) add(b *filling, h head, value []byte) (chain.Hash, error) {
	at, err := x.place(h.slug)
	if err != nil {
		return chain.Hash{}, err
	}
	seq := x.tree.Size()
	leaf := chain.Leaf(value[:chain.SaltSize], value[chain.SaltSize:])
	x.hashes = x.tree.Add(leaf, x.hashes[:0])
	e := entry{millis: h.millis, slug: h.slug, hashes: x.hashes}

	b.set(recKey(h.slug, seq), value)
	b.set(rowKey(seq), b.keep(e.appendTo))
	day := dayOfMillis(h.millis)
	if x.whole.enter(day) {
		b.set(seqKey(wholeDay, seq), day.bytes())
	}
	if at.enter(day) {
		b.set(slugDay(h.slug, seq), day.bytes())
	}
	if h.kind.IsStatement() {
		b.set(seqKey(statePrefix, seq), nil)
	}
	b.size = seq + 1
	b.end()
	at.next++
	return leaf, nil
}

// seal puts a seal into b, and what was signed with it.
func (x *index) seal(b *filling, s *sealed) {
	b.set([]byte(sealKey), s.seal.bytes())
	if s.note != "" {
		b.set([]byte(checkpointKey), []byte(s.note))
	}
	if s.keys != "" {
		b.set([]byte(keysKey), []byte(s.keys))
	}
	b.end()
}

// place returns where the slug's records have come to, from the database at
// first: what it lacks still has been through here.
func (x *index) place(slug string) (*place, error) {
	if p, ok := x.slugs[slug]; ok {
		return p, nil
	}
	p := &place{}
	err := x.db.View(func(txn *badger.Txn) error {
		return lastOf(txn, slug, x.tree.Size(), func(it *badger.Item) error {
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
	x.slugs[slug] = p
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

var errOther = errors.New("it is another record than the write-ahead log's place for it")

// replay puts into the database what only the write-ahead log has, and follows it in t.
// What the write-ahead log says must fit.
func replay(db *badger.DB, h *history, t *tail) error {
	x := &index{db: db, tree: *t.tree, slugs: make(map[string]*place), whole: t.whole}
	from := x.tree.Size()
	b := &filling{}
	err := h.frames(func(f *frame) error {
		if f.size < from {
			return nil
		}
		s, err := f.records(func(seq uint64, value []byte) error {
			if seq < from {
				return nil
			}
			return t.again(x, b, seq, b.store(value))
		})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if s != nil && s.seal.size <= x.tree.Size() {
			x.seal(b, s)
			t.seal = s.seal
		}
		if x.tree.Size() == f.size && x.tree.Root() != f.root {
			t.report.Add(max(f.size, 1)-1, chain.BadRoot, "the log up to here is not the one that the write-ahead log saw")
		}
		if len(b.frame) < fillBytes {
			return nil
		}
		return b.flush(db)
	})
	if err == nil {
		err = b.flush(db)
	}
	if err != nil {
		return err
	}
	if n := x.tree.Size(); n > from {
		t.notes = append(t.notes, fmt.Sprintf("records %d to %d had come to the write-ahead log only", from, n-1))
	}
	t.tree, t.whole, t.slugs = &x.tree, x.whole, x.slugs
	return nil
}

// again enters a record that the write-ahead log holds.
func (t *tail) again(x *index, b *filling, seq uint64, value []byte) error {
	stored := value[chain.SaltSize:]
	r, err := chain.Decode(stored)
	if err != nil {
		return err
	}
	at, err := x.place(r.ClientSlug)
	if err != nil {
		return err
	}
	if r.Seq != seq || r.ClientSlug != "" && (r.SlugSeq == nil || *r.SlugSeq != at.next) {
		return errOther
	}
	if _, err := x.add(b, head{r.ClientSlug, r.TS.UnixMilli(), r.Kind}, value); err != nil {
		return err
	}
	return t.pair(stored)
}
