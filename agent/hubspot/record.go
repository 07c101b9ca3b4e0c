package hubspot

// RecordPath is the path and query of t as the audit log keeps them.
func RecordPath(t Target) string { return t.Path }

// RecordRaw is RecordPath for a target that [ParseTarget] refused.
func RecordRaw(raw string) string { return "" }
