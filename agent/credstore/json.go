package credstore

import (
	"encoding/json"
	"errors"
)

// The store's JSON is read where it lies: what is found are parts of the one
// buffer that was decrypted, so that erasing that buffer erases all of it.

var (
	errSyntax = errors.New("no valid JSON")
	errDeep   = errors.New("nested too deep")
)

// skipSpace returns where the next token begins.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns the end of the value that begins at b[i], which may nest
// so deep.
func skipValue(b []byte, i, depth int) (int, error) {
	if i >= len(b) {
		return i, errSyntax
	}
	switch c := b[i]; {
	case c == '"':
		return skipString(b, i)
	case c == '{':
		return skipMembers(b, i, depth, func(key, value []byte) {})
	case c == '[':
		return skipList(b, i, depth)
	case c == '-' || '0' <= c && c <= '9':
		return skipNumber(b, i)
	}
	for _, word := range []string{"null", "true", "false"} {
		if len(b)-i >= len(word) && string(b[i:i+len(word)]) == word {
			return i + len(word), nil
		}
	}
	return i, errSyntax
}

// skipMembers returns the end of the object that begins at b[i], and calls each
// for its members, the key with its quotes.
func skipMembers(b []byte, i, depth int, each func(key, value []byte)) (int, error) {
	if depth == 0 {
		return i, errDeep
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1, nil
	}
	for {
		if i >= len(b) || b[i] != '"' {
			return i, errSyntax
		}
		end, err := skipString(b, i)
		if err != nil {
			return end, err
		}
		key := b[i:end]
		i = skipSpace(b, end)
		if i >= len(b) || b[i] != ':' {
			return i, errSyntax
		}
		i = skipSpace(b, i+1)
		end, err = skipValue(b, i, depth-1)
		if err != nil {
			return end, err
		}
		each(key, b[i:end:end])
		i = skipSpace(b, end)
		switch {
		case i < len(b) && b[i] == ',':
			i = skipSpace(b, i+1)
		case i < len(b) && b[i] == '}':
			return i + 1, nil
		default:
			return i, errSyntax
		}
	}
}

func skipList(b []byte, i, depth int) (int, error) {
	if depth == 0 {
		return i, errDeep
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1, nil
	}
	for {
		end, err := skipValue(b, i, depth-1)
		if err != nil {
			return end, err
		}
		i = skipSpace(b, end)
		switch {
		case i < len(b) && b[i] == ',':
			i = skipSpace(b, i+1)
		case i < len(b) && b[i] == ']':
			return i + 1, nil
		default:
			return i, errSyntax
		}
	}
}

func skipString(b []byte, i int) (int, error) {
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, nil
		case c < ' ':
			return i, errSyntax
		case c == '\\':
			i++
			switch {
			case i == len(b):
				return i, errSyntax
			case b[i] == 'u':
				for range 4 {
					if i++; i == len(b) || !isHex(b[i]) {
						return i, errSyntax
					}
				}
			case !isEscaped(b[i]):
				return i, errSyntax
			}
		}
	}
	return i, errSyntax
}

func isEscaped(c byte) bool {
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	}
	return false
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func skipNumber(b []byte, i int) (int, error) {
	digits := func() bool {
		start := i
		for i < len(b) && '0' <= b[i] && b[i] <= '9' {
			i++
		}
		return i > start
	}
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return i, errSyntax
	}
	if i < len(b) && b[i] == '.' {
		if i++; !digits() {
			return i, errSyntax
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return i, errSyntax
		}
	}
	return i, nil
}

// plainInside is what stands between the quotes of a JSON string that has no
// escapes.
func plainInside(raw []byte) ([]byte, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return nil, false
	}
	inside := raw[1 : len(raw)-1]
	for _, c := range inside {
		if c == '\\' {
			return nil, false
		}
	}
	return inside, true
}

// str reads a JSON string that is no secret.
func str(raw []byte) (string, bool) {
	if inside, ok := plainInside(raw); ok {
		return string(inside), true
	}
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

// isStr reports whether raw is the JSON string s.
func isStr(raw []byte, s string) bool {
	if inside, ok := plainInside(raw); ok {
		return string(inside) == s // compared in place
	}
	got, ok := str(raw)
	return ok && got == s
}
