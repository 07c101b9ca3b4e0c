package agent

import (
	"runtime"
	"time"
)

// erasePause is the least time between two collections that are made to erase:
// a store that is rewritten in a loop costs no more than that.
const erasePause = 200 * time.Millisecond

// eraseSoon has what nobody uses any more erased: tokens of a keyring that was
// replaced, and what decryption left behind. What calls in flight hold is
// erased when they have ended, at the next collection, which the runtime makes
// within two minutes.
func (a *Agent) eraseSoon() {
	select {
	case a.unused <- struct{}{}:
	default: // asked for already
	}
}

// eraser makes the collections that eraseSoon asks for.
func (a *Agent) eraser() {
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-a.unused:
			runtime.GC()
		}
		if !sleep(a.ctx, erasePause) {
			return
		}
	}
}
