//go:build !goexperiment.runtimesecret

package secret

// Erases reports whether [Do] erases what its function leaves behind.
const Erases = false

// Do calls f. This program was built without GOEXPERIMENT=runtimesecret.
func Do(f func()) { f() }
