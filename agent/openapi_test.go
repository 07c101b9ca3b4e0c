package agent_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

// What the document says of a type is what is encoded.
func TestOpenAPISchemas(t *testing.T) {
	r := newRig(t, rigOptions{})
	got := r.api("GET", "/v1/openapi.json", "")
	require.Equal(t, 200, got.status)
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]json.RawMessage
				Required   []string
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(got.body), &doc))
	types := []any{
		wire.Problem{}, wire.Portal{}, wire.Portals{}, wire.Status{}, wire.StoreStatus{}, wire.AuditStatus{}, wire.PolicyStatus{},
		wire.PutPortal{}, wire.Rotate{}, wire.TokenCheck{}, wire.TokenPortal{}, wire.FleetRow{}, wire.FleetResult{}, wire.FleetDone{},
		wire.Rotations{}, wire.Rotation{}, wire.RotationDone{}, wire.Quotas{}, wire.Quota{}, wire.AuditReport{},
		wire.Policy{}, wire.PolicyRule{}, wire.PolicyTest{}, wire.PolicyVerdict{}, wire.Confirmation{}, wire.ConfirmationAnswer{}, wire.Unlock{}, wire.Reload{},
	}
	for _, v := range types {
		typ := reflect.TypeOf(v)
		schema, ok := doc.Components.Schemas[typ.Name()]
		require.True(t, ok, "no schema %s", typ.Name())
		var want []string
		for _, f := range reflect.VisibleFields(typ) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			want = append(want, name)
		}
		have := slices.Sorted(maps.Keys(schema.Properties))
		require.ElementsMatch(t, want, have, typ.Name())
		require.Subset(t, have, schema.Required, typ.Name())
	}
}
