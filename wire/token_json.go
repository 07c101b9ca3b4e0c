package wire

import (
	"errors"
	"unicode/utf8"
)

// UnmarshalJSON takes the token from a JSON string; null is the zero token. It
// makes no copy of the token but the one in secret memory: whoever has b erases
// it. Its errors show nothing of b.
func (t *Token) UnmarshalJSON(b []byte) error {
	switch {
	case string(b) == "null":
		*t = Token{}
		return nil
	case len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"':
		return errors.New("a token is a JSON string")
	}
	b = b[1 : len(b)-1]
	for _, c := range b {
		if c == '\\' {
			plain := make([]byte, 0, len(b)) // unescaping makes nothing longer
			defer func() { clear(plain[:cap(plain)]) }()
			var err error
			if plain, err = unescape(plain, b); err != nil {
				return err
			}
			*t = TokenOf(plain)
			return nil
		}
	}
	*t = TokenOf(b)
	return nil
}

// AppendJSON appends the token to b as a JSON string. b must have room for it,
// see [Token.SizeJSON]: growing would leave a copy behind.
func (t Token) AppendJSON(b []byte) []byte {
	t.Expose(func(token []byte) {
		b = append(b, '"')
		for _, c := range token {
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c < ' ':
				const hex = "0123456789abcdef"
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			default:
				b = append(b, c)
			}
		}
		b = append(b, '"')
	})
	return b
}

// SizeJSON is how many bytes [Token.AppendJSON] appends at most.
func (t Token) SizeJSON() int { return 6*t.Len() + 2 }

// unescape appends to dst what the inside of a JSON string stands for.
func unescape(dst, s []byte) ([]byte, error) {
	bad := errors.New("a token is a JSON string without broken escapes")
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			continue
		}
		if i++; i == len(s) {
			return dst, bad
		}
		switch c := s[i]; c {
		case '"', '\\', '/':
			dst = append(dst, c)
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			if i+4 >= len(s) {
				return dst, bad
			}
			var r rune
			for _, h := range s[i+1 : i+5] {
				switch {
				case '0' <= h && h <= '9':
					r = r<<4 | rune(h-'0')
				case 'a' <= h|0x20 && h|0x20 <= 'f':
					r = r<<4 | rune(h|0x20-'a'+10)
				default:
					return dst, bad
				}
			}
			i += 4
			dst = utf8.AppendRune(dst, r) // half a pair is U+FFFD: no token has either
		default:
			return dst, bad
		}
	}
	return dst, nil
}
