//go:build faults

package auditstore_test

import "testing"

// Syncs that begin to fail after any number of records, from none to 200.
func TestFaultSyncErrors(t *testing.T) {
	for after := range 201 {
		requireShut(t, "fdatasync", after) // of the records
		requireShut(t, "msync", after)     // of the database
	}
	t.Log("201 times of failing fdatasync, and of failing msync: the log was shut, nothing lost")
}
