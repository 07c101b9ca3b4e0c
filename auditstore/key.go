package auditstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"golang.org/x/mod/sumdb/tlog"
)

// The log's keys. Numbers are big endian, so that Badger's order is theirs.
//
//	a/<from>q<seq>  every record: time, slug, and the hashes it adds to the tree
//	a/<from>r<slug>\0<seq>
//	                its salt and stored bytes; records without a slug under ""
//	d/<slug>\0<seq> the day of the record, if the slug's record before has another
//	e/<seq>         the same for the log as a whole
//	x/<seq>         a record about the log itself, such as what was pruned
//	m/<name>        about the log itself
//
// Where a record was pruned, a stub stands in its place.
//
// From is the first sequence of the record's window. What is written stands
// behind all that was written before, but for the window at the end and for
// what is small; nothing stands before a/. So tables are merged at the end of
// the log, and no work grows with it. In a window a slug's records stand
// together.
//
// The d/ and e/ entries cut the log into runs of one day each. A time range is
// the runs whose day lies in it: no scan, and exact whatever the clock did.
const (
	windowPrefix = "a/"
	dayPrefix    = "d/"
	wholeDay     = "e/"
	metaPrefix   = "m/"

	rowMark = 'q'
	recMark = 'r'

	statePrefix = "x/"

	formatKey = metaPrefix + "format"
	sealKey   = metaPrefix + "seal"

	checkpointKey = metaPrefix + "checkpoint" // the last one, as a signed note
	keysKey       = metaPrefix + "keys"       // that sign now, a verifier key in each line
	erasedKey     = metaPrefix + "erased"     // the last record about pruning that was carried out
	prunedKey     = metaPrefix + "pruned"     // how far the log was pruned as a whole, and what was held then
	flattenKey    = metaPrefix + "flatten"    // there if tables may hold what was erased

	format = "2"
)

var errShort = errors.New("too short to be an entry")

func seqKey(prefix string, seq uint64) []byte {
	b := make([]byte, 0, len(prefix)+8)
	return binary.BigEndian.AppendUint64(append(b, prefix...), seq)
}

// slugDays is what the keys of a slug's days begin with.
func slugDays(slug string) []byte {
	b := make([]byte, 0, len(dayPrefix)+len(slug)+1+8)
	b = append(b, dayPrefix...)
	b = append(b, slug...)
	return append(b, 0)
}

func slugDay(slug string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(slugDays(slug), seq)
}

// window is how many records stand together, those of a slug beside each other.
// They are also verified together.
const window = 1 << 14

// windowOf returns the first sequence of seq's window.
func windowOf(seq uint64) uint64 { return seq &^ (window - 1) }

// windowKey is what all keys of the window that begins with from begin with.
func windowKey(from uint64) []byte {
	b := make([]byte, 0, len(windowPrefix)+8+1+8)
	return binary.BigEndian.AppendUint64(append(b, windowPrefix...), from)
}

// rowsIn is what the keys of the entries in one window begin with.
func rowsIn(from uint64) []byte { return append(windowKey(from), rowMark) }

// rowKey is where the entry of a record is.
func rowKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(rowsIn(windowOf(seq)), seq) }

// recSlug is what the keys of a slug's records in one window begin with.
func recSlug(slug string, from uint64) []byte {
	b := make([]byte, 0, len(windowPrefix)+8+1+len(slug)+1+8)
	b = binary.BigEndian.AppendUint64(append(b, windowPrefix...), from)
	b = append(append(b, recMark), slug...)
	return append(b, 0)
}

// recKey is where the bytes of a record are.
func recKey(slug string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(recSlug(slug, windowOf(seq)), seq)
}

// inWindow is how many bytes stand before a mark.
const inWindow = len(windowPrefix) + 8

// parseRowKey takes apart what rowKey made.
func parseRowKey(k []byte) (seq uint64, ok bool) {
	if len(k) != inWindow+1+8 || k[inWindow] != rowMark {
		return 0, false
	}
	seq, _ = keySeq(k)
	return seq, binary.BigEndian.Uint64(k[len(windowPrefix):]) == windowOf(seq)
}

// parseRecKey takes apart what recKey made.
func parseRecKey(k []byte) (slug string, seq uint64, ok bool) {
	if len(k) < inWindow+1+1+8 || k[inWindow] != recMark {
		return "", 0, false
	}
	seq, _ = keySeq(k)
	name := k[inWindow+1 : len(k)-9]
	ok = k[len(k)-9] == 0 && bytes.IndexByte(name, 0) < 0 && binary.BigEndian.Uint64(k[len(windowPrefix):]) == windowOf(seq)
	return string(name), seq, ok
}

