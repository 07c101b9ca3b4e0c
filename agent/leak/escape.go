package leak

import "bytes"

// A match is how far an occurrence goes on.
type match uint8

const (
	none    match = iota // something else stands there
	partial              // the data ends before it can be told
	full
)

// findEscaped appends the occurrences whose first escape begins with mark. A
// form of the token that has no escape is a plain needle; in any other the
// characters before the first escape stand as they are, so that it is enough
// to look at each escape and at what is before it.
func (n *forms) findEscaped(d []byte, mark byte, spans []span) []span {
	for p := 0; ; p++ {
		i := bytes.IndexByte(d[p:], mark)
		if i < 0 {
			return spans
		}
		p += i
		c, size, m := unescape(d[p:])
		if m != full || !n.inner[c] {
			continue
		}
		for _, s := range n.mixed {
			for j := range len(s) {
				if s[j] != c || j > p || j > 0 && d[p-1] != s[j-1] || string(d[p-j:p]) != string(s[:j]) {
					continue
				}
				if end, m := matchMixed(d, p+size, s[j+1:]); m == full {
					spans = append(spans, span{p - j, end})
				}
			}
		}
	}
}

// matchMixed matches s, whose characters may each be escaped, at d[i:].
func matchMixed(d []byte, i int, s []byte) (end int, m match) {
	for j := range len(s) {
		if i == len(d) {
			return i, partial
		}
		if d[i] == s[j] {
			i++
			continue
		}
		c, size, m := unescape(d[i:])
		if m != full {
			return i, m
		}
		if c != s[j] {
			return i, none
		}
		i += size
	}
	return i, full
}

// unescape decodes the escape that d begins with: %XX, \uXXXX, \xXX, or a sign
// behind a backslash. What stands for no ASCII character is no escape here.
func unescape(d []byte) (c byte, size int, m match) {
	switch d[0] {
	case '%':
		return unhex(d, 1, 2)
	case '\\':
		if len(d) == 1 {
			return 0, 0, partial
		}
		switch c := d[1]; {
		case c == 'u':
			return unhex(d, 2, 4)
		case c == 'x':
			return unhex(d, 2, 2)
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
			return 0, 0, none // \n and the like are no signs
		default:
			return c, 2, full
		}
	}
	return 0, 0, none
}

// unhex reads count hexadecimal digits of d from the byte at.
func unhex(d []byte, at, count int) (c byte, size int, m match) {
	v := 0
	for i := range count {
		if at+i == len(d) {
			return 0, 0, partial
		}
		switch h := d[at+i]; {
		case '0' <= h && h <= '9':
			v = v<<4 | int(h-'0')
		case 'a' <= h|0x20 && h|0x20 <= 'f':
			v = v<<4 | int(h|0x20-'a'+10)
		default:
			return 0, 0, none
		}
	}
	if v > 0x7f {
		return 0, 0, none
	}
	return byte(v), at + count, full
}
