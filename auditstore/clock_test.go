package auditstore_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// However the clock jumps, nothing is refused, the order is that of writing,
// and the log verifies, also after a start in another year.
func TestThreat53ClockJumps(t *testing.T) {
	base := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	now := base
	set := func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		now = at
	}
	dir := t.TempDir()
	start := func() *auditstore.Store {
		return open(t, dir, func(c *auditstore.Config) {
			c.SetNow(func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				return now
			})
		})
	}
	s := start()
	var want []time.Time
	for _, at := range []time.Time{
		base, base.Add(time.Hour), base.Add(-time.Hour), base.AddDate(10, 0, 0), base.AddDate(-10, 0, 0),
		time.Unix(0, 0).UTC(), time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC), base,
	} {
		set(at)
		for range 3 {
			_, err := s.Append(t.Context(), chain.Record{Kind: chain.AgentLocked})
			require.NoError(t, err, "%s", at)
			want = append(want, at)
		}
		verified(t, s)
		require.NoError(t, s.Close())
		s = start()
	}
	var got []time.Time
	for i, rec := range all(t, s, chain.Filter{Kind: chain.AgentLocked}) {
		require.Equal(t, uint64(i), rec.Seq)
		got = append(got, rec.TS.Time)
	}
	require.Equal(t, want, got)
}
