package auditstore_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkAppend measures durable appends beside a bare file that does the
// same group commit with fdatasync and nothing else, and beside Badger with a
// transaction for each record.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("log/%d", writers), func(b *testing.B) {
			s := open(b, b.TempDir())
			spread(b, writers, func(rec chain.Record) error {
				_, err := s.Append(b.Context(), rec)
				return err
			})
		})
		b.Run(fmt.Sprintf("file/%d", writers), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "log"))
			require.NoError(b, err)
			g := &groupFile{f: f, wake: make(chan struct{}, 1)}
			go g.run()
			defer close(g.wake)
			spread(b, writers, func(rec chain.Record) error {
				line, err := rec.Encode()
				if err != nil {
					return err
				}
				return g.append(line)
			})
			require.NoError(b, f.Close())
		})
		b.Run(fmt.Sprintf("badger/%d", writers), func(b *testing.B) {
			db, err := badger.Open(badger.DefaultOptions(b.TempDir()).WithSyncWrites(true).WithLogger(nil))
			require.NoError(b, err)
			var seq atomic.Uint64
			spread(b, writers, func(rec chain.Record) error {
				line, err := rec.Encode()
				if err != nil {
					return err
				}
				return db.Update(func(txn *badger.Txn) error { return txn.Set(seqKey(int(seq.Add(1))), line) })
			})
			require.NoError(b, db.Close())
		})
	}
}

func spread(b *testing.B, writers int, appendOne func(chain.Record) error) {
	recs := make([]chain.Record, 1024)
	r := random()
	for i := range recs {
		recs[i] = intent(fmt.Sprintf("slug-%d", i%100), r)
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := w; i < b.N; i += writers {
				if err := appendOne(recs[i%len(recs)]); err != nil {
					b.Errorf("append: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// A groupFile is the least that a durable log can be: one goroutine writes and
// syncs what has been brought meanwhile.
type groupFile struct {
	f       *os.File
	mu      sync.Mutex
	buf     []byte
	waiting []chan error
	wake    chan struct{}
}

func (g *groupFile) append(line []byte) error {
	done := make(chan error, 1)
	g.mu.Lock()
	g.buf = append(append(g.buf, line...), '\n')
	g.waiting = append(g.waiting, done)
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
	return <-done
}

func (g *groupFile) run() {
	for range g.wake {
		g.mu.Lock()
		buf, waiting := g.buf, g.waiting
		g.buf, g.waiting = nil, nil
		g.mu.Unlock()
		_, err := g.f.Write(buf)
		if err == nil {
			err = unix.Fdatasync(int(g.f.Fd()))
		}
		for _, w := range waiting {
			w <- err
		}
	}
}

// filled is a log of n records of 100 slugs, spread over a year. It reports
// what a record takes on disk, and as JSONL.
func filled(b *testing.B, n int) (*auditstore.Store, time.Time) {
	_, key := keys(b)
	dir, r := b.TempDir(), random()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := open(b, dir, key, func(c *auditstore.Config) { c.Lag = time.Hour })
	step := 365 * 24 * time.Hour / time.Duration(n)
	for i := 0; i < n; i += 2 {
		rec := intent(fmt.Sprintf("slug-%d", r.IntN(100)), r)
		rec.TS = wire.At(start.Add(time.Duration(i) * step))
		require.NoError(b, s.AppendLazy(rec))
		out := outcome(rec, r)
		out.TS = rec.TS
		require.NoError(b, s.AppendLazy(out))
		if i%1000 == 0 {
			require.NoError(b, s.Flush(b.Context()))
		}
	}
	require.NoError(b, s.Close())
	var bytes, lines int64
	require.NoError(b, filepath.Walk(dir, func(_ string, fi fs.FileInfo, err error) error {
		if err == nil && fi.Mode().IsRegular() {
			bytes += fi.Size()
		}
		return err
	}))
	began := time.Now()
	s = open(b, dir, key)
	b.Logf("opened in %v", time.Since(began))
	require.NoError(b, s.Records(b.Context(), chain.Filter{}, func(raw []byte, _ *chain.Record) error {
		lines += int64(len(raw)) + 1
		return nil
	}))
	b.Logf("%d records: %.0f bytes each on disk, %.0f as JSONL: %.2f", n, float64(bytes)/float64(n), float64(lines)/float64(n), float64(bytes)/float64(lines))
	return s, start
}

func size() int {
	if n, err := strconv.Atoi(os.Getenv("AUDIT_BENCH_RECORDS")); err == nil {
		return n
	}
	return 100_000
}

// BenchmarkRead measures queries and verification of a log of
// AUDIT_BENCH_RECORDS records (100,000 if unset).
func BenchmarkRead(b *testing.B) {
	s, start := filled(b, size())
	month := chain.Filter{Slug: "slug-7", From: start.AddDate(0, 5, 0), To: start.AddDate(0, 6, 0)}
	read := func(b *testing.B, f chain.Filter) {
		n := 0
		for b.Loop() {
			n = 0
			require.NoError(b, s.Records(b.Context(), f, func([]byte, *chain.Record) error { n++; return nil }))
		}
		b.ReportMetric(float64(n), "records")
		b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "records/s")
	}
	b.Run("SlugMonth", func(b *testing.B) { read(b, month) })
	b.Run("Slug", func(b *testing.B) { read(b, chain.Filter{Slug: "slug-7"}) })
	b.Run("Day", func(b *testing.B) { read(b, chain.Filter{From: start.AddDate(0, 5, 0), To: start.AddDate(0, 5, 1)}) })
	b.Run("All", func(b *testing.B) { read(b, chain.Filter{}) })
	b.Run("Usage", func(b *testing.B) {
		for b.Loop() {
			_, err := s.Usage("slug-7", month.From, time.Time{})
			require.NoError(b, err)
		}
	})
	b.Run("Prove", func(b *testing.B) {
		r := random()
		for b.Loop() {
			_, err := s.Prove(b.Context(), r.Uint64N(s.Status().Size))
			require.NoError(b, err)
		}
	})
	b.Run("Verify", func(b *testing.B) {
		var r chain.Report
		for b.Loop() {
			r = verified(b, s)
		}
		b.ReportMetric(float64(r.Records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
}
