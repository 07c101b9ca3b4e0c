package credstore

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/stretchr/testify/require"
)

// What is sealed here age opens, and the other way round, whatever the size.
func TestPayloadIsThatOfAge(t *testing.T) {
	plainKey, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	hybridKey, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize, 3*chunkSize + 5} {
		text := bytes.Repeat([]byte("x"), size)
		for _, key := range []interface {
			age.Identity
		}{plainKey, hybridKey} {
			var to age.Recipient
			switch k := key.(type) {
			case *age.X25519Identity:
				to = k.Recipient()
			case *age.HybridIdentity:
				to = k.Recipient()
			}
			ours, err := encrypt(text, to)
			require.NoError(t, err)
			r, err := age.Decrypt(bytes.NewReader(ours), key)
			require.NoError(t, err)
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			require.Equal(t, len(text), len(got))
			require.True(t, bytes.Equal(text, got))

			var theirs bytes.Buffer
			w, err := age.Encrypt(&theirs, to)
			require.NoError(t, err)
			_, err = w.Write(text)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			got, err = decrypt(theirs.Bytes(), key)
			require.NoError(t, err)
			require.True(t, bytes.Equal(text, got))

			var armored bytes.Buffer
			aw := armor.NewWriter(&armored)
			_, err = aw.Write(theirs.Bytes())
			require.NoError(t, err)
			require.NoError(t, aw.Close())
			got, err = decrypt(armored.Bytes(), key)
			require.NoError(t, err)
			require.True(t, bytes.Equal(text, got))
		}
	}
}

// A recipient that goes with no other stays so: an X25519 key beside a hybrid
// one would undo it.
func TestPayloadKeepsRecipientsApart(t *testing.T) {
	x, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	pq, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	for _, to := range [][]age.Recipient{{x.Recipient(), pq.Recipient()}, {pq.Recipient(), x.Recipient()}} {
		_, err := encrypt([]byte("x"), to...)
		require.Error(t, err)
	}
	_, err = encrypt([]byte("x"))
	require.Error(t, err)
}

// A file of which anything was changed, dropped, added or moved does not open.
func TestPayloadIsWhole(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	sealed, err := encrypt(bytes.Repeat([]byte("0123456789abcdef"), 3*chunkSize/16), key.Recipient())
	require.NoError(t, err)
	body := len(sealed) - 3*sealedChunk
	chunk := func(n int) []byte { return sealed[body+n*sealedChunk : body+(n+1)*sealedChunk] }
	head := sealed[:body]
	for name, bad := range map[string][]byte{
		"cut to its header":        head[:len(head)-payloadNonce],
		"cut to its nonce":         head,
		"cut within a chunk":       sealed[:len(sealed)-1],
		"cut between chunks":       sealed[:len(sealed)-sealedChunk],
		"a chunk dropped":          bytes.Join([][]byte{head, chunk(0), chunk(2)}, nil),
		"chunks swapped":           bytes.Join([][]byte{head, chunk(1), chunk(0), chunk(2)}, nil),
		"the last chunk twice":     bytes.Join([][]byte{sealed, chunk(2)}, nil),
		"bytes behind the end":     append(bytes.Clone(sealed), 0),
		"an empty chunk after all": append(bytes.Clone(sealed), make([]byte, 16)...),
		"header without a MAC":     append([]byte(binaryHead), sealed[body:]...),
	} {
		plain, err := decrypt(bad, key)
		require.Error(t, err, name)
		require.Nil(t, plain, name)
	}
	for i := range sealed {
		if i > body+40 && i%5003 != 0 {
			continue
		}
		bad := bytes.Clone(sealed)
		bad[i] ^= 4
		_, err := decrypt(bad, key)
		require.Error(t, err, "byte %d", i)
	}
}

// An object is read if and only if encoding/json takes it for one.
func FuzzObject(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { "a" : [1, -0.5e+3, true, false, null, "\u00e9\\", {}] } `, `{"a":1,}`, `{"a":01}`, `{"a":1}x`, `{"a":"` + "\x01" + `"}`,
		`{"a":.5}`, `{"a":-}`, `{"a":1e}`, `{"a" 1}`, `{,}`, `[{}]`, `{"a":[1,]}`, `{"\x":1}`, `{"a":nul}`, `{"a":"\u12G4"}`, `{"a":tru`,
		`{"a":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`, `{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := parseObject([]byte(s))
		var want map[string]json.RawMessage
		valid := json.Unmarshal([]byte(s), &want) == nil && want != nil
		if valid && nested(s) > maxDepth {
			require.ErrorIs(t, err, errDeep)
			return
		}
		require.Equal(t, valid, err == nil, "%v", err)
		if err != nil {
			return
		}
		out := o.appendTo(nil)
		require.Len(t, out, o.size())
		var again map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(out, &again))
		require.Len(t, again, len(want))
		for key, raw := range want {
			require.Equal(t, string(raw), string(again[key]))
		}
	})
}

// nested is how deep valid JSON nests.
func nested(s string) int {
	depth, deepest, inString := 0, 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}