// keySeq returns the sequence at the end of a key.
func keySeq(k []byte) (uint64, bool) {
	if len(k) < 10 {
		return 0, false
	}
	return binary.BigEndian.Uint64(k[len(k)-8:]), true
}

// An entry is what the log knows of a record beside its bytes.
type entry struct {
	millis int64 // of the record's time
	slug   string
	hashes []chain.Hash // its leaf and the subtrees that it completes, by level
}

func (e *entry) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(e.millis)) //nolint:gosec // back in parseEntry
	b = append(append(b, byte(len(e.slug))), e.slug...)    //nolint:gosec // at most wire.MaxSlug
	for i := range e.hashes {
		b = append(b, e.hashes[i][:]...)
	}
	return b
}

func parseEntry(b []byte) (entry, error) {
	if len(b) < 9 {
		return entry{}, errShort
	}
	n := int(b[8])
	rest := b[9:]
	if len(rest) < n+tlog.HashSize || (len(rest)-n)%tlog.HashSize != 0 {
		return entry{}, errShort
	}
	e := entry{
		millis: int64(binary.BigEndian.Uint64(b)), //nolint:gosec // as it was put
		slug:   string(rest[:n]),
	}
	for rest = rest[n:]; len(rest) > 0; rest = rest[tlog.HashSize:] {
		e.hashes = append(e.hashes, chain.Hash(rest[:tlog.HashSize]))
	}
	return e, nil
}

// stubMeta marks a stub in Badger's own byte for that.
const stubMeta = 1

func isStub(it *badger.Item) bool { return it.UserMeta() == stubMeta }

// A stub is what is left of a pruned record beside its hash: what it takes to
// go on counting.
type stub struct {
	millis int64
	next   uint64 // the slugSeq after it; 0: it had none
	intent bool
}

// bytes encodes the stub, with a sum that binds it to the leaf in whose place it
// stands.
func (s *stub) bytes(leaf chain.Hash) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(s.millis)) //nolint:gosec // back in parseStub
	b = binary.BigEndian.AppendUint64(b, s.next)
	intent := byte(0)
	if s.intent {
		intent = 1
	}
	b = append(b, intent)
	return append(b, stubSum(b, leaf)...)
}

const stubSize = 8 + 8 + 1

func stubSum(b []byte, leaf chain.Hash) []byte {
	sum := sha256.Sum256(append(leaf[:], b[:stubSize]...))
	return sum[:8]
}

func parseStub(b []byte) (stub, error) {
	if len(b) != stubSize+8 || b[16] > 1 {
		return stub{}, errShort
	}
	return stub{
		millis: int64(binary.BigEndian.Uint64(b)), //nolint:gosec // as it was put
		next:   binary.BigEndian.Uint64(b[8:]),
		intent: b[16] == 1,
	}, nil
}

// A day counts from 1970-01-01, UTC.
type day int64

func dayOf(t time.Time) day { return dayOfMillis(t.UnixMilli()) }

func dayOfMillis(ms int64) day {
	const length = 24 * 60 * 60 * 1000
	d := ms / length
	if ms%length < 0 {
		d--
	}
	return day(d)
}

// begin is the day's first instant.
func (d day) begin() time.Time { return time.Unix(int64(d)*24*60*60, 0).UTC() }

func (d day) bytes() []byte { return binary.BigEndian.AppendUint64(nil, uint64(d)) } //nolint:gosec // back in parseDay

func parseDay(b []byte) (day, error) {
	if len(b) != 8 {
		return 0, errShort
	}
	return day(binary.BigEndian.Uint64(b)), nil //nolint:gosec // as it was put
}

// A seal says how far the log has been written with everything in order, so
// that opening it need not look at what lies before. A signed checkpoint of the
// same size stands beside it.
type seal struct {
	size uint64
	root chain.Hash
	open uint64 // the lowest sequence of an intent without outcome, or size
}

func (s *seal) bytes() []byte {
	b := binary.BigEndian.AppendUint64(nil, s.size)
	b = append(b, s.root[:]...)
	return binary.BigEndian.AppendUint64(b, s.open)
}

const sealSize = 8 + tlog.HashSize + 8

func parseSeal(b []byte) (seal, error) {
	if len(b) != sealSize {
		return seal{}, errShort
	}
	s := seal{
		size: binary.BigEndian.Uint64(b),
		root: chain.Hash(b[8 : 8+tlog.HashSize]),
		open: binary.BigEndian.Uint64(b[8+tlog.HashSize:]),
	}
	if s.open > s.size {
		return seal{}, errors.New("names an open intent that is not in it")
	}
	return s, nil
}
