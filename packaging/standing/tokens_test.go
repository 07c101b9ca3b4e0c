package standing_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/packaging/standing"
	"github.com/hsagent/hsagentd/wire"
)

const (
	secret = "pat-na1-00000000-0000-4000-8000-00000000000a"
	other  = "pat-eu1-00000000-0000-4000-8000-00000000000b"
)

// Each form is found at every place, whatever stands around it.
func TestTokensAreFound(t *testing.T) {
	var escaped, wide strings.Builder
	for _, u := range utf16.Encode([]rune(secret)) {
		escaped.WriteString(`\u00` + hex.EncodeToString([]byte{byte(u)}))
		wide.Write([]byte{byte(u), byte(u >> 8)})
	}
	tests := map[string]func(around string) string{
		"as it is":    func(around string) string { return around + secret + around },
		"capitals":    func(around string) string { return around + strings.ToUpper(secret) + around },
		"hexadecimal": func(around string) string { return hex.EncodeToString([]byte(around + secret + around)) },
		"percent":     func(around string) string { return around + strings.ReplaceAll(url.QueryEscape(secret), "-", "%2D") },
		"JSON":        func(around string) string { return around + escaped.String() + around },
		"UTF-16":      func(around string) string { return around + wide.String() + around },
		"base64":      func(around string) string { return base64.StdEncoding.EncodeToString([]byte(around + secret + around)) },
		"base64url":   func(around string) string { return base64.URLEncoding.EncodeToString([]byte(around + secret + around)) },
		"base64 of JSON": func(around string) string {
			b, err := json.Marshal(map[string]string{"token": secret, "around": around})
			require.NoError(t, err)
			return base64.StdEncoding.EncodeToString(b)
		},
	}
	tokens := standing.NewTokens(wire.NewToken(other), wire.NewToken(secret))
	for name, form := range tests {
		t.Run(name, func(t *testing.T) {
			for n := range 100 {
				text := form(strings.Repeat("~", n))
				hits := tokens.Find([]byte(text))
				require.NotEmpty(t, hits, "%d bytes around", n)
				for _, h := range hits {
					require.Equal(t, 1, h.Token)
					require.LessOrEqual(t, h.At+h.Size, len(text))
				}
			}
		})
	}
}

func TestNothingIsFound(t *testing.T) {
	tokens := standing.NewTokens(wire.NewToken(secret))
	for _, text := range []string{
		"", "pat", "pat-na1-***", secret[:40], secret[12:], other,
		strings.Replace(secret, "4000", "4001", 1),
		strings.ToUpper(base64.StdEncoding.EncodeToString([]byte(secret))), // another text altogether
		strings.Repeat("\x00", 1000),
	} {
		require.Empty(t, tokens.Find([]byte(text)), text)
	}
	require.Empty(t, (*standing.Tokens)(nil).Find([]byte(secret)))
}
