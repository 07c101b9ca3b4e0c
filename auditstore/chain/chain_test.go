package chain_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"
)

// viaJSON is the encoding as encoding/json gives it: what the table of fields
// must give too.
func viaJSON(t testing.TB, r *chain.Record) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	require.NoError(t, enc.Encode(r))
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func randomRecord(r *rand.Rand) *chain.Record {
	texts := []string{"", "", "GET", `a"b\c`, "<&>\u2028", "tab\tnul\x00del\x7f", "žluťoučký 🐎", "/crm/v3/objects/contacts?limit=1"}
	text := func() string { return texts[r.IntN(len(texts))] }
	num := func() int64 { return []int64{0, 0, 1, -1, 1 << 62, -1 << 63}[r.IntN(6)] }
	opt := func() *int64 {
		if r.IntN(2) == 0 {
			return nil
		}
		v := num()
		return &v
	}
	rec := &chain.Record{
		Seq: r.Uint64(), TS: wire.At(time.UnixMilli(r.Int64N(250_000_000_000_000))), Kind: chain.Kind(text()), ClientSlug: text(), PortalID: num(),
		CallID: text(), Attempt: int(num()), Method: text(), Path: text(), ObjectType: text(), ObjectID: text(), APIVersion: text(), Actor: text(),
		Reason: text(), StatusCode: int(num()), DurationMs: opt(), RequestBytes: opt(), ResponseBytes: opt(), NumErrors: int(num()),
		CorrelationID: text(), RateLimitRemaining: opt(), TokenFingerprint: text(), StoreVersion: num(), Error: text(),
	}
	if r.IntN(2) == 0 {
		v := r.Uint64()
		rec.SlugSeq = &v
	}
	if r.IntN(3) > 0 {
		rec.Caller = &chain.Caller{UID: int(num()), User: text(), GID: int(num()), PID: int(num()), Exe: text(), Unit: text(), Agent: r.IntN(2) == 0}
	}
	return rec
}

func TestEncodeIsJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		rec := randomRecord(r)
		b, err := rec.Encode()
		require.NoError(t, err)
		require.Equal(t, string(viaJSON(t, rec)), string(b))
		got, err := chain.Decode(b)
		require.NoError(t, err, "%s", b)
		require.Equal(t, rec, got)
		h, err := chain.DecodeHead(b)
		require.NoError(t, err)
		require.Equal(t, chain.Head{Seq: rec.Seq, TS: rec.TS, Kind: rec.Kind, Slug: rec.ClientSlug, SlugSeq: rec.SlugSeq}, h)
	}
}

func TestEncodeRefusesYear(t *testing.T) {
	_, err := (&chain.Record{TS: wire.At(time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC))}).Encode()
	require.Error(t, err, "no RFC 3339 time has such a year")
}

