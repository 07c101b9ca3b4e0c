package auditstore

import (
	"context"
	"log/slog"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// SetNow replaces the clock.
func (c *Config) SetNow(now func() time.Time) { c.now = now }

// BreakWitness makes the next write of the witness fail.
func (s *Store) BreakWitness() error { return s.witness.f.Close() }

// BadgerOptions are those that Open uses.
func BadgerOptions(dir string) badger.Options {
	return badgerOptions(dir, &badgerLog{log: slog.New(slog.DiscardHandler)})
}

// SetMinFree makes the disk look full, or not.
func (s *Store) SetMinFree(n uint64) { s.minFree.Store(n) }

// RotateWitnessNext has the witness start anew with the next batch. Nothing
// may be appended meanwhile.
func (s *Store) RotateWitnessNext() { s.witness.size = maxWitness + 1 }

// SealNow does what the timer does a minute after the last record.
func (s *Store) SealNow() { s.sealTime() }

// CheckIn is CheckSigned of what a transaction of the open database sees.
func CheckIn(ctx context.Context, c Config, txn *badger.Txn) (chain.Report, error) {
	c.defaults()
	f, err := look(c.Dir)
	if err != nil {
		return chain.Report{}, err
	}
	return checkIn(ctx, &c, f, txn)
}
