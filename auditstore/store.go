package auditstore

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// What the errors of this package wrap.
var (
	// ErrUnavailable means that a record was not, or is not known to be, made
	// durable: the log is closed, latched after an error, or short of space.
	ErrUnavailable = errors.New("the audit log is unavailable")
	// ErrDamaged means that the log on disk is not the one that was written.
	ErrDamaged = errors.New("the audit log is damaged")
	// ErrInUse means that another process has the log open.
	ErrInUse = errors.New("the audit log is in use")
)

// Config is what a Store needs.
type Config struct {
	Dir     string        // made with mode 0700 if missing
	Actor   string        // hsagentd/<version>: the actor of records that name none
	Log     *slog.Logger  // nil: discards
	MinFree uint64        // bytes of free space below which nothing is appended; 0: what Badger may need at once
	Lag     time.Duration // how long a lazy record may wait for company; 0: 20 ms
}

// A Store is an open audit log. It is safe for concurrent use.
type Store struct{}

var errTodo = errors.New("not built yet")

// Open opens the log in c.Dir, or starts one.
func Open(ctx context.Context, c Config) (*Store, error) { return nil, errTodo }

// Append makes rec durable and returns its receipt.
func (s *Store) Append(ctx context.Context, rec chain.Record) (chain.Receipt, error) {
	return chain.Receipt{}, errTodo
}

// AppendLazy queues rec; it becomes durable within Config.Lag and one sync.
func (s *Store) AppendLazy(rec chain.Record) error { return errTodo }

// Flush waits until everything queued so far is durable.
func (s *Store) Flush(ctx context.Context) error { return errTodo }

// Status tells how the log stands.
func (s *Store) Status() wire.AuditStatus { return wire.AuditStatus{} }

// Notes says what Open found and mended, for the record of the agent's start.
func (s *Store) Notes() []string { return nil }

// Records calls fn for every record that f selects, in log order.
func (s *Store) Records(ctx context.Context, f chain.Filter, fn func(raw []byte, r *chain.Record) error) error {
	return errTodo
}

// Wait blocks until a record with a sequence greater than after is durable.
func (s *Store) Wait(ctx context.Context, after uint64) error { return errTodo }

// Usage counts the slug's wire attempts since from.
func (s *Store) Usage(slug string, from time.Time) (int64, error) { return 0, errTodo }

// Verify checks the whole log.
func (s *Store) Verify(ctx context.Context, progress func(done, total uint64)) (chain.Report, error) {
	return chain.Report{}, errTodo
}

// Close makes everything queued durable and closes the log.
func (s *Store) Close() error { return errTodo }

// Check verifies the log in dir, which no process may have open.
func Check(ctx context.Context, dir string, log *slog.Logger) (chain.Report, error) {
	return chain.Report{}, errTodo
}
