package main

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHeapInUseIsLeftAlone(t *testing.T) {
	used := make([]byte, 4*memorySpare)
	for i := range used {
		used[i] = 1
	}
	runtime.GC()
	inUse := readHeap()
	require.Less(t, inUse.have-inUse.live, uint64(2*memorySpare), "what is in use must not count")
	runtime.KeepAlive(used)
	used = nil
	require.Empty(t, used)
	runtime.GC()
	garbage := readHeap()
	require.True(t, garbage.untidy(heap{}))
	debug.FreeOSMemory()
	tidy := readHeap()
	require.Less(t, tidy.have-tidy.live, uint64(memorySpare))
}

func TestHeapAtRestIsTidiedOnce(t *testing.T) {
	busy := heap{live: 3 * memorySpare, have: 3 * memorySpare, collections: 7}
	worked, rested := busy, busy
	require.False(t, worked.untidy(heap{collections: 6, tidied: memorySpare}), "the next collection will find out")
	require.True(t, rested.untidy(heap{collections: 7, tidied: memorySpare}), "nothing else collects what has become garbage")
	rested.tidied = rested.live
	again := busy
	require.False(t, again.untidy(rested), "it is in use")
	require.Equal(t, rested.live, again.tidied)
}
