package auditstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// Badger merges tables several at a time, and holds each that it makes some
// seven times over, as it is and compressed: so they are small. What is new
// stands behind what is old (see the log's keys), so levels may be far apart
// and a table of one still meets few of the next. A table costs an open file and
// a map: the units' LimitNOFILE is for that.
const (
	memTable  = 2 << 20
	memTables = 2
	sstable   = 640 << 10
	baseLevel = 2 * sstable // little, since pruning waits until it is empty
	levelStep = 1000        // times as large as the level above
	maxValue  = 128 << 10   // larger ones would go to Badger's value log, which is not kept

	// defaultMinFree is what Badger may need at once (its memtables' logs have
	// twice their size), and something to stop in order with. Badger does not
	// survive a full disk: it writes through a memory map.
	defaultMinFree = 2*memTable*(memTables+1) + 64<<20
)

// badgerOptions are small: the log is appended to and rarely read.
func badgerOptions(dir string, log *badgerLog) badger.Options {
	o := badger.DefaultOptions(dir).
		WithSyncWrites(true). // off by default; without it nothing here is true
		WithMemTableSize(memTable).
		WithNumMemtables(memTables).
		WithBaseTableSize(sstable).
		WithBaseLevelSize(baseLevel).
		WithLevelSizeMultiplier(levelStep).
		WithValueLogFileSize(1 << 20). // unused: values stay below the threshold
		WithValueThreshold(maxValue).
		WithBlockCacheSize(4 << 20).
		WithIndexCacheSize(4 << 20).
		WithNumCompactors(2).
		WithNumLevelZeroTables(3).
		WithNumLevelZeroTablesStall(8).
		WithBlockSize(16 << 10).         // neighbours are alike: a third less on disk than in blocks of 4 KiB
		WithCompression(options.Snappy). // a quarter more on disk than Zstandard, for half the work
		WithDetectConflicts(false).      // one writer
		WithMetricsEnabled(false).
		WithVerifyValueChecksum(true).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithCompactL0OnClose(false).
		WithLogger(log)
	o.TableSizeMultiplier = 1
	return o
}

// openBadger opens the database. Badger panics, or faults on its memory map,
// over some damage: here that becomes an error.
func openBadger(o badger.Options) (db *badger.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("%w: open %s: %v", ErrDamaged, o.Dir, p)
		}
	}()
	// The records' syncs must never pass through Badger's value log, whose
	// errors it only logs.
	if o.ValueThreshold <= chain.MaxRecord+chain.SaltSize {
		return nil, fmt.Errorf("open %s: a value threshold of %d is too low for records", o.Dir, o.ValueThreshold)
	}
	if err := checkTables(o); err != nil {
		return nil, err
	}
	unborn, err := unbornFiles(o.Dir)
	if err == nil && len(unborn) > 0 && o.ReadOnly {
		err = badger.ErrTruncateNeeded
	}
	for _, path := range unborn {
		if err == nil {
			err = os.Remove(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Dir, err)
	}
	db, err = badger.Open(o)
	var errno syscall.Errno
	switch {
	case err == nil:
		return db, nil
	case errors.As(err, &errno):
		return nil, fmt.Errorf("open %s: %w", o.Dir, err)
	case o.ReadOnly && strings.Contains(err.Error(), badger.ErrTruncateNeeded.Error()): // Badger wraps it as text
		return nil, fmt.Errorf("open %s: %w", o.Dir, badger.ErrTruncateNeeded)
	}
	return nil, fmt.Errorf("%w: open %s: %w", ErrDamaged, o.Dir, err)
}

// A badgerLog passes Badger's log on. What Badger calls an error is one that
// it cannot report otherwise, such as a sync that failed.
type badgerLog struct {
	log  *slog.Logger
	fail func(error) // nil: nothing to do about it
}

func (l *badgerLog) at(level slog.Level, format string, args []any) string {
	msg := strings.TrimSpace(fmt.Sprintf(format, args...))
	l.log.LogAttrs(context.Background(), level, "badger", slog.String("msg", msg))
	return msg
}

// Errorf logs an error and latches the log.
func (l *badgerLog) Errorf(format string, args ...any) {
	msg := l.at(slog.LevelError, format, args)
	if l.fail != nil {
		l.fail(errors.New("badger: " + msg))
	}
}

// Warningf logs a warning.
func (l *badgerLog) Warningf(format string, args ...any) { l.at(slog.LevelWarn, format, args) }

// Infof logs what is of no interest to an operator.
func (l *badgerLog) Infof(format string, args ...any) { l.at(slog.LevelDebug, format, args) }

// Debugf logs what is of no interest to an operator.
func (l *badgerLog) Debugf(format string, args ...any) { l.at(slog.LevelDebug, format, args) }

// unbornFiles lists memtables and value logs without a byte. Badger gives a
// new file its size before it writes to it, and does not open one of which a
// kill came in between. If a file that had records was emptied, the tree and
// the write-ahead log tell.
func unbornFiles(dir string) (unborn []string, err error) {
	for _, pattern := range []string{"*.mem", "*.vlog"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			info, err := os.Lstat(path)
			if err == nil && info.Mode().IsRegular() && info.Size() == 0 { // else Badger says what is wrong with it
				unborn = append(unborn, path)
			}
		}
	}
	return unborn, nil
}
