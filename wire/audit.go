package wire

// AuditReport is the answer of POST /v1/audit/verify: what a reading of the
// whole log found. The log is sound if Damaged is 0.
type AuditReport struct {
	Records uint64        `json:"records"` // how many were read
	Root    string        `json:"root"`    // of the tree over them, in base64
	Damaged uint64        `json:"damaged"` // how many damages were found
	Damage  []AuditDamage `json:"damage"`  // the first 1000 of them

	Checkpoints   uint64       `json:"checkpoints,omitempty"`   // signed ones that the tree was compared with
	PrunedRecords uint64       `json:"prunedRecords,omitempty"` // whose bytes were erased on purpose
	Pruned        []AuditRange `json:"pruned,omitempty"`        // the stretches that they stand in, the first 1000
	Gaps          []AuditGap   `json:"gaps,omitempty"`          // losses that an operator has accepted
}

// AuditRange is a stretch of records, both ends in it.
type AuditRange struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// AuditGap is what hsagentd accept-loss has recorded.
type AuditGap struct {
	Seq  uint64 `json:"seq"`  // of its record
	Kept uint64 `json:"kept"` // records before it
	Lost uint64 `json:"lost"` // size of the log that is lost
	Root string `json:"root"` // of that one
}

// AuditProgress is a line of the answer of POST /v1/audit/verify before the
// last one.
type AuditProgress struct {
	Done  uint64 `json:"done"`
	Total uint64 `json:"total"`
}

// Prune is the body of POST /v1/audit/prune.
type Prune struct {
	Before string `json:"before"`         // a date in UTC, or RFC 3339
	Slug   string `json:"slug,omitempty"` // "": all that are not held
}

// Pruned is its answer.
type Pruned struct {
	Pruned uint64 `json:"pruned"` // records
}

// AuditDamage is one thing wrong with the log.
type AuditDamage struct {
	Seq    uint64 `json:"seq"`  // the record, or where it was noticed
	Kind   string `json:"kind"` // a chain.DamageKind
	Detail string `json:"detail"`
}

// OK reports whether nothing is wrong.
func (r *AuditReport) OK() bool { return r.Damaged == 0 && len(r.Damage) == 0 }
