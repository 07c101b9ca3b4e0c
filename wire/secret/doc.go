// Package secret keeps bytes that no other program may read in memory pages of
// their own, and erases them when nothing uses them any more.
//
// # What it promises
//
// [Bytes] stand outside Go's heap, in pages of the best kind that the kernel
// gives ([Memory] tells which):
//
//   - [Hidden], from memfd_secret(2): the kernel takes them out of its own
//     mapping. Nothing but this process's own instructions reaches them: not
//     /proc/PID/mem, ptrace or a core file, not even for root. They are never
//     swapped.
//   - [Locked], where there is no memfd_secret: never swapped and not in core
//     files; who may read the process's memory can read them.
//   - [Plain], where RLIMIT_MEMLOCK is used up too: not in core files.
//
// The collector never copies them. When the last holder of some Bytes is gone
// they are overwritten with zeros, at the next collection, and their place is
// given to others: what a call in flight holds stays as it is until it ends.
//
// # What it cannot
//
// Code that the bytes are shown to must not copy them: [Bytes.Expose] shows
// them for the length of a function call. A string made of them is a copy in
// the heap. Registers and the kernel's socket buffers are out of reach.
//
// [Do] erases what a function leaves on its stack and in the heap where the
// program was built with GOEXPERIMENT=runtimesecret; elsewhere it only calls
// it. Nothing relies on it alone.
package secret
