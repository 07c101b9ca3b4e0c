package leak_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/leak"
	"github.com/hsagent/hsagentd/wire"
)

const token = "pat-na1-00000000-0000-4000-8000-00000000000a"

// escaped writes every character of s by format, such as `\u%04x`.
func escaped(format, s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, format, s[i])
	}
	return b.String()
}

// mixture writes every fifth character in another way.
func mixture(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; i % 5 {
		case 1:
			fmt.Fprintf(&b, "%%%02X", c)
		case 2:
			fmt.Fprintf(&b, `\u%04x`, c)
		case 3:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// encodings of the token, each as an echo could show it.
var encodings = []struct{ name, text string }{
	{"raw", token},
	{"upper case", strings.ToUpper(token)},
	{"percent signs only", strings.ReplaceAll(token, "-", "%2D")},
	{"percent all", escaped("%%%02x", token)},
	{"percent all upper", escaped("%%%02X", token)},
	{"json unicode", escaped(`\u%04x`, token)},
	{"json unicode upper", escaped(`\u%04X`, token)},
	{"hex escapes", escaped(`\x%02x`, token)},
	{"signs behind backslashes", strings.ReplaceAll(token, "-", `\-`)},
	{"mixture", mixture(token)},
	{"first escaped", "%70" + token[1:]},
	{"last escaped", token[:len(token)-1] + `\u0061`},
	{"hex", hex.EncodeToString([]byte(token))},
	{"hex upper", strings.ToUpper(hex.EncodeToString([]byte(token)))},
	{"base64", base64.StdEncoding.EncodeToString([]byte(token))},
	{"base64 of bearer", base64.StdEncoding.EncodeToString([]byte("Bearer " + token + "!!"))},
	{"base64 of x:", base64.RawURLEncoding.EncodeToString([]byte("x:" + token))},
	{"base64 of a", base64.URLEncoding.EncodeToString([]byte("a" + token + ","))},
}

// bare is what must not be left of an encoding: for base64 the part that
// stands for the token alone.
func bare(name, text string) string {
	if !strings.HasPrefix(name, "base64") {
		return text
	}
	return strings.TrimRight(text, "=")[12 : len(strings.TrimRight(text, "="))-4]
}

func TestThreat07EveryEncodingEverySplit(t *testing.T) {
	n := leak.New(wire.NewToken(token))
	for _, e := range encodings {
		t.Run(e.name, func(t *testing.T) {
			in := `{"message":"you sent Bearer ` + e.text + `.","n":1}`

			whole := []byte(in)
			require.Equal(t, 1, n.Mask(whole))
			want := string(whole)
			require.Len(t, want, len(in))
			require.NotContains(t, want, bare(e.name, e.text))
			require.Contains(t, want, strings.Repeat("*", len(bare(e.name, e.text))))

			s, ok := n.MaskString(in)
			require.True(t, ok)
			require.Equal(t, want, s)

			for cut := range len(in) + 1 {
				r := n.Reader(io.MultiReader(strings.NewReader(in[:cut]), strings.NewReader(in[cut:])))
				out, err := io.ReadAll(r)
				require.NoError(t, err)
				require.Equal(t, want, string(out), "cut at %d", cut)
				require.True(t, r.Leaked())
			}
			for _, src := range []io.Reader{
				iotest.OneByteReader(strings.NewReader(in)),
				iotest.HalfReader(strings.NewReader(in)),
				iotest.DataErrReader(strings.NewReader(in)),
			} {
				out, err := io.ReadAll(iotest.OneByteReader(n.Reader(src)))
				require.NoError(t, err)
				require.Equal(t, want, string(out))
			}
		})
	}
}

func TestAdjacentTokens(t *testing.T) {
	n := leak.New(wire.NewToken(token))
	for _, a := range encodings {
		for _, b := range encodings {
			if strings.HasPrefix(a.name, "base64") || strings.HasPrefix(b.name, "base64") {
				continue // their padding stays
			}
			in := a.text + b.text + token
			out, err := io.ReadAll(iotest.OneByteReader(n.Reader(strings.NewReader(in))))
			require.NoError(t, err)
			require.Equal(t, strings.Repeat("*", len(in)), string(out), "%s, %s", a.name, b.name)
		}
	}
}

func TestOverlappingOccurrences(t *testing.T) {
	n := leak.New(wire.NewToken("abcabcabcab"))
	in := "xabcabcabcabcabc-abcabcabca"
	for size := 1; size <= len(in); size++ {
		out, err := io.ReadAll(n.Reader(&pieces{data: []byte(in), size: size}))
		require.NoError(t, err)
		require.Equal(t, "x**************c-abcabcabca", string(out), "in pieces of %d", size)
	}
}

func TestBeginningsComeOutUnmasked(t *testing.T) {
	n := leak.New(wire.NewToken(token))
	for _, e := range encodings {
		text := bare(e.name, e.text)
		for cut := range len(text) {
			in := "x" + text[:cut]
			r := n.Reader(iotest.OneByteReader(strings.NewReader(in)))
			out, err := io.ReadAll(r)
			require.NoError(t, err)
			require.Equal(t, in, string(out), e.name)
			require.False(t, r.Leaked())
		}
	}
}

func TestOtherTextIsLeftAlone(t *testing.T) {
	n := leak.New(wire.NewToken(token))
	for _, in := range []string{
		"", "x", "pat-", token[:len(token)-1] + "b", "pat-na1-00000000-0000-4000-8000-00000000000\\u0062",
		strings.Repeat("pat-na1-00000000-", 200), strings.Repeat(`\u0070`, 500), strings.Repeat("%70%", 500), `\`, "%", "%2", `\u00`, `\x`,
	} {
		b := []byte(in)
		require.Zero(t, n.Mask(b))
		require.Equal(t, in, string(b))
		s, ok := n.MaskString(in)
		require.False(t, ok)
		require.Equal(t, in, s)
		require.NoError(t, iotest.TestReader(n.Reader(strings.NewReader(in)), []byte(in)))
	}
}

func TestNoTokenAndShortToken(t *testing.T) {
	for _, n := range []*leak.Needles{nil, leak.New(wire.Token{}), leak.New(wire.NewToken("seven77"))} {
		in := "seven77 " + token
		b := []byte(in)
		require.Zero(t, n.Mask(b))
		out, err := io.ReadAll(n.Reader(strings.NewReader(in)))
		require.NoError(t, err)
		require.Equal(t, in, string(out))
	}
}

func TestOddTokens(t *testing.T) {
	for _, odd := range []string{`a%2Fb\c"d/e+f`, "%%%%%%%%%%", `\\\\\\\\`, "aaaaaaaa", strings.Repeat("x~", 512), "12345678", "MiXeD-CaSe"} {
		n := leak.New(wire.NewToken(odd))
		quoted, err := json.Marshal(odd)
		require.NoError(t, err)
		for _, text := range []string{odd, url.QueryEscape(odd), string(quoted[1 : len(quoted)-1]), base64.StdEncoding.EncodeToString([]byte("abc" + odd))[4:], hex.EncodeToString([]byte(odd))} {
			in := "<" + strings.TrimRight(text, "=") + ">"
			out, err := io.ReadAll(n.Reader(iotest.OneByteReader(strings.NewReader(in))))
			require.NoError(t, err)
			require.Len(t, out, len(in))
			require.GreaterOrEqual(t, strings.Count(string(out), "*"), len(in)-3, "%s came out as %s", in, out)
		}
	}
}

// A stream that trickles is not held up: what cannot begin an occurrence comes
// out at once.
func TestNothingIsHeldWithoutCause(t *testing.T) {
	n := leak.New(wire.NewToken(token))
	tests := []struct{ name, in, out string }{
		{"plain", `data: {"x":1}` + "\n", `data: {"x":1}` + "\n"},
		{"a beginning", "data: pat-na", "data: "},
		{"an escaped beginning", `data: \u0070at-`, "data: "},
		{"a broken beginning", "data: pat-nb", "data: pat-nb"},
		{"half an escape", "data: %4", "data: "}, // cannot tell yet
		{"another escape", "data: %41", "data: %41"},
		{"an open escape", `data: \u00`, "data: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src, w := io.Pipe()
			t.Cleanup(func() { _ = w.Close() }) // ends the writer below
			go func() { _, _ = io.WriteString(w, tt.in) }()
			b := make([]byte, 4096)
			k, err := n.Reader(src).Read(b)
			require.NoError(t, err)
			require.Equal(t, tt.out, string(b[:k]))
		})
	}
}

func TestErrorsComeAfterTheBytes(t *testing.T) {
	n := leak.New(wire.NewToken(token))
	broken := errors.New("connection reset")
	for _, size := range []int{1, 7, 4096} {
		r := n.Reader(io.MultiReader(strings.NewReader("abc pat-na1-"), iotest.ErrReader(broken)))
		var out []byte
		b := make([]byte, size)
		for {
			k, err := r.Read(b)
			out = append(out, b[:k]...)
			if err != nil {
				require.ErrorIs(t, err, broken)
				break
			}
		}
		require.Equal(t, "abc pat-na1-", string(out))
		_, err := r.Read(b)
		require.ErrorIs(t, err, broken)
	}
	_, err := io.ReadAll(n.Reader(stuck{}))
	require.ErrorIs(t, err, io.ErrNoProgress)
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// pieces gives data in reads of size bytes.
type pieces struct {
	data []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size)], p.data)
	p.data = p.data[n:]
	return n, nil
}

