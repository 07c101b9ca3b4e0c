package chain

import "fmt"

// A Damage is one thing wrong with a log.
type Damage struct {
	Seq    uint64 // the record, or where in the log it was noticed
	Kind   DamageKind
	Detail string
}

// A DamageKind tells what is wrong.
type DamageKind string

// The kinds of damage.
const (
	Missing  DamageKind = "missing"  // a record is not there
	Changed  DamageKind = "changed"  // its bytes or salt do not give its hash
	Unknown  DamageKind = "unknown"  // there is an entry that no log wrote
	BadHash  DamageKind = "hash"     // a hash of the tree does not follow from those below it
	BadRoot  DamageKind = "root"     // the tree is not the one that the witness saw
	BadOrder DamageKind = "order"    // a record stands where another one belongs
	BadIndex DamageKind = "index"    // an entry that serves queries contradicts the records
	BadForm  DamageKind = "encoding" // not in the one encoding of a record
)

// String says it in one line.
func (d Damage) String() string {
	return fmt.Sprintf("record %d: %s: %s", d.Seq, d.Kind, d.Detail)
}

// MaxDamage is how many damages a report lists; Report.Damaged counts all.
const MaxDamage = 1000

// A Report is the result of a verification.
type Report struct {
	Records uint64   // records looked at
	Root    Hash     // of the tree over them, computed anew
	Damage  []Damage // at most MaxDamage, in the order found
	Damaged uint64   // all that was found
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return r.Damaged == 0 }

// Add notes a damage.
func (r *Report) Add(seq uint64, k DamageKind, format string, args ...any) {
	r.Damaged++
	if len(r.Damage) < MaxDamage {
		r.Damage = append(r.Damage, Damage{Seq: seq, Kind: k, Detail: fmt.Sprintf(format, args...)})
	}
}
