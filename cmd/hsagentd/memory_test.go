package main

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnusedMemory(t *testing.T) {
	used := make([]byte, 4*memorySpare)
	for i := range used {
		used[i] = 1
	}
	runtime.GC()
	inUse := unused()
	runtime.KeepAlive(used)
	require.Less(t, inUse, uint64(2*memorySpare), "what is in use must not count")
	used = nil
	require.Empty(t, used)
	runtime.GC()
	require.Greater(t, unused(), uint64(2*memorySpare))
	debug.FreeOSMemory()
	require.Less(t, unused(), uint64(memorySpare))
}
