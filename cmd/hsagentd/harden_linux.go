package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// closeProcess keeps other processes of the same user from reading this one's
// memory, environment and descriptors, and the kernel from writing a core
// file. Root still can.
func closeProcess() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	return nil
}
