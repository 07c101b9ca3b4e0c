package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The database takes a hundred megabytes for a moment when it merges its
// tables, and Go keeps such memory for minutes, as garbage or for later use.
const (
	memoryLimit = 192 << 20 // above it garbage is collected sooner; the environment's GOMEMLIMIT goes before it
	memorySpare = 24 << 20  // that may be kept without being in use
	tidyEvery   = 10 * time.Second
)

// keepSmall bounds the process's memory until ctx ends.
func keepSmall(ctx context.Context, e *env) {
	if e.getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if unused() > memorySpare {
				debug.FreeOSMemory()
			}
		}
	}
}

// unused is how much memory the process has for its heap beyond what the last
// collection found in use.
func unused() uint64 {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	live, have := s[0].Value.Uint64(), s[1].Value.Uint64()+s[2].Value.Uint64()+s[3].Value.Uint64()
	return have - min(live, have)
}
