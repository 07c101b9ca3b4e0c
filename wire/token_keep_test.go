package wire_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
	"github.com/hsagent/hsagentd/wire/secret"
)

func TestTokensOfTheSameBytesAreOne(t *testing.T) {
	a := wire.NewToken(madeUpToken)
	require.True(t, a == wire.TokenOf([]byte(madeUpToken)))
	require.False(t, a == wire.NewToken(madeUpToken+"b"))
	require.False(t, a == wire.Token{})
	require.True(t, wire.NewToken("") == wire.Token{})
	require.Len(t, map[wire.Token]int{a: 1, wire.NewToken(madeUpToken): 2}, 1)
}

func TestTokenFingerprintIsItsHash(t *testing.T) {
	for n := range 1100 {
		s := strings.Repeat("x", n)
		sum := sha256.Sum256([]byte(s))
		require.Equal(t, hex.EncodeToString(sum[:6]), wire.NewToken(s).Fingerprint(), "%d bytes", n)
	}
}

func TestTokenIn(t *testing.T) {
	tok := wire.NewToken(madeUpToken)
	for s, want := range map[string]bool{
		"": false, madeUpToken: true, "x" + madeUpToken: true, madeUpToken + "x": true, madeUpToken[1:]: false, "acme-corp": false,
	} {
		require.Equal(t, want, tok.In(s), s)
	}
	require.False(t, wire.Token{}.In("x"))
}

// A token that nobody holds any more is erased, and one that is held is not,
// however often it comes and goes.
func TestThreat60TokensAreErased(t *testing.T) {
	held := wire.NewToken(madeUpToken)
	collect := func(until int) {
		for secret.InUse() > until {
			runtime.GC()
			runtime.Gosched()
		}
	}
	for range 3 { // what other tests left
		runtime.GC()
	}
	for range 5 {
		before := secret.InUse()
		gone := make([]wire.Token, 500)
		for i := range gone {
			gone[i] = wire.NewToken(fmt.Sprintf("pat-na1-00000000-0000-4000-8000-%012d", i))
		}
		require.GreaterOrEqual(t, secret.InUse(), 500*64)
		runtime.KeepAlive(gone)
		collect(before)
	}
	require.Equal(t, madeUpToken, held.Reveal())
}

func TestTokensComeAndGoTogether(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				s := fmt.Sprintf("pat-na1-00000000-0000-4000-8000-%012d", (i+g)%50)
				if got := wire.NewToken(s).Reveal(); got != s {
					t.Errorf("%s became %s", s, got)
				}
				if i%200 == 0 {
					runtime.GC()
				}
			}
		})
	}
	wg.Wait()
}

func TestTokenJSON(t *testing.T) {
	for _, s := range []string{madeUpToken, `a"b\c/d-eight`, "tab\there-and\x01there", "ümläut-1"} {
		tok := wire.NewToken(s)
		b := tok.AppendJSON(make([]byte, 0, tok.SizeJSON()))
		require.LessOrEqual(t, len(b), tok.SizeJSON())
		require.True(t, json.Valid(b))
		var plain string
		require.NoError(t, json.Unmarshal(b, &plain))
		require.Equal(t, s, plain)
	}
	for _, bad := range []string{``, `"`, `5`, `{}`, `["x"]`, `"\x"`, `"\u12"`, `"\u12zz"`} {
		tok := wire.NewToken(madeUpToken)
		require.Error(t, tok.UnmarshalJSON([]byte(bad)), bad)
	}
	tok := wire.NewToken(madeUpToken)
	require.NoError(t, json.Unmarshal([]byte(`null`), &tok))
	require.True(t, tok.IsZero())
}

// A token is read from JSON as encoding/json reads a string.
func FuzzTokenJSON(f *testing.F) {
	for _, s := range []string{`"` + madeUpToken + `"`, `"\u0070at-na1-\/x"`, `"\"\\\/\b\f\n\r\t"`, `""`, `"\ud83d\ude00"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var want string
		if !json.Valid([]byte(s)) || json.Unmarshal([]byte(s), &want) != nil || s == "null" || len(want) > 1024 {
			return
		}
		var tok wire.Token
		require.NoError(t, json.Unmarshal([]byte(s), &tok))
		if !strings.Contains(want, "\ufffd") && !strings.Contains(s, `\ud`) && !strings.Contains(s, `\uD`) {
			require.Equal(t, want, tok.Reveal())
		}
	})
}

func BenchmarkTokenOf(b *testing.B) {
	token := []byte(madeUpToken)
	held := wire.TokenOf(token)
	b.ReportAllocs()
	for b.Loop() {
		wire.TokenOf(token)
	}
	runtime.KeepAlive(held)
}
