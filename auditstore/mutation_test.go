package auditstore_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/stretchr/testify/require"
)

// Mutations, more than 1,000 in all: of the database's entries, of its files as they lie on
// disk, of the other files in the directory, of the directory as a whole, and of
// exports.
const (
	ofEntries = 400
	ofTables  = 100
	ofFiles   = 80
	ofCopies  = 55 // each of eleven with each sink of a later one
	ofExports = 400
)

// parts are what a mutation changes one of.
type parts interface {
	len() int
	get(i int) []byte
	set(i int, b []byte)
	remove(i int)
	insert(i int, b []byte)
}

var mutations = []string{"flip", "delete", "swap", "duplicate", "insert", "truncate"}

// mutate does one random mutation. It returns what it did, or "" if nothing
// came of it.
func mutate(r *rand.Rand, p parts) string {
	i, j := r.IntN(p.len()), r.IntN(p.len())
	b := bytes.Clone(p.get(i))
	kind := mutations[r.IntN(len(mutations))]
	switch {
	case kind == "flip" && len(b) > 0:
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		p.set(i, b)
	case kind == "delete":
		p.remove(i)
	case kind == "swap" && !bytes.Equal(b, p.get(j)):
		p.set(i, bytes.Clone(p.get(j)))
		p.set(j, b)
	case kind == "duplicate":
		p.insert(j, b)
	case kind == "insert":
		junk := make([]byte, 1+r.IntN(80))
		for k := range junk {
			junk[k] = byte(r.Uint32())
		}
		p.insert(i, junk)
	case kind == "truncate" && len(b) > 0:
		p.set(i, b[:r.IntN(len(b))])
	default:
		return ""
	}
	return fmt.Sprintf("%s %d, %d", kind, i, j)
}

// subject is a log that has a bit of everything, with a sink elsewhere, and
// copies of both from each of its starts.
func subject(t *testing.T, starts int) (dir string, c auditstore.Config, before []string, sinks [][]byte) {
	_, signed := keys(t)
	dir = t.TempDir()
	sink := filepath.Join(t.TempDir(), "elsewhere")
	c = auditstore.Config{Dir: dir, MinFree: 1, Sink: auditstore.FileSink(sink)}
	signed(&c)
	for i := range starts {
		s, err := auditstore.Open(t.Context(), c)
		require.NoError(t, err)
		grow(t, s, 6)
		if i == 2 {
			_, err := s.Prune(t.Context(), "b", time.Now().Add(time.Hour), nil)
			require.NoError(t, err)
		}
		require.NoError(t, s.Close())
		b, err := os.ReadFile(sink)
		require.NoError(t, err)
		before, sinks = append(before, copyDir(t, dir)), append(sinks, b)
	}
	r, err := auditstore.CheckSigned(t.Context(), c)
	require.NoError(t, err)
	require.Empty(t, r.Damage)
	return dir, c, before, sinks
}

func TestThreat22MutatedDatabase(t *testing.T) {
	source, c, _, _ := subject(t, 5)
	r := rand.New(rand.NewPCG(22, 1))
	found := map[string]int{}
	for n := range ofEntries {
		c.Dir = copyDir(t, source)
		db, err := badger.Open(auditstore.BadgerOptions(filepath.Join(c.Dir, "badger")))
		require.NoError(t, err)
		var what string
		var touched []string
		for what == "" {
			txn := db.NewTransaction(true)
			e := &entries{t: t, txn: txn, r: r}
			e.read()
			if what = mutate(r, e); what != "" {
				require.NoError(t, txn.Commit())
			}
			txn.Discard()
			touched = e.touched
		}
		require.NoError(t, db.Close())
		rep, err := auditstore.CheckSigned(t.Context(), c)
		if err == nil {
			require.NotEmpty(t, rep.Damage, "mutation %d: %s of %q", n, what, touched)
		}
		found[what[:4]]++
	}
	require.Len(t, found, len(mutations))
}

// entries are those of the database.
type entries struct {
	t       *testing.T
	txn     *badger.Txn
	r       *rand.Rand
	keys    [][]byte
	touched []string
}

// read lists the keys. Those that only say what is to be compacted or erased
// mean nothing to a verification.
func (e *entries) read() {
	it := e.txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		k := it.Item().KeyCopy(nil)
		if s := string(k); s != "m/flatten" && s != "m/erased" && s != "m/pruned" {
			e.keys = append(e.keys, k)
		}
	}
}

func (e *entries) len() int { return len(e.keys) }

func (e *entries) get(i int) []byte {
	v, err := get(e.txn, e.keys[i])
	require.NoError(e.t, err)
	return v
}

// set keeps the mark of a stub.
func (e *entries) set(i int, b []byte) {
	e.touched = append(e.touched, string(e.keys[i]))
	it, err := e.txn.Get(e.keys[i])
	require.NoError(e.t, err)
	require.NoError(e.t, e.txn.SetEntry(badger.NewEntry(e.keys[i], b).WithMeta(it.UserMeta())))
}

func (e *entries) remove(i int) {
	e.touched = append(e.touched, string(e.keys[i]))
	require.NoError(e.t, e.txn.Delete(e.keys[i]))
}

// insert puts a value under a key like that of entry i.
func (e *entries) insert(i int, b []byte) {
	k := bytes.Clone(e.keys[i])
	for {
		k[2+e.r.IntN(len(k)-2)] ^= 1 << e.r.IntN(8)
		if _, err := e.txn.Get(k); err == badger.ErrKeyNotFound { //nolint:errorlint // Badger returns it as it is
			break
		}
	}
	e.touched = append(e.touched, string(k))
	require.NoError(e.t, e.txn.Set(k, b))
}

