package hubspot_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
)

// BenchmarkTarget takes a call's request target apart, checks it and makes of
// it what the record keeps.
func BenchmarkTarget(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, rest, err := hubspot.SplitCall("/v1/call/acme-corp/crm/v3/objects/contacts/51801?properties=email,firstname&archived=false")
		require.NoError(b, err)
		target, err := hubspot.ParseTarget(rest)
		require.NoError(b, err)
		if hubspot.RecordPath(target) == "" || hubspot.Classify(http.MethodGet, target).ObjectType != "contacts" {
			b.Fatal("read wrongly")
		}
	}
}
