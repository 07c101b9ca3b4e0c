package secret

import (
	"runtime"
	"strings"
	"syscall"
)

// memfdSecret is the number of memfd_secret(2) on all systems but MIPS, which
// counts its own way and has none.
const memfdSecret = 447

// dontDump is MADV_DONTDUMP, which package syscall lacks.
const dontDump = 16

// mapPages returns n zeroed bytes of the best pages that there are.
func mapPages(n int) ([]byte, Kind) {
	if b := hiddenPages(n); b != nil {
		return b, Hidden
	}
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return make([]byte, n), Plain // no memory: the heap's own way to say so
	}
	keepIn(b)
	if syscall.Mlock(b) != nil {
		return b, Plain
	}
	return b, Locked
}

// hiddenPages returns n bytes of memfd_secret(2); nil where the kernel has
// none, forbids it, or RLIMIT_MEMLOCK is used up. The size of such memory
// cannot be changed once it is set, and its descriptor is closed at once.
func hiddenPages(n int) []byte {
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		return nil
	}
	fd, _, errno := syscall.Syscall(memfdSecret, syscall.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return nil
	}
	defer func() { _ = syscall.Close(int(fd)) }() // the mapping outlives it
	if syscall.Ftruncate(int(fd), int64(n)) != nil {
		return nil
	}
	// Populated now: where there is no memory for it, that shows here and not
	// as a signal at the first write.
	b, err := syscall.Mmap(int(fd), 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_POPULATE)
	if err != nil {
		return nil
	}
	keepIn(b)
	return b
}

// keepIn keeps pages out of core files and of processes that are forked. What
// the kernel cannot do of it is no reason to go without the rest.
func keepIn(b []byte) {
	_ = syscall.Madvise(b, dontDump)
	_ = syscall.Madvise(b, syscall.MADV_DONTFORK)
}

func unmapPages(b []byte) {
	_ = syscall.Munmap(b) // if it fails, zeros stay
}