// lines are those of a file.
type lines struct{ all [][]byte }

func (l *lines) len() int               { return len(l.all) }
func (l *lines) get(i int) []byte       { return l.all[i] }
func (l *lines) set(i int, b []byte)    { l.all[i] = b }
func (l *lines) remove(i int)           { l.all = slices.Delete(l.all, i, i+1) }
func (l *lines) insert(i int, b []byte) { l.all = slices.Insert(l.all, i, b) }

// mutateLines mutates a text until it is another one.
func mutateLines(r *rand.Rand, text []byte) ([]byte, string) {
	for {
		l := &lines{bytes.SplitAfter(bytes.Clone(text), []byte("\n"))}
		l.all = l.all[:len(l.all)-1] // nothing is behind the last newline
		if what := mutate(r, l); what != "" {
			if out := bytes.Join(l.all, nil); !bytes.Equal(out, text) {
				return out, what
			}
		}
	}
}

// The write-ahead log, and the last checkpoint in the file: one in the middle of that
// file can go without a trace, since the copies elsewhere are what counts.
func TestThreat22MutatedFiles(t *testing.T) {
	dir, c, _, _ := subject(t, 5)
	r := rand.New(rand.NewPCG(22, 2))
	for n := range ofFiles {
		file := []string{walOf(t, dir), filepath.Join(dir, "checkpoints")}[n%2]
		good, err := os.ReadFile(file)
		require.NoError(t, err)
		head, tail := []byte(nil), good
		var bad []byte
		var what string
		if n%2 == 1 {
			i := bytes.LastIndex(good, []byte("\n\nhsagentd/")) + 2
			head, tail = good[:i], bytes.TrimSuffix(good[i:], []byte("\n"))
			bad, what = mutateLines(r, tail)
		} else {
			bad, what = mutateBytes(r, tail, 8)
		}
		require.NoError(t, os.WriteFile(file, append(bytes.Clone(head), bad...), 0o600))
		rep, err := auditstore.CheckSigned(t.Context(), c)
		require.True(t, err != nil || !rep.OK(), "mutation %d of %s: %s:\n%q", n, file, what, bad)
		require.NoError(t, os.WriteFile(file, good, 0o600))
	}
}

// mutateBytes mutates pieces of a size until there is another text.
func mutateBytes(r *rand.Rand, text []byte, size int) ([]byte, string) {
	for {
		l := &lines{slices.Collect(slices.Chunk(bytes.Clone(text), size))}
		if what := mutate(r, l); what != "" {
			if out := bytes.Join(l.all, nil); !bytes.Equal(out, text) {
				return out, what
			}
		}
	}
}

// Of a directory that was closed, the bytes of the database's own files: what
// nobody notices has changed nothing, not a byte of any record.
func TestThreat22MutatedTables(t *testing.T) {
	source, c, _, _ := subject(t, 5)
	good, err := auditstore.CheckSigned(t.Context(), c)
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(22, 5))
	found := 0
	for n := range ofTables {
		dir := copyDir(t, source)
		files, err := filepath.Glob(filepath.Join(dir, "badger", "*.sst"))
		require.NoError(t, err)
		files = append(files, filepath.Join(dir, "badger", "MANIFEST"))
		file := files[r.IntN(len(files))]
		whole, err := os.ReadFile(file)
		require.NoError(t, err)
		bad, what := mutateBytes(r, whole, []int{1, 16, 256}[n%3])
		require.NoError(t, os.WriteFile(file, bad, 0o600))
		c.Dir = dir
		rep, err := auditstore.CheckSigned(t.Context(), c)
		if err != nil || !rep.OK() {
			found++
			continue
		}
		require.Equal(t, good, rep, "mutation %d of %s: %s", n, file, what)
	}
	require.Greater(t, found, ofTables/2)
}

// A directory that is put back as it once was is told by the sink.
func TestThreat23MutatedCopies(t *testing.T) {
	_, c, before, sinks := subject(t, 11)
	n := 0
	for older := range before {
		for newer := older + 1; newer < len(before); newer++ {
			n++
			c.Dir = copyDir(t, before[older])
			sink := filepath.Join(t.TempDir(), "elsewhere")
			require.NoError(t, os.WriteFile(sink, sinks[newer], 0o600))
			c.Sink = auditstore.FileSink(sink)
			_, err := auditstore.Open(t.Context(), c)
			require.ErrorIs(t, err, auditstore.ErrLoss, "the copy %d, when %d was known", older, newer)
			rep, err := auditstore.CheckSigned(t.Context(), c)
			require.NoError(t, err)
			require.NotEmpty(t, rep.Damage)
		}
	}
	require.Equal(t, ofCopies, n)
}

func TestThreat22MutatedExports(t *testing.T) {
	ks, signed := keys(t)
	s := open(t, t.TempDir(), signed)
	grow(t, s, 60)
	_, first := exported(t, s, "a", ks)
	_, err := s.Prune(t.Context(), "a", time.Now().Add(time.Hour), nil)
	require.NoError(t, err)
	grow(t, s, 60)
	_, second := exported(t, s, "a", ks)
	r := rand.New(rand.NewPCG(22, 4))
	found := map[string]int{}
	for n := range ofExports {
		bad, what := mutateLines(r, [][]byte{first, second}[n%2])
		rep, err := chain.VerifyExport(bytes.NewReader(bad), ks.Verifiers(), nil)
		if err == nil {
			require.NotEmpty(t, rep.Damage, "mutation %d: %s", n, what)
		}
		found[what[:4]]++
	}
	require.Len(t, found, len(mutations))
}
