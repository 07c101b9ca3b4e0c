package agent

// PretendUID makes the agent believe that it runs as another user: where tests
// may not become one, everybody else is then a stranger.
func (a *Agent) PretendUID(uid int) { a.uid = uid }

// SetOpenFDs replaces the count of the process's file descriptors.
func (a *Agent) SetOpenFDs(open func() (used, limit int)) { a.doors.open = open }
