//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

// Erases reports whether [Do] erases what its function leaves behind.
const Erases = true

// Do calls f and erases the registers and the stack that f used. What f
// allocates is erased when the collector finds it dead.
func Do(f func()) { secret.Do(f) }
