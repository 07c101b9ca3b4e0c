package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The database takes some fifty megabytes for a moment when it merges its
// tables, and Go keeps such memory for minutes, as garbage or for later use.
const (
	memoryLimit = 96 << 20 // above it garbage is collected sooner; the environment's GOMEMLIMIT goes before it
	memorySpare = 24 << 20 // that may be kept without being in use
	tidyEvery   = 10 * time.Second
)

// keepSmall bounds the process's memory until ctx ends. Unmap gives up what is
// mapped of files.
func keepSmall(ctx context.Context, e *env, unmap func() error) {
	if e.getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	var before heap
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := readHeap()
			if now.untidy(before) {
				debug.FreeOSMemory()
				now = readHeap()
				now.tidied = now.live
			}
			before = now
			_ = unmap() // it costs nothing but memory
		}
	}
}

// A heap is what the runtime says about its memory.
type heap struct {
	live, have  uint64 // in use as the last collection found it; all there is
	collections uint64
	tidied      uint64 // in use after memory was given back for the last time
}

// untidy tells whether memory is to be given back: there is much beyond what
// is in use, or nothing was collected since before, and what was in use then
// may be garbage by now. A process at rest collects none for two minutes.
func (h *heap) untidy(before heap) bool {
	h.tidied = before.tidied
	rests := h.collections == before.collections
	return h.have-min(h.live, h.have) > memorySpare || rests && h.live > h.tidied+memorySpare
}

func readHeap() heap {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(s)
	return heap{
		live:        s[0].Value.Uint64(),
		have:        s[1].Value.Uint64() + s[2].Value.Uint64() + s[3].Value.Uint64(),
		collections: s[4].Value.Uint64(),
	}
}
