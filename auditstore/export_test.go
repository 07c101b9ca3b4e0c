package auditstore

import (
	"errors"
	"log/slog"
	"os"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// DefaultMinFree is the floor of free space that the documents name.
const DefaultMinFree = defaultMinFree

// SetNow replaces the clock.
func (c *Config) SetNow(now func() time.Time) { c.now = now }

// BreakWAL makes the next write of the write-ahead log fail.
func (s *Store) BreakWAL() error { f, _ := s.wal.file(); return f.Close() }

// BreakDatabase makes the next write of the database fail.
func (s *Store) BreakDatabase() error { return s.db.Close() }

// BadgerOptions are those that Open uses.
func BadgerOptions(dir string) badger.Options {
	return badgerOptions(dir, &badgerLog{log: slog.New(slog.DiscardHandler)})
}

// SetMinFree makes the disk look full, or not.
func (s *Store) SetMinFree(n uint64) { s.minFree.Store(n) }

// MaxSegment is the size at which the write-ahead log goes on in its other file.
const MaxSegment = maxSegment

// MaxPlaces is how many slugs' places the log keeps in memory.
const MaxPlaces = maxPlaces

// Places is how many it keeps. Nothing may be written meanwhile.
func (s *Store) Places() int { return len(s.seq.index.slugs) }

// SetFillLag is how long the write-ahead log may be ahead of the database.
func (c *Config) SetFillLag(d time.Duration) { c.fillLag = d }

// WALHead is the head of a write-ahead log's file.
func WALHead(size uint64, root chain.Hash) []byte {
	return appendHead(nil, 1<<63, sighting{size, root})
}

// WALFrames tells where the frames in a file of the write-ahead log begin, and
// where the last one ends.
func WALFrames(path string) (at []int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, _, err := newSegmentReader(f)
	for err == nil {
		at = append(at, r.end)
		_, err = r.next()
	}
	if errors.Is(err, errTorn) {
		err = nil
	}
	return at, err
}

// SealNow does what the timer does a minute after the last record.
func (s *Store) SealNow() { s.sealTime() }

// ReadWAL reads the write-ahead log as [Store.Verify] does, and calls meanwhile
// when it has asked how far that goes. It reports whether it was read.
func (s *Store) ReadWAL(meanwhile func()) (bool, error) {
	h, err := readLive(func() segment {
		defer meanwhile()
		return s.writtenSegment()
	})
	return h != nil, err
}
