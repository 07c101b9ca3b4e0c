package auditstore

import (
	"bytes"
	"context"
	"log/slog"
	"slices"

	badger "github.com/dgraph-io/badger/v4"
)

// flatten has Badger rewrite its tables in the background, without what was
// erased, and calls done. What its memtable holds comes to a table only at
// Close: so the start after that does it again.
func (s *Store) flatten(done func() error) {
	if !s.flattening.CompareAndSwap(false, true) {
		return
	}
	s.background.Go(func() {
		defer s.flattening.Store(false)
		err := s.db.Flatten(1)
		if err == nil {
			err = done()
		}
		if err != nil {
			s.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn, "the database was not compacted after pruning", slog.Any("error", err))
		}
	})
}

// flattenAtStart finishes what pruning before the last close began. No
// goroutine uses the database yet.
func (s *Store) flattenAtStart() error {
	var due []byte
	err := s.db.View(func(txn *badger.Txn) (err error) { due, err = value(txn, flattenKey); return err })
	if err != nil || due == nil {
		return err
	}
	done := func() error {
		return s.db.Update(func(txn *badger.Txn) error {
			now, err := value(txn, flattenKey)
			if err != nil || !bytes.Equal(now, due) { // more was pruned meanwhile
				return err
			}
			return txn.Delete([]byte(flattenKey))
		})
	}
	below := slices.ContainsFunc(s.db.Levels(), func(l badger.LevelInfo) bool { return l.Level > 0 && l.NumTables > 0 })
	if below {
		s.flatten(done)
		return nil
	}
	// Badger leaves a database alone that has nothing but a few tables on its
	// first level, unless it is closed so. They are small.
	o := s.db.Opts()
	if err := s.db.Close(); err != nil {
		return err
	}
	db, err := openBadger(o.WithCompactL0OnClose(true))
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		return err
	}
	if s.db, err = openBadger(o); err != nil {
		return err
	}
	return done()
}

// unwanted returns why a long piece of work must end, or nil.
func (s *Store) unwanted(ctx context.Context) error {
	return (&query{ctx: ctx, stop: s.stopRead}).ended()
}
