package wire

// AuditReport is the answer of POST /v1/audit/verify: what a reading of the
// whole log found. The log is sound if Damaged is 0.
type AuditReport struct {
	Records uint64        `json:"records"` // how many were read
	Root    string        `json:"root"`    // of the tree over them, in base64
	Damaged uint64        `json:"damaged"` // how many damages were found
	Damage  []AuditDamage `json:"damage"`  // the first 1000 of them
}

// AuditDamage is one thing wrong with the log.
type AuditDamage struct {
	Seq    uint64 `json:"seq"`  // the record, or where it was noticed
	Kind   string `json:"kind"` // a chain.DamageKind
	Detail string `json:"detail"`
}

// OK reports whether nothing is wrong.
func (r *AuditReport) OK() bool { return r.Damaged == 0 && len(r.Damage) == 0 }
