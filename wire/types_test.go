package wire_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

func TestTime(t *testing.T) {
	at := wire.At(time.Date(2026, 11, 23, 11, 0, 0, 1_999_999, time.FixedZone("CET", 3600)))
	b, err := json.Marshal(at)
	require.NoError(t, err)
	require.Equal(t, `"2026-11-23T10:00:00.001Z"`, string(b), "UTC, cut to milliseconds")

	var back wire.Time
	require.NoError(t, json.Unmarshal(b, &back))
	require.True(t, at.Equal(back.Time))
	require.NoError(t, json.Unmarshal([]byte(`"2026-11-23T11:00:00+01:00"`), &back))
	require.Equal(t, "2026-11-23T10:00:00.000Z", back.String())
	require.NoError(t, json.Unmarshal([]byte(`""`), &back))
	require.True(t, back.IsZero())
	require.Empty(t, back.String())
	require.Error(t, json.Unmarshal([]byte(`"yesterday"`), &back))
	require.Error(t, json.Unmarshal([]byte(`7`), &back))
}

// TestGolden holds the spelling of what clients read.
func TestGolden(t *testing.T) {
	at := wire.At(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC))
	tests := []struct {
		name string
		in   any
		want string
	}{
		{"portal", wire.Portal{Slug: "acme-corp", PortalID: 12345678, Datacenter: "na1", State: wire.StateReady,
			AddedAt: &at, LastRotatedAt: &at, VerifiedAt: &at, TokenFingerprint: "0123456789ab"},
			`{"slug":"acme-corp","portalId":12345678,"datacenter":"na1","state":"ready","addedAt":"2026-11-23T10:00:00.000Z",` +
				`"lastRotatedAt":"2026-11-23T10:00:00.000Z","verifiedAt":"2026-11-23T10:00:00.000Z","tokenFingerprint":"0123456789ab"}`},
		{"rejected portal", wire.Portal{Slug: "beta-inc", State: wire.StateRejected, Reason: "no token"},
			`{"slug":"beta-inc","state":"rejected","reason":"no token"}`},
		{"fleet", wire.Portals{Portals: []wire.Portal{}}, `{"portals":[]}`},
		{"status", wire.Status{Version: "1", PID: 2, StartedAt: at, UptimeSeconds: 3, Store: wire.StoreStatus{Path: "/s", Version: 7},
			Audit: wire.AuditStatus{Path: "/a", Size: 5, Durable: 4}, Portals: map[string]int{"ready": 1}, Upstream: "https://api.hubapi.com"},
			`{"version":"1","pid":2,"startedAt":"2026-11-23T10:00:00.000Z","uptimeSeconds":3,"locked":false,"store":{"path":"/s","version":7,"lastError":null},` +
				`"audit":{"path":"/a","size":5,"durable":4,"lastError":null},"policy":{"rules":0,"lastError":null},"portals":{"ready":1},"callsInFlight":0,"upstream":"https://api.hubapi.com","socketActivated":false}`},
		{"audit report", wire.AuditReport{Records: 2, Root: "AA==", Damaged: 1, Damage: []wire.AuditDamage{{Seq: 1, Kind: "changed", Detail: "x"}}},
			`{"records":2,"root":"AA==","damaged":1,"damage":[{"seq":1,"kind":"changed","detail":"x"}]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := json.Marshal(tt.in)
			require.NoError(t, err)
			require.Equal(t, tt.want, string(b))
		})
	}
}

func TestAuditReportOK(t *testing.T) {
	require.True(t, (&wire.AuditReport{Records: 3}).OK())
	require.False(t, (&wire.AuditReport{Damaged: 1}).OK())
	require.False(t, (&wire.AuditReport{Damage: []wire.AuditDamage{{}}}).OK())
}