// naive masks by one regular expression per form, tried at every byte.
func naive(tok string, in []byte) []byte {
	var res []*regexp.Regexp
	for _, s := range []string{tok, strings.ToLower(tok), strings.ToUpper(tok)} {
		var b strings.Builder
		b.WriteString(`(?s)\A(?:`)
		for i := range len(s) {
			c := s[i]
			fmt.Fprintf(&b, `(?:\x%02x|(?i:%%%02x|\\u%04x|\\x%02x)`, c, c, c, c)
			if !strings.ContainsRune("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", rune(c)) {
				fmt.Fprintf(&b, `|\\\x%02x`, c)
			}
			b.WriteString(`)`)
		}
		b.WriteString(`)`)
		res = append(res, regexp.MustCompile(b.String()))
	}
	plain := []string{hex.EncodeToString([]byte(tok)), strings.ToUpper(hex.EncodeToString([]byte(tok)))}
	for before := range 3 {
		// What two encodings in different company have in common.
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			a := enc.EncodeToString([]byte(strings.Repeat("\x00", before) + tok + "\x00\x00"))
			b := enc.EncodeToString([]byte(strings.Repeat("\xff", before) + tok + "\xff\xff"))
			from, to := 0, len(a)
			for from < len(a) && a[from] != b[from] {
				from++
			}
			for to > 0 && a[to-1] != b[to-1] {
				to--
			}
			plain = append(plain, a[from:to])
		}
	}
	out := bytes.Clone(in)
	for p := range in {
		ends := []int{}
		for _, re := range res {
			if loc := re.FindIndex(in[p:]); loc != nil {
				ends = append(ends, p+loc[1])
			}
		}
		for _, s := range plain {
			if bytes.HasPrefix(in[p:], []byte(s)) {
				ends = append(ends, p+len(s))
			}
		}
		for _, e := range ends {
			for i := p; i < e; i++ {
				out[i] = '*'
			}
		}
	}
	return out
}