func TestDecodeRefuses(t *testing.T) {
	good := `{"seq":7,"ts":"2026-01-02T03:04:05.006Z","kind":"call.intent","clientSlug":"acme","attempt":1,"actor":"a"}`
	_, err := chain.Decode([]byte(good))
	require.NoError(t, err)
	tests := []struct{ name, in string }{
		{"empty", ""},
		{"not an object", "7"},
		{"cut", good[:len(good)-1]},
		{"more", good + " "},
		{"space", `{"seq": 7,"ts":"","kind":"","actor":""}`},
		{"leading zero", `{"seq":07,"ts":"","kind":"","actor":""}`},
		{"other order", `{"ts":"","seq":7,"kind":"","actor":""}`},
		{"twice", `{"seq":7,"seq":7,"ts":"","kind":"","actor":""}`},
		{"missing", `{"seq":7,"ts":"","actor":""}`},
		{"unknown key", `{"seq":7,"ts":"","kind":"","actor":"","token":"x"}`},
		{"case", `{"Seq":7,"ts":"","kind":"","actor":""}`},
		{"empty written", `{"seq":7,"ts":"","kind":"","clientSlug":"","actor":""}`},
		{"zero written", `{"seq":7,"ts":"","kind":"","attempt":0,"actor":""}`},
		{"false written", `{"seq":7,"ts":"","kind":"","actor":"","caller":{"uid":0,"gid":0,"agent":false}}`},
		{"needless escape", `{"seq":7,"ts":"","kind":"\u0041","actor":""}`},
		{"bad UTF-8", "{\"seq\":7,\"ts\":\"\",\"kind\":\"\xff\",\"actor\":\"\"}"},
		{"control byte", "{\"seq\":7,\"ts\":\"\",\"kind\":\"\n\",\"actor\":\"\"}"},
		{"other zone", `{"seq":7,"ts":"2026-01-02T03:04:05.006+00:00","kind":"","actor":""}`},
		{"microseconds", `{"seq":7,"ts":"2026-01-02T03:04:05.006007Z","kind":"","actor":""}`},
		{"too large", `{"seq":18446744073709551616,"ts":"","kind":"","actor":""}`},
		{"null", `{"seq":7,"ts":"","kind":"","actor":"","durationMs":null}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := chain.Decode([]byte(tt.in))
			require.ErrorIs(t, err, chain.ErrNotCanonical)
			require.Nil(t, r)
		})
	}
}

func FuzzRecord(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		f.Add(viaJSON(f, randomRecord(r)))
	}
	f.Add([]byte(`{"seq":0,"ts":"","kind":"","actor":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := chain.Decode(b)
		if err != nil {
			require.Nil(t, rec)
			return
		}
		again, err := rec.Encode()
		require.NoError(t, err)
		require.Equal(t, string(b), string(again), "one encoding per record")
		require.Equal(t, string(viaJSON(t, rec)), string(again))
	})
}

// The tree is that of golang.org/x/mod/sumdb/tlog, which stores and reads the
// same hashes.
func TestTree(t *testing.T) {
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	var tree chain.Tree
	for n := range uint64(300) {
		want, err := tlog.TreeHash(int64(n), read)
		require.NoError(t, err)
		require.Equal(t, want, tree.Root())
		at, err := chain.TreeAt(n, read)
		require.NoError(t, err)
		require.Equal(t, want, at.Root())

		leaf := chain.Leaf([]byte{byte(n)}, []byte("record"))
		hashes, err := tlog.StoredHashesForRecordHash(int64(n), leaf, read)
		require.NoError(t, err)
		require.Equal(t, hashes, tree.Add(leaf, nil))
		require.Equal(t, hashes, at.Add(leaf, nil))
		stored = append(stored, hashes...)
	}
}

func TestFilter(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	five := uint64(5)
	rec := &chain.Record{Seq: 5, TS: wire.At(at), Kind: chain.CallOutcome, ClientSlug: "acme", CallID: "id", Method: "GET", StatusCode: 404,
		Caller: &chain.Caller{UID: 1000, User: "alice", Exe: "/bin/curl", Unit: "u.service"}}
	four := uint64(4)
	tests := []struct {
		name string
		f    chain.Filter
		want bool
	}{
		{"zero", chain.Filter{}, true},
		{"slug", chain.Filter{Slug: "acme"}, true},
		{"other slug", chain.Filter{Slug: "acme-eu"}, false},
		{"from is inclusive", chain.Filter{From: at}, true},
		{"to is exclusive", chain.Filter{To: at}, false},
		{"to", chain.Filter{To: at.Add(1)}, true},
		{"after", chain.Filter{After: &four}, true},
		{"after is exclusive", chain.Filter{After: &five}, false},
		{"status", chain.Filter{Status: "404"}, true},
		{"class", chain.Filter{Status: "4xx"}, true},
		{"other class", chain.Filter{Status: "5xx"}, false},
		{"user", chain.Filter{Caller: "alice"}, true},
		{"uid", chain.Filter{Caller: "1000"}, true},
		{"exe", chain.Filter{Caller: "/bin/curl"}, true},
		{"unit", chain.Filter{Caller: "u.service"}, true},
		{"other caller", chain.Filter{Caller: "bob"}, false},
		{"kind", chain.Filter{Kind: chain.CallIntent}, false},
		{"method", chain.Filter{Method: "POST"}, false},
		{"call", chain.Filter{CallID: "id"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, tt.f.Match(rec)) })
	}
	require.False(t, (&chain.Filter{Status: "0"}).Match(&chain.Record{}), "no status is no status 0")
	require.False(t, (&chain.Filter{Caller: "0"}).Match(&chain.Record{}), "no caller is not root")
}

func TestReportIsCapped(t *testing.T) {
	var r chain.Report
	require.True(t, r.OK())
	for i := range uint64(chain.MaxDamage + 5) {
		r.Add(i, chain.Missing, "gone")
	}
	require.Len(t, r.Damage, chain.MaxDamage)
	require.Equal(t, uint64(chain.MaxDamage+5), r.Damaged)
	require.Equal(t, "record 0: missing: gone", r.Damage[0].String())
}

func BenchmarkEncode(b *testing.B) {
	d := int64(120)
	rec := &chain.Record{Seq: 123456, TS: wire.At(time.Now()), Kind: chain.CallOutcome, ClientSlug: "acme-corp", PortalID: 12345678, SlugSeq: new(uint64),
		CallID: "0197a3f0-1111-7000-8000-000000000000", Attempt: 1, Method: "GET", Path: "/crm/v3/objects/contacts?limit=100", ObjectType: "contacts",
		Actor: "hsagentd/1.0.0", Caller: &chain.Caller{UID: 1000, User: "alice", GID: 1000, PID: 4711, Exe: "/usr/bin/python3.12"}, StatusCode: 200, DurationMs: &d}
	var buf []byte
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = rec.AppendTo(buf[:0])
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := chain.Decode(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
