package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// exported are records of each sort.
func exported() []chain.Record {
	at := wire.At(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC))
	ms, sent, got, left, seq := int64(12), int64(42), int64(306), int64(249_990), uint64(3)
	intent := chain.Record{
		Seq: 41, TS: at, Kind: chain.CallIntent, ClientSlug: "acme-corp", PortalID: 12345678, SlugSeq: &seq, CallID: fakeCallID, Attempt: 1,
		Method: "PATCH", Path: "/crm/v3/objects/contacts/7?idProperty=x", ObjectType: "contacts", ObjectID: "7", APIVersion: "v3", Actor: "hsagentd/1.0.0",
		Caller: &chain.Caller{UID: 0, User: "root", PID: 9, Exe: "/usr/bin/sync", Unit: "sync.service"}, Reason: "ticket <42>", TokenFingerprint: "0123456789ab", StoreVersion: 3,
	}
	outcome := intent
	outcome.Seq, outcome.Kind, outcome.StatusCode = 42, chain.CallOutcome, 200
	outcome.DurationMs, outcome.RequestBytes, outcome.ResponseBytes, outcome.RateLimitRemaining = &ms, &sent, &got, &left
	outcome.CorrelationID = "c0ffee"
	failed := outcome
	failed.Seq, failed.StatusCode = 43, 404
	denied := intent
	denied.Seq, denied.Kind, denied.Error, denied.Attempt = 44, chain.CallDenied, "denied", 0
	rotated := chain.Record{Seq: 45, TS: at, Kind: chain.PortalRotated, ClientSlug: "acme-corp", PortalID: 12345678, Actor: "hsagentd/1.0.0", TokenFingerprint: "ba9876543210"}
	return []chain.Record{intent, outcome, failed, denied, rotated, {Seq: 46, TS: at, Kind: chain.AgentStopped, Actor: "hsagentd/1.0.0"}}
}

// The formats for other systems are as the files under testdata/export show.
func TestExportGolden(t *testing.T) {
	for _, format := range []string{formatJSONL, formatECS, formatOCSF, formatCloudEvents} {
		var b strings.Builder
		for _, r := range exported() {
			raw, err := r.Encode()
			require.NoError(t, err)
			line, err := convert(format, raw, &r)
			require.NoError(t, err)
			require.True(t, json.Valid(line))
			b.Write(append(line, '\n'))
		}
		path := filepath.Join("testdata", "export", format+".ndjson")
		if *update {
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(want), b.String(), "go test ./cmd/hsctl -run ExportGolden -update rewrites it")
	}
}
