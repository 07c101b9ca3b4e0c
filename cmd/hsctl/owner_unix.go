//go:build unix

package main

import (
	"io/fs"
	"syscall"
)

// ownerOf is the uid of a file's owner.
func ownerOf(st fs.FileInfo) (uid int, ok bool) {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(s.Uid), true
}
