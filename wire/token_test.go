package wire_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

func TestTokenNeverShows(t *testing.T) {
	tok := wire.NewToken(madeUpToken)
	secret := madeUpToken[len("pat-na1-"):]
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		require.NotContains(t, fmt.Sprintf(verb, tok), secret, verb)
		require.NotContains(t, fmt.Sprintf(verb, struct{ T wire.Token }{tok}), secret, verb)
		require.NotContains(t, fmt.Sprintf(verb, &tok), secret, verb)
	}
	_, err := json.Marshal(map[string]any{"token": tok})
	require.Error(t, err)
	require.NotContains(t, err.Error(), secret)
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "token", tok, "in", struct{ T wire.Token }{tok})
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "token", tok)
	require.NotContains(t, b.String(), secret)
	require.Equal(t, madeUpToken, tok.Reveal())
}

func TestTokenCheck(t *testing.T) {
	tests := []struct {
		name, token, want string
	}{
		{"usual", madeUpToken, ""},
		{"odd form", "CgLongerOddToken-with_marks.1", ""},
		{"empty", "", "empty"},
		{"short", "pat", "too short"},
		{"long", strings.Repeat("x", 1025), "longer"},
		{"bearer", "Bearer " + madeUpToken, "Bearer"},
		{"newline", madeUpToken + "\nX", "control byte"},
		{"space", "pat na1 0000", "space"},
		{"not ASCII", "pät-na1-0000", "outside ASCII"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := wire.NewToken(tt.token).Check()
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
			if len(tt.token) > 8 {
				require.NotContains(t, err.Error(), tt.token)
			}
		})
	}
}

func TestTokenParts(t *testing.T) {
	require.Equal(t, "na1", wire.NewToken(madeUpToken).Datacenter())
	require.Equal(t, "eu1", wire.NewToken("PAT-EU1-00000000-0000").Datacenter())
	require.Empty(t, wire.NewToken("another-form").Datacenter())
	require.Len(t, wire.NewToken(madeUpToken).Fingerprint(), 12)
	require.NotEqual(t, wire.NewToken("a").Fingerprint(), wire.NewToken("b").Fingerprint())
}

func TestMaskTokens(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"alone", madeUpToken, "pat-na1-***"},
		{"in a sentence", "key=" + madeUpToken + ", next", "key=pat-na1-***, next"},
		{"upper case", strings.ToUpper(madeUpToken), "pat-NA1-***"},
		{"two", madeUpToken + " " + madeUpToken, "pat-na1-*** pat-na1-***"},
		{"percent hyphens", "pat-eu1-00000000%2d0000%2D4000", "pat-eu1-***"},
		{"no token", "the pat-tern stays", "the pat-tern stays"},
		{"a slug", "pat-smith", "pat-smith"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, wire.MaskTokens(tt.in)) })
	}
}

func TestQuote(t *testing.T) {
	require.Equal(t, `"a\nb"`, wire.Quote("a\nb"))
	require.Equal(t, `"\x1b[31m"`, wire.Quote("\x1b[31m"))
	require.Contains(t, wire.Quote(strings.Repeat("é", 100)), "…")
	require.NotContains(t, wire.Quote(strings.Repeat("x", 60)+madeUpToken), "4000-8000", "masked before it is cut")
}

func TestThreat50Printable(t *testing.T) {
	require.Equal(t, "acme-corp", wire.Printable("acme-corp"))
	require.Equal(t, "Müller & 東京", wire.Printable("Müller & 東京"))
	hostile := []string{"\x1b]0;owned\a", "\x1b[2J", "\x1b]8;;http://x\x1b\\", "\x1b]52;c;eA==\a", "\u009b31m", "a\r\nb", "\u2066x\u2069", "bad\xffbyte", "\xc2", "\U000e0041"}
	for c := rune(0); c < 0xa0; c++ { // the control codes, of both kinds
		if c < 0x20 || c >= 0x7f {
			hostile = append(hostile, "a"+string(c)+"b")
		}
	}
	invisible := []string{"\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069", "\u061c", "\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\u2060", "\ufeff", "\u2028", "\u2029"}
	hostile = append(hostile, invisible...)
	require.Greater(t, len(hostile), 60)
	for _, in := range hostile {
		out := wire.Printable(in)
		require.True(t, utf8.ValidString(out))
		for _, r := range out {
			require.False(t, r < 0x20 || r >= 0x7f && r < 0xa0, "%q gave %q", in, out)
		}
		require.NotEqual(t, in, out)
		for _, bad := range append(invisible, "\U000e0041") {
			require.NotContains(t, out, bad)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("\x1b[31mred\u202e\xff")
	f.Add("plain")
	f.Fuzz(func(t *testing.T, in string) {
		out := wire.Printable(in)
		require.True(t, utf8.ValidString(out))
		require.Equal(t, out, wire.Printable(out), "what is printable stays")
	})
}

func FuzzMaskTokens(f *testing.F) {
	f.Add("x", "y")
	f.Fuzz(func(t *testing.T, before, after string) {
		// A letter, digit or underscore right before "pat-" makes another word of it.
		require.NotContains(t, wire.MaskTokens(before+" "+madeUpToken+" "+after), madeUpToken)
	})
}
