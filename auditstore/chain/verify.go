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
	Missing  DamageKind = "missing"    // a record is not there
	Changed  DamageKind = "changed"    // its bytes or salt do not give its hash
	Unknown  DamageKind = "unknown"    // there is an entry that no log wrote
	BadHash  DamageKind = "hash"       // a hash of the tree does not follow from those below it
	BadRoot  DamageKind = "root"       // the tree is not the one that the write-ahead log or a checkpoint saw
	BadOrder DamageKind = "order"      // a record stands where another one belongs
	BadIndex DamageKind = "index"      // an entry that serves queries contradicts the records
	BadForm  DamageKind = "encoding"   // not in the one encoding of a record
	BadNote  DamageKind = "checkpoint" // a checkpoint is not one, or nobody known has signed it
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

	// What a sound log may have, and whoever relies on it should know.
	Pruned        []Range // stretches whose bytes were erased; at most MaxDamage
	PrunedRecords uint64  // all of them
	Gaps          []Gap   // losses that an operator has accepted
	Checkpoints   uint64  // signed ones that the tree was compared with
}

// AddPruned notes that the bytes of a record were erased on purpose.
func (r *Report) AddPruned(seq uint64) {
	r.PrunedRecords++
	if n := len(r.Pruned); n < MaxDamage || r.Pruned[n-1].Last+1 == seq {
		r.Pruned = AddTo(r.Pruned, seq)
	}
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

// Join adds the damage of another report.
func (r *Report) Join(o *Report) {
	r.Damaged += o.Damaged
	r.Damage = append(r.Damage, o.Damage[:min(len(o.Damage), MaxDamage-len(r.Damage))]...)
}
