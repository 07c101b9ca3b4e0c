package chain

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/wire"
	"golang.org/x/mod/sumdb/tlog"
)

// What the errors of a log wrap that whoever asks can do something about.
var (
	// ErrNoRecord means that the log has no record of that number.
	ErrNoRecord = errors.New("there is no such record")
	// ErrHeld means that a slug's records are held back from pruning.
	ErrHeld = errors.New("its records are under a legal hold")
)

// A Range is a stretch of numbers, both ends in it.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// AddTo appends n to ranges that are in order.
func AddTo(ranges []Range, n uint64) []Range {
	if l := len(ranges); l > 0 && ranges[l-1].Last+1 == n {
		ranges[l-1].Last = n
		return ranges
	}
	return append(ranges, Range{n, n})
}

// String writes a range as "7" or "7-9".
func (r Range) String() string {
	s := strconv.FormatUint(r.First, 10)
	if r.Last != r.First {
		s += "-" + strconv.FormatUint(r.Last, 10)
	}
	return s
}

func parseRange(s string) (r Range, ok bool) {
	first, last, two := strings.Cut(s, "-")
	var err1, err2 error
	r.First, err1 = strconv.ParseUint(first, 10, 63)
	if r.Last = r.First; two {
		r.Last, err2 = strconv.ParseUint(last, 10, 63)
	}
	return r, err1 == nil && err2 == nil && r.First <= r.Last && r.String() == s
}

// A Pruning is what a record of kind [AuditPruned] says: which records have
// lost their bytes and salts on purpose.
type Pruning struct {
	Before time.Time
	Seqs   []Range // in order
}

const prunedWords = "records before "

// Reason is how the record says it.
func (p *Pruning) Reason() string {
	var b strings.Builder
	b.WriteString(prunedWords + wire.At(p.Before).String() + ": ")
	for i, r := range p.Seqs {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(r.String())
	}
	return b.String()
}

// ParsePruning reads what a record of kind [AuditPruned] says.
func ParsePruning(r *Record) (*Pruning, error) {
	rest, ok := strings.CutPrefix(r.Reason, prunedWords)
	when, list, ok2 := strings.Cut(rest, ": ")
	at, err := time.Parse(wire.TimeFormat, when)
	if r.Kind != AuditPruned || !ok || !ok2 || err != nil {
		return nil, fmt.Errorf("record %d does not say what was pruned", r.Seq)
	}
	p := &Pruning{Before: at}
	for s := range strings.SplitSeq(list, ",") {
		one, ok := parseRange(s)
		if !ok || one.Last >= r.Seq || len(p.Seqs) > 0 && one.First <= p.Seqs[len(p.Seqs)-1].Last {
			return nil, fmt.Errorf("record %d does not say what was pruned", r.Seq)
		}
		p.Seqs = append(p.Seqs, one)
	}
	return p, nil
}

// A Gap is what a record of kind [AuditGap] says: that the log was once
// another, or longer, and that an operator has accepted the loss.
type Gap struct {
	Seq  uint64 `json:"seq"`  // of the record
	Kept uint64 `json:"kept"` // records before it, which are there
	Lost uint64 `json:"lost"` // size of the log that is lost
	Root Hash   `json:"root"` // of that one
}

// Reason is how the record says it.
func (g *Gap) Reason() string {
	return fmt.Sprintf("loss accepted: the log of %d records with root %s is lost; this one goes on after %d", g.Lost, g.Root, g.Kept)
}

// ParseGap reads what a record of kind [AuditGap] says.
func ParseGap(r *Record) (*Gap, error) {
	g := &Gap{Seq: r.Seq}
	var root string
	n, err := fmt.Sscanf(r.Reason, "loss accepted: the log of %d records with root %s is lost; this one goes on after %d", &g.Lost, &root, &g.Kept)
	if err == nil && n == 3 {
		g.Root, err = tlog.ParseHash(root)
	}
	if err != nil || r.Kind != AuditGap || g.Reason() != r.Reason {
		return nil, fmt.Errorf("record %d does not say what was lost", r.Seq)
	}
	return g, nil
}

// IsStatement reports whether a record of that kind is about the log itself. A
// verifier needs it, so it is never pruned.
func (k Kind) IsStatement() bool {
	return k == AuditKey || k == AuditGap || k == AuditPruned
}