// expand turns the fuzzer's bytes into text with many occurrences, and many
// that are nearly one.
func expand(tok string, data []byte) []byte {
	x := hex.EncodeToString([]byte(tok))
	var out []byte
	for i, b := range data {
		enc := []string{
			tok, strings.ToUpper(tok), escaped("%%%02x", tok), escaped(`\u%04X`, tok), mixture(tok), x,
			base64.StdEncoding.EncodeToString([]byte(strings.Repeat("y", i%3) + tok)), tok + tok,
		}[b%8]
		switch {
		case b < 0x80:
			out = append(out, b)
		case b < 0xc0:
			out = append(out, enc...)
		default:
			out = append(out, enc[:i*7%len(enc)]...)
		}
	}
	return out
}

func FuzzAgainstNaive(f *testing.F) {
	f.Add([]byte("plain \x80 \xc1\x82 \\u0070\x85\x85"), uint8(1), false)
	f.Add([]byte("\xc0\xc2\xc4\x80\x83%70\xc6\x86\x87"), uint8(7), true)
	for k := range byte(20) {
		sum := sha256.Sum256([]byte{k})
		f.Add(sum[:24], sum[24], k%2 == 0)
	}
	f.Fuzz(func(t *testing.T, data []byte, size uint8, periodic bool) {
		tok := "pat--9aB~"
		if periodic {
			tok = "aab-aab-aab"
		}
		if len(data) > 48 {
			data = data[:48]
		}
		in := expand(tok, data)
		want := naive(tok, in)

		n := leak.New(wire.NewToken(tok))
		whole := bytes.Clone(in)
		found := n.Mask(whole) > 0
		require.Equal(t, string(want), string(whole))

		r := n.Reader(&pieces{data: bytes.Clone(in), size: int(size) + 1})
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
		require.Equal(t, found, r.Leaked())
	})
}

func TestReadAllocatesNothing(t *testing.T) {
	n := leak.New(wire.NewToken(token))
	src := &endless{page: page()}
	r := n.Reader(src)
	b := make([]byte, 32<<10)
	_, err := r.Read(b)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = r.Read(b) })) // endless never fails
}

// endless repeats a page.
type endless struct {
	page []byte
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.page[e.at:])
	e.at = (e.at + n) % len(e.page)
	return n, nil
}

// page is 64 KiB of contacts as HubSpot lists them.
func page() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < 64<<10; i++ {
		fmt.Fprintf(&b, `{"id":"%d","properties":{"email":"person%d@example.com","firstname":"Zo\u00eb","url":"https:\/\/example.com\/a?b=%%20","hs_uuid":"%08x-0000-4000-8000-00000000000a"},"createdAt":"2026-01-02T03:04:05.678Z","archived":false},`, 100000+i, i, i)
	}
	return b.Bytes()[:64<<10]
}

func BenchmarkReader(b *testing.B) {
	n := leak.New(wire.NewToken("pat-na1-3f2c9e1b-7d4a-4b6e-9c10-5ad08b7e21fc"))
	data := page()
	buf := make([]byte, 32<<10)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		r := n.Reader(bytes.NewReader(data))
		for {
			if _, err := r.Read(buf); err != nil {
				break
			}
		}
	}
}
