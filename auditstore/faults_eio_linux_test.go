//go:build faults

package auditstore_test

import "testing"

// Syncs that begin to fail after any number of records, from none to 200.
func TestFaultSyncErrors(t *testing.T) {
	for after := range 201 {
		requireShut(t, "fdatasync", after) // of the records
	}
	const every = 10
	for after := 0; after <= 200; after += every {
		requireShut(t, "msync", after) // of the database
	}
	t.Logf("201 times of failing fdatasync, %d of failing msync: nothing was accepted after that, nothing lost", 200/every+1)
}
