package wire

import (
	"errors"
	"fmt"
	"strings"
)

// MaxSlug is the longest slug in bytes.
const MaxSlug = 63

// ErrBadSlug is what every error of [ParseSlug] wraps.
var ErrBadSlug = errors.New("not a slug: want lower-case letters and digits in words joined by single hyphens, at most 63 bytes, such as acme-corp")

// A Slug names one client's portal, such as "acme-corp". It is the only handle
// that callers use. The zero value is no slug; [ParseSlug] makes valid ones.
type Slug struct{ s string }

// ParseSlug returns s as a slug. The error wraps [ErrBadSlug] and shows s
// escaped, cut and with anything of a token's form masked, since a token is
// sometimes pasted where a slug belongs.
func ParseSlug(s string) (Slug, error) {
	if !validSlug(s) {
		return Slug{}, fmt.Errorf("slug %s: %w", Quote(s), ErrBadSlug)
	}
	if MaskTokens(s) != s {
		return Slug{}, fmt.Errorf("slug %s: a token stands where the slug belongs: %w", Quote(s), ErrBadSlug)
	}
	return Slug{s}, nil
}

// validSlug is ^[a-z0-9]+(-[a-z0-9]+)*$ and at most MaxSlug bytes.
func validSlug(s string) bool {
	if s == "" || len(s) > MaxSlug || s[0] == '-' || s[len(s)-1] == '-' || strings.Contains(s, "--") {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// String returns the slug as it is written, or "" for the zero value.
func (s Slug) String() string { return s.s }

// IsZero reports whether s is the zero value.
func (s Slug) IsZero() bool { return s.s == "" }

// MarshalText writes the slug into JSON and other text forms.
func (s Slug) MarshalText() ([]byte, error) { return []byte(s.s), nil }

// UnmarshalText parses a slug out of JSON and other text forms.
func (s *Slug) UnmarshalText(b []byte) error {
	v, err := ParseSlug(string(b))
	if err != nil {
		return err
	}
	*s = v
	return nil
}
