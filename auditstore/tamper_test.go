package auditstore_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/stretchr/testify/require"
)

const records = 60 // of the log that is tampered with; slugs a, b, c in turn

// written makes a log of several batches and closes it.
func written(t testing.TB, change ...func(*auditstore.Config)) string {
	dir, r := t.TempDir(), random()
	s := open(t, dir, change...)
	for i := range records {
		_, err := s.Append(t.Context(), outcome(intent(slugOf(i), r), r))
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	return dir
}

func slugOf(i int) string { return string(rune('a' + i%3)) }

func key(prefix string, seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte(prefix), seq) }

func recKey(seq int) []byte { return recOf(slugOf(seq), uint64(seq)) }

// recOf is the key of a record in the first window.
func recOf(slug string, seq uint64) []byte { return key(string(key("a/", 0))+"r"+slug+"\x00", seq) }

func seqKey(seq int) []byte { return key(string(key("a/", 0))+"q", uint64(seq)) }

// tamper opens the log's database behind the log's back.
func tamper(t testing.TB, dir string, fn func(txn *badger.Txn) error) {
	t.Helper()
	db, err := badger.Open(auditstore.BadgerOptions(filepath.Join(dir, "badger")))
	require.NoError(t, err)
	require.NoError(t, db.Update(fn))
	require.NoError(t, db.Close())
}

func get(txn *badger.Txn, k []byte) ([]byte, error) {
	it, err := txn.Get(k)
	if err != nil {
		return nil, err
	}
	return it.ValueCopy(nil)
}

// change replaces the value under a key.
func change(txn *badger.Txn, k []byte, fn func(v []byte) []byte) error {
	v, err := get(txn, k)
	if err != nil {
		return err
	}
	return txn.Set(k, fn(v))
}

func swap(txn *badger.Txn, j, k []byte) error {
	v, err := get(txn, j)
	if err != nil {
		return err
	}
	w, err := get(txn, k)
	if err != nil {
		return err
	}
	if err := txn.Set(j, w); err != nil {
		return err
	}
	return txn.Set(k, v)
}

func flip(i int) func([]byte) []byte {
	return func(v []byte) []byte {
		if i < 0 {
			i += len(v)
		}
		v[i] ^= 1
		return v
	}
}

