package agent

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/peer"
)

// Who has sent its request, and was not served yet, does not make room: the one
// does that has waited longest of those who have sent nothing.
func TestThreat46WhoHasAskedStays(t *testing.T) {
	d := newDoors()
	d.open = func() (used, limit int) { return 0, 1 << 20 }
	conns := make([]*guardedConn, maxConns+1)
	for i := range conns {
		end, _ := net.Pipe()
		conns[i] = &guardedConn{Conn: end, unix: &net.UnixConn{}, caller: &peer.Caller{UID: 1}}
		conns[i].asked.Store(i == 0)
		require.Nil(t, d.enter(conns[i], false))
	}
	for i, c := range conns {
		require.Equal(t, i == 1, c.gone, "%d", i)
	}
	require.Equal(t, maxConns, d.count())
}
