package fill_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/auditstore/fill"
	"github.com/hsagent/hsagentd/wire"
)

// A log that is filled opens and verifies, leaves nothing open, and holds what
// the calls say beside it.
func TestGenerate(t *testing.T) {
	cfg := fill.Config{Seed: 3, Slugs: 20, Records: 20_000, Kills: 5}
	conf := auditstore.Config{Dir: t.TempDir(), Actor: "hsagentd/test", MinFree: 1}
	s, err := auditstore.Open(t.Context(), conf)
	require.NoError(t, err)
	kinds, intents := map[chain.Kind]int{}, 0
	var prev wire.Time
	var calls []fill.Call
	require.NoError(t, fill.Generate(cfg, func(rec chain.Record) error {
		require.False(t, rec.TS.Before(prev.Time), "the clock goes back")
		prev = rec.TS
		kinds[rec.Kind]++
		return s.AppendLazy(rec)
	}, func(c fill.Call) { calls = append(calls, c) }))
	require.NoError(t, s.Close())

	s, err = auditstore.Open(t.Context(), conf)
	require.NoError(t, err)
	defer s.Close()
	require.Empty(t, s.Notes(), "no intent is left open")
	rep, err := s.Verify(t.Context(), func(uint64, uint64) {})
	require.NoError(t, err)
	require.True(t, rep.OK())
	require.InDelta(t, cfg.Records, rep.Records, 2000)

	denied, interrupted, unanswered := 0, 0, 0
	for _, c := range calls {
		intents += c.Attempts
		switch {
		case c.Denied:
			denied++
		case c.Interrupted:
			interrupted++
		case c.Failed() && c.Status == 0:
			unanswered++
		}
	}
	require.Equal(t, kinds[chain.CallIntent], intents)
	require.Equal(t, kinds[chain.CallDenied], denied)
	require.Equal(t, kinds[chain.CallInterrupted], interrupted)
	require.Equal(t, kinds[chain.CallIntent], kinds[chain.CallOutcome]+interrupted)
	require.NotZero(t, interrupted)
	require.NotZero(t, unanswered)
	require.Greater(t, intents, len(calls)-denied, "some calls took more than one attempt")
	for _, k := range []chain.Kind{chain.PortalRotated, chain.PortalOnboarded, chain.PortalVerified, chain.CallDenied} {
		require.NotZero(t, kinds[k], k)
	}
}
