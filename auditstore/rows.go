package auditstore

import (
	"fmt"
	"math"
	"slices"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// eachOf calls fn with the keys of a slug's records in a stretch, in order.
func eachOf(txn *badger.Txn, slug string, p stretch, fn func(seq uint64, it *badger.Item) error) error {
	for from := windowOf(p.lo); from < p.hi; from += window {
		if err := eachIn(txn, slug, from, p, fn); err != nil {
			return err
		}
	}
	return nil
}

// eachIn is eachOf for one window. Its iterator opens the tables that may hold
// the slug's records there, and no others.
func eachIn(txn *badger.Txn, slug string, from uint64, p stretch, fn func(seq uint64, it *badger.Item) error) error {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: recSlug(slug, from)})
	defer it.Close()
	for it.Seek(recKey(slug, max(from, p.lo))); it.Valid(); it.Next() {
		seq, _ := keySeq(it.Item().Key())
		if seq >= p.hi {
			break
		}
		if err := fn(seq, it.Item()); err != nil {
			return err
		}
	}
	return nil
}

// lastRow calls fn with the log's last entry, if there is any.
func lastRow(txn *badger.Txn, fn func(seq uint64, it *badger.Item) error) error {
	it := txn.NewIterator(badger.IteratorOptions{Reverse: true, Prefix: []byte(windowPrefix)})
	defer it.Close()
	for it.Seek(windowKey(math.MaxUint64)); it.Valid(); {
		k := it.Item().Key()
		seq, ok := parseRowKey(k)
		if ok && seq < math.MaxInt64 {
			return fn(seq, it.Item())
		}
		if !ok {
			_, seq, ok = parseRecKey(k)
		}
		if !ok || seq >= math.MaxInt64 {
			return fmt.Errorf("%w: the database has the key %q", ErrDamaged, k)
		}
		it.Seek(append(windowKey(windowOf(seq)), recMark)) // which stands behind the window's entries
	}
	return nil
}

// lastOf calls fn with the last of a slug's records below size, if it has any.
// The days tell where to look for it.
func lastOf(txn *badger.Txn, slug string, size uint64, fn func(*badger.Item) error) error {
	var begun uint64
	var parts []stretch
	err := last(txn, slugDays(slug), func(it *badger.Item) (err error) {
		begun, _ = keySeq(it.Key())
		var d day
		if err := it.Value(func(v []byte) (err error) { d, err = parseDay(v); return err }); err != nil {
			return err
		}
		q := query{txn: txn, f: chain.Filter{From: d.begin(), To: (d + 1).begin()}}
		parts, err = q.days([]byte(wholeDay), stretch{begun, size})
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(parts) {
		for from := windowOf(p.hi - 1); ; from -= window {
			found := false
			err := last(txn, recSlug(slug, from), func(it *badger.Item) error { found = true; return fn(it) })
			if err != nil || found {
				return err
			}
			if from <= p.lo {
				break
			}
		}
	}
	return nil
}
