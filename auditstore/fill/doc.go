// Package fill makes believable audit logs for tests and benchmarks: the calls
// of a fleet over a period, with everything that happens to calls in it.
//
// It tells beside the records what each call came to, so that a test can count
// on its own and compare. The same [Config] gives the same records.
package fill
