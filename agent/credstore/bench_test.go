package credstore

import (
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkLoad10000 reads a store of 10,000 portals; what of it is decryption
// alone, BenchmarkDecrypt10000 tells.
func BenchmarkLoad10000(b *testing.B) {
	f, _ := fleetOf(b, 10_000)
	serving, err := f.Load(b.Context()) // as when an agent reads its store again
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		s, err := f.Load(b.Context())
		require.NoError(b, err)
		require.Len(b, s.Entries, len(serving.Entries))
	}
}

func BenchmarkDecrypt10000(b *testing.B) {
	f, sealed := fleetOf(b, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		_, err := decrypt(sealed, f.id.ids...)
		require.NoError(b, err)
	}
}

// fleetOf makes a store of n portals.
func fleetOf(tb testing.TB, n int) (*File, []byte) {
	tb.Helper()
	dir := tb.TempDir()
	id, err := GenerateIdentity(dir+"/identity.txt", nil, false)
	require.NoError(tb, err)
	entries := make([]string, n)
	for i := range entries {
		entries[i] = good("client-"+string(rune('a'+i%26))+"-"+strconv.Itoa(i), i+1)
	}
	sealed, err := encrypt(storeOf(entries...), id.recipient)
	require.NoError(tb, err)
	require.NoError(tb, os.WriteFile(dir+"/store.age", sealed, 0o600))
	return Open(dir+"/store.age", id), sealed
}
