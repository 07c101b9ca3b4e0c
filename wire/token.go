package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// A Token is the secret that opens one portal. It shows itself as "[token]" in
// every formatter, in slog and in text, and refuses to be marshalled, so that
// it cannot be printed by accident. [Token.Reveal] is the one way to its bytes.
type Token struct{ s string }

// NewToken wraps the secret s.
func NewToken(s string) Token { return Token{s} }

// Reveal returns the secret itself. It belongs in three places only: where a
// token joins an upstream request, where the store is encrypted, and where
// hsctl hands a new token to the agent.
func (t Token) Reveal() string { return t.s }

// IsZero reports whether there is no token at all.
func (t Token) IsZero() bool { return t.s == "" }

// Fingerprint is the first 12 hex digits of the token's SHA-256: enough to
// tell tokens apart in the log, and no help in guessing one.
func (t Token) Fingerprint() string {
	sum := sha256.Sum256([]byte(t.s))
	return hex.EncodeToString(sum[:6])
}

// Datacenter is the part of the token that names its data centre ("na1" of
// "pat-na1-…"), or "" for a token of another form: HubSpot documents none.
func (t Token) Datacenter() string {
	m := tokenPrefix.FindStringSubmatch(t.s)
	if m == nil {
		return ""
	}
	return strings.ToLower(m[1])
}

// Check returns why the token cannot be sent in a header, or nil. An odd form
// alone is no error.
func (t Token) Check() error {
	switch {
	case t.s == "":
		return errors.New("the token is empty")
	case len(t.s) < 8:
		return errors.New("the token is too short to be one")
	case len(t.s) > 1024:
		return errors.New("the token is longer than 1024 bytes")
	case strings.HasPrefix(strings.ToLower(t.s), "bearer"):
		return errors.New(`the token starts with "Bearer": give the token alone`)
	}
	for i := range len(t.s) {
		if c := t.s[i]; c <= ' ' || c >= 0x7f {
			return errors.New("the token has a space, a control byte or a byte outside ASCII")
		}
	}
	return nil
}

// Format shows the token as "[token]" whatever the verb.
func (t Token) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "[token]") // a fmt.State keeps no error
}

// String shows the token as "[token]".
func (t Token) String() string { return "[token]" }

// GoString shows the token as "[token]".
func (t Token) GoString() string { return "[token]" }

// LogValue shows the token as "[token]" in slog.
func (t Token) LogValue() slog.Value { return slog.StringValue("[token]") }

// MarshalJSON always fails.
func (t Token) MarshalJSON() ([]byte, error) { return nil, errors.New("a token cannot be marshalled") }

// MarshalText always fails.
func (t Token) MarshalText() ([]byte, error) { return nil, errors.New("a token cannot be marshalled") }

var (
	tokenPrefix = regexp.MustCompile(`^(?i:pat)-([A-Za-z]{2,4}[0-9]{1,2})-`)

	// tokenForm is wider than any form seen in use: a datacenter, then at
	// least eight characters of the kind that a token is made of. It may
	// follow anything: in "%3Dpat-na1-…" a letter stands before it.
	tokenForm = regexp.MustCompile(`(?i)pat-([a-z]{2,4}[0-9]{1,2})-[0-9a-z](?:[0-9a-z_-]|%2d){6,}[0-9a-z]`)
)

// MaskTokens replaces everything in s that has a token's form by
// "pat-<datacenter>-***".
func MaskTokens(s string) string {
	// Nearly every string has no "pat-" in any case: leave it alone cheaply.
	if !containsPat(s) {
		return s
	}
	return tokenForm.ReplaceAllString(s, "pat-$1-***")
}

func containsPat(s string) bool {
	for i := 0; i+4 <= len(s); i++ {
		if s[i]|0x20 == 'p' && s[i+1]|0x20 == 'a' && s[i+2]|0x20 == 't' && s[i+3] == '-' {
			return true
		}
	}
	return false
}

// maxShown is how much of a bad input an error message repeats.
const maxShown = 80

// Quote shows input from outside in a message: quoted, escaped, cut to 80
// bytes, and with anything of a token's form masked.
func Quote(s string) string {
	s = MaskTokens(s)
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return strconv.QuoteToGraphic(s)
}

// Printable returns s with every control byte, bidirectional or zero-width
// character and invalid byte written as an escape, so that data from outside
// cannot steer a terminal or split a log line.
func Printable(s string) string {
	clean := true
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == unicode.ReplacementChar && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r < 0x100 && !unicode.IsGraphic(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
