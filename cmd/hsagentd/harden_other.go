//go:build !linux

package main

import "errors"

// closeProcess fails: where it is not known how to keep a process's memory
// from others, no token is read.
func closeProcess() error {
	return errors.New("hsagentd runs on Linux only")
}
