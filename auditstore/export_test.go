package auditstore

import (
	"log/slog"
	"time"

	badger "github.com/dgraph-io/badger/v4"
)

// SetNow replaces the clock.
func (c *Config) SetNow(now func() time.Time) { c.now = now }

// BreakWitness makes the next write of the witness fail.
func (s *Store) BreakWitness() error { return s.witness.f.Close() }

// BadgerOptions are those that Open uses.
func BadgerOptions(dir string) badger.Options {
	return badgerOptions(dir, &badgerLog{log: slog.New(slog.DiscardHandler)})
}
