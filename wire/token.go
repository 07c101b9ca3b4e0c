package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"unicode"

	"github.com/hsagent/hsagentd/wire/secret"
)

// A Token is the secret that opens one portal. Its bytes are in pages of their
// own (package secret), not in Go's heap, and are erased when the last Token of
// them is gone. It shows itself as "[token]" in every formatter, in slog and in
// text, and refuses to be marshalled, so that it cannot be printed by accident.
//
// Tokens are equal, also by ==, if and only if their bytes are: comparing them
// takes the same time whatever the bytes are.
type Token struct{ k *kept }

// maxToken is the longest token that can be sent.
const maxToken = 1024

// kept is what all Tokens of the same bytes share.
type kept struct {
	mem         *secret.Bytes
	fingerprint string
	datacenter  string
	fault       error // why it cannot be sent, or nil
}

// NewToken wraps the secret s. The string stays in the heap: who has the secret
// in a buffer calls [TokenOf].
func NewToken(s string) Token {
	b := []byte(s)
	defer clear(b)
	return TokenOf(b)
}

// TokenOf returns the token with the bytes of b, which stays its owner's to
// erase. Of one that is longer than any token can be, only the beginning is
// kept.
func TokenOf(b []byte) Token {
	if len(b) == 0 {
		return Token{}
	}
	return Token{tokens.keep(b)}
}

// newKept copies b into secret memory and notes what is known of it.
func newKept(b []byte, sum [sha256.Size]byte) *kept {
	k := &kept{fingerprint: hex.EncodeToString(sum[:6]), fault: checkToken(b)}
	if m := tokenPrefix.FindSubmatch(b); m != nil {
		k.datacenter = strings.ToLower(string(m[1]))
	}
	k.mem = secret.Copy(b[:min(len(b), maxToken+1)])
	return k
}

// Expose shows the token's bytes to f, which must neither keep nor copy them.
func (t Token) Expose(f func(b []byte)) {
	if t.k == nil {
		f(nil)
		return
	}
	t.k.mem.Expose(f)
	runtime.KeepAlive(t.k)
}

// Reveal returns the secret as a string, a copy in the heap that nobody erases.
// It is for hsctl, which hands a new token to the agent and ends, and for
// tests. The agent exposes tokens.
func (t Token) Reveal() (s string) {
	t.Expose(func(b []byte) { s = string(b) })
	return s
}

// Len is how many bytes the token has.
func (t Token) Len() (n int) {
	t.Expose(func(b []byte) { n = len(b) })
	return n
}

// In reports whether the token stands in s.
func (t Token) In(s string) (found bool) {
	t.Expose(func(b []byte) {
		for i := 0; len(b) > 0 && i+len(b) <= len(s) && !found; i++ {
			found = s[i:i+len(b)] == string(b) // compared in place: this makes no string
		}
	})
	return found
}

// IsZero reports whether there is no token at all.
func (t Token) IsZero() bool { return t.k == nil }

// Fingerprint is the first 12 hex digits of the token's SHA-256: enough to
// tell tokens apart in the log, and no help in guessing one.
func (t Token) Fingerprint() string {
	if t.k == nil {
		return "e3b0c44298fc" // of nothing
	}
	return t.k.fingerprint
}

// Datacenter is the part of the token that names its data centre ("na1" of
// "pat-na1-…"), or "" for a token of another form: HubSpot documents none.
func (t Token) Datacenter() string {
	if t.k == nil {
		return ""
	}
	return t.k.datacenter
}

// Check returns why the token cannot be sent in a header, or nil. An odd form
// alone is no error.
func (t Token) Check() error {
	if t.k == nil {
		return errors.New("the token is empty")
	}
	return t.k.fault
}

func checkToken(b []byte) error {
	const bearer = "bearer"
	switch {
	case len(b) < 8:
		return errors.New("the token is too short to be one")
	case len(b) > maxToken:
		return errors.New("the token is longer than 1024 bytes")
	case bytes.EqualFold(b[:len(bearer)], []byte(bearer)):
		return errors.New(`the token starts with "Bearer": give the token alone`)
	}
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
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
