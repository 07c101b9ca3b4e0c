package agent

import "time"

// lockWhenIdle locks the agent when no call was made for LockAfter.
func (a *Agent) lockWhenIdle() {
	timer := time.NewTimer(a.cfg.LockAfter)
	defer timer.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-timer.C:
		}
		left := a.untilIdle(time.Now())
		if left <= 0 {
			left = a.cfg.LockAfter // locked from now on: unlocking begins anew
			if a.keys.Load() != nil {
				if err := a.LockNow(a.ctx, "no call for "+a.cfg.LockAfter.String()); err != nil {
					a.log.ErrorContext(a.ctx, "locked, but that was not recorded", "error", err)
				}
			}
		}
		timer.Reset(left)
	}
}

// untilIdle is how long the agent may still be unlocked if no call comes. A
// call in flight is use; a look at the status is none.
func (a *Agent) untilIdle(now time.Time) time.Duration {
	if a.inFlight.Load() > 0 {
		return a.cfg.LockAfter
	}
	return a.cfg.LockAfter - now.Sub(time.Unix(0, a.lastUse.Load()))
}