func TestThreat22Tamper(t *testing.T) {
	const at = 31 // completes several subtrees; slug b
	tests := []struct {
		name string
		do   func(txn *badger.Txn) error
		kind chain.DamageKind
		seqs []uint64 // each must be named
	}{
		{"flip a byte of the salt", func(x *badger.Txn) error { return change(x, recKey(at), flip(0)) }, chain.Changed, []uint64{at}},
		{"flip a byte of the record", func(x *badger.Txn) error { return change(x, recKey(at), flip(40)) }, chain.Changed, []uint64{at}},
		{"flip the last byte", func(x *badger.Txn) error { return change(x, recKey(at), flip(-1)) }, chain.Changed, []uint64{at}},
		{"cut a record", func(x *badger.Txn) error {
			return change(x, recKey(at), func(v []byte) []byte { return v[:len(v)-1] })
		}, chain.Changed, []uint64{at}},
		{"empty a record", func(x *badger.Txn) error { return x.Set(recKey(at), nil) }, chain.BadForm, []uint64{at}},
		{"delete a record", func(x *badger.Txn) error { return x.Delete(recKey(at)) }, chain.Missing, []uint64{at}},
		{"delete the last record's bytes", func(x *badger.Txn) error { return x.Delete(recKey(records - 1)) }, chain.Missing, []uint64{records - 1}},
		{"swap records of a slug", func(x *badger.Txn) error { return swap(x, recKey(at), recKey(at+3)) }, chain.Changed, []uint64{at, at + 3}},
		{"swap records of two slugs", func(x *badger.Txn) error { return swap(x, recKey(at), recKey(at+1)) }, chain.Changed, []uint64{at, at + 1}},
		{"move a record to another slug", func(x *badger.Txn) error {
			v, err := get(x, recKey(at))
			if err != nil {
				return err
			}
			if err := x.Delete(recKey(at)); err != nil {
				return err
			}
			return x.Set(recOf("c", at), v)
		}, chain.Unknown, []uint64{at}},
		{"insert a record of another slug", func(x *badger.Txn) error { return x.Set(recOf("zzz", at), []byte("x")) }, chain.Unknown, []uint64{at}},
		{"insert a record after the end", func(x *badger.Txn) error { return x.Set(recOf("b", records+7), []byte("x")) }, chain.Unknown, []uint64{records + 7}},
		{"flip a leaf hash", func(x *badger.Txn) error { return change(x, seqKey(at), flip(8+1+1)) }, chain.Changed, []uint64{at}},
		{"flip an inner hash", func(x *badger.Txn) error { return change(x, seqKey(at), flip(8+1+1+32+5)) }, chain.BadHash, []uint64{at}},
		{"flip the time in the index", func(x *badger.Txn) error { return change(x, seqKey(at), flip(7)) }, chain.BadIndex, []uint64{at}},
		{"another slug in the index", func(x *badger.Txn) error { return change(x, seqKey(at), flip(9)) }, chain.Unknown, []uint64{at}},
		{"drop the inner hashes", func(x *badger.Txn) error {
			return change(x, seqKey(at), func(v []byte) []byte { return v[:8+1+1+32] })
		}, chain.BadHash, []uint64{at}},
		{"cut the hashes", func(x *badger.Txn) error {
			return change(x, seqKey(at), func(v []byte) []byte { return v[:20] })
		}, chain.BadHash, []uint64{at}},
		{"delete the hashes", func(x *badger.Txn) error { return x.Delete(seqKey(at)) }, chain.Missing, []uint64{at}},
		{"swap the hashes", func(x *badger.Txn) error { return swap(x, seqKey(at), seqKey(at+3)) }, chain.Changed, []uint64{at, at + 3}},
		{"rewrite a record and its leaf", func(x *badger.Txn) error {
			v, err := get(x, recKey(at))
			if err != nil {
				return err
			}
			v = append(v[:16], bytes.Replace(v[16:], []byte(`"GET"`), []byte(`"PUT"`), 1)...)
			leaf := chain.Leaf(v[:16], v[16:])
			if err := x.Set(recKey(at), v); err != nil {
				return err
			}
			return change(x, seqKey(at), func(e []byte) []byte { copy(e[8+1+1:], leaf[:]); return e })
		}, chain.BadHash, []uint64{at}},
		{"delete a slug's day", func(x *badger.Txn) error { return x.Delete(key("d/b\x00", 1)) }, chain.BadIndex, []uint64{1}},
		{"delete the log's day", func(x *badger.Txn) error { return x.Delete(key("e/", 0)) }, chain.BadIndex, []uint64{0}},
		{"flip a day", func(x *badger.Txn) error { return change(x, key("d/b\x00", 1), flip(-1)) }, chain.BadIndex, []uint64{1}},
		{"insert a day", func(x *badger.Txn) error { return x.Set(key("d/b\x00", at), make([]byte, 8)) }, chain.BadIndex, []uint64{0}},
		{"insert a stranger", func(x *badger.Txn) error { return x.Set([]byte("zebra"), nil) }, chain.Unknown, []uint64{0}},
	}
	source := written(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyDir(t, source)
			tamper(t, dir, tt.do)
			r, err := auditstore.Check(t.Context(), dir, nil)
			require.NoError(t, err)
			for _, seq := range tt.seqs {
				require.True(t, slices.ContainsFunc(r.Damage, func(d chain.Damage) bool { return d.Seq == seq && d.Kind == tt.kind }),
					"want %s of %d in %v", tt.kind, seq, r.Damage)
			}
			require.LessOrEqual(t, len(r.Damage), 8, "one damage must not look like many: %v", r.Damage)
		})
	}
}

// Damage at the end is found by Open already, and by Check alike.
func TestThreat23Truncated(t *testing.T) {
	drop := func(n int) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			tamper(t, dir, func(x *badger.Txn) error {
				for seq := records - n; seq < records; seq++ {
					if err := x.Delete(seqKey(seq)); err != nil {
						return err
					}
					if err := x.Delete(recKey(seq)); err != nil {
						return err
					}
				}
				return x.Delete([]byte("m/seal"))
			})
		}
	}
	wal := func(fn func(b []byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			name := walOf(t, dir)
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(name, fn(b), 0o600))
		}
	}
	tests := []struct {
		name string
		do   func(t *testing.T, dir string)
	}{
		{"the last acknowledged batch", drop(1)},
		{"the last two", drop(2)},
		{"half", drop(30)},
		{"everything", drop(records)},
		{"the database", func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(filepath.Join(dir, "badger"))) }},
		{"the write-ahead log", func(t *testing.T, dir string) { require.NoError(t, os.Remove(walOf(t, dir))) }},
		{"the write-ahead log emptied", wal(func([]byte) []byte { return nil })},
		{"the write-ahead log cut by half", wal(func(b []byte) []byte { return b[:len(b)/2] })},
		{"the write-ahead log of a shorter log", wal(func([]byte) []byte { return auditstore.WALHead(records-2, chain.Hash{}) })},
		{"the write-ahead log of a longer log", wal(func([]byte) []byte { return auditstore.WALHead(records+2, chain.Hash{}) })},
		{"the write-ahead log of another log", wal(func([]byte) []byte { return auditstore.WALHead(records, chain.Hash{}) })},
		{"a write-ahead log of nonsense", wal(func([]byte) []byte { return []byte("hello\n") })},
		{"the seal", func(t *testing.T, dir string) {
			tamper(t, dir, func(x *badger.Txn) error { return change(x, []byte("m/seal"), flip(20)) })
		}},
		{"a seal beyond the end", func(t *testing.T, dir string) {
			tamper(t, dir, func(x *badger.Txn) error { return change(x, []byte("m/seal"), flip(6)) })
		}},
		{"the format", func(t *testing.T, dir string) {
			tamper(t, dir, func(x *badger.Txn) error { return x.Delete([]byte("m/format")) })
		}},
		{"a manifest of nonsense", func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "badger", "MANIFEST"), []byte("nonsense, and not short"), 0o600))
		}},
	}
	source := written(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyDir(t, source)
			tt.do(t, dir)
			r, err := auditstore.Check(t.Context(), dir, nil)
			if err != nil {
				require.ErrorIs(t, err, auditstore.ErrDamaged)
			} else {
				require.NotEmpty(t, r.Damage)
			}
			_, err = auditstore.Open(t.Context(), auditstore.Config{Dir: dir, MinFree: 1})
			require.ErrorIs(t, err, auditstore.ErrDamaged)
			require.ErrorContains(t, err, "hsagentd check")
		})
	}
}

// Whatever byte of whatever file is wrong: it is found, or no record is lost.
func TestThreat24BitRot(t *testing.T) {
	for _, crashed := range []bool{false, true} {
		t.Run(fmt.Sprintf("crashed=%v", crashed), func(t *testing.T) {
			source, acked := written(t), map[uint64]string{}
			if crashed {
				source = t.TempDir()
				acked = kill(t, source, 40)
			}
			good, err := auditstore.Check(t.Context(), copyDir(t, source), nil)
			require.NoError(t, err)
			require.Empty(t, good.Damage)
			r := rand.New(rand.NewPCG(3, 4))
			found, flips := 0, map[string]int{}
			for n := range 100 {
				dir := copyDir(t, source)
				files, err := filepath.Glob(filepath.Join(dir, "badger", "*"))
				require.NoError(t, err)
				files = slices.DeleteFunc(append(files, walOf(t, dir)), func(f string) bool {
					fi, err := os.Stat(f)
					return err != nil || fi.Size() == 0 || strings.HasSuffix(f, "LOCK")
				})
				name := files[n%len(files)]
				b, err := os.ReadFile(name)
				require.NoError(t, err)
				used := max(1, len(bytes.TrimRight(b, "\x00"))) // the rest of a log file is not in use
				i := r.IntN(used)
				flips[strings.TrimLeft(filepath.Base(name), "0123456789")]++
				b[i] ^= 1 << r.IntN(8)
				require.NoError(t, os.WriteFile(name, b, 0o600))
				got, err := auditstore.Check(t.Context(), dir, nil)
				if err != nil || !got.OK() {
					found++
					continue
				}
				if crashed && got.Records < good.Records { // by the batch that nobody waits for any more
					s := open(t, dir)
					requireAcked(t, s, acked)
					require.Contains(t, strings.Join(s.Notes(), "; "), "never acknowledged")
					require.NoError(t, s.Close())
					continue
				}
				require.Equal(t, good, got, "%s, byte %d: nobody noticed", name, i)
			}
			require.Positive(t, found)
			require.GreaterOrEqual(t, len(flips), 6, "files of every kind: %v", flips)
			t.Logf("%v flipped, %d noticed, nothing lost in silence", flips, found)
		})
	}
}

func copyDir(t testing.TB, from string) string {
	to := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(to, "log"), os.DirFS(from)))
	return filepath.Join(to, "log")
}
