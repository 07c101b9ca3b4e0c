package hubspot

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// MaxRecordPath is the most bytes of a path and query that a record keeps: it
// leaves room for the rest of the record, which has a limit of its own.
const MaxRecordPath = 4096

// keptParams are the query parameters whose values are recorded: they tell how
// much was read, and of what kind. Every other value may be personal data.
var keptParams = map[string]bool{
	"limit": true, "after": true, "archived": true,
	"properties": true, "associations": true, "idProperty": true,
}

// RecordPath is the path and query of t as the audit log keeps them: query
// values replaced by "*" unless they are known to be harmless, an e-mail
// address by "*@domain", anything of a token's form masked, and cut at
// [MaxRecordPath] bytes with "…#" and the beginning of its hash at the end.
func RecordPath(t Target) string { return RecordRaw(t.String()) }

// RecordRaw is [RecordPath] for a target that [ParseTarget] refused: any bytes
// at all. What cannot be shown is escaped.
func RecordRaw(raw string) string {
	path, query, hasQuery := strings.Cut(raw[:min(len(raw), MaxTarget)], "?")
	out := path
	if strings.ContainsAny(path, "@%") { // otherwise no segment can be an address
		segs := strings.Split(path, "/")
		for i, s := range segs {
			segs[i] = maskEmail(s)
		}
		out = strings.Join(segs, "/")
	}
	if hasQuery {
		pairs := strings.Split(query, "&")
		for i, p := range pairs {
			pairs[i] = recordParam(p)
		}
		out += "?" + strings.Join(pairs, "&")
	}
	if hasToken(out) {
		out = wire.MaskTokens(decodeAll(out)) // other escapes go with the token's
	}
	out = wire.Printable(out)
	if len(out) > MaxRecordPath {
		sum := sha256.Sum256([]byte(out)) // two long paths stay two
		more := "…#" + hex.EncodeToString(sum[:8])
		out = strings.ToValidUTF8(out[:MaxRecordPath-len(more)], "") + more
	}
	return out
}

// recordParam is one name=value of a query as it is recorded.
func recordParam(pair string) string {
	name, value, ok := strings.Cut(pair, "=")
	switch {
	case strings.Contains(decodeAll(name), "@"):
		return "*"
	case !ok:
		if name == "" || keptParams[name] {
			return name
		}
		return "*" // may be a value as well as a name
	case keptParams[name] && !strings.ContainsAny(decodeAll(value), "@;"):
		return pair
	default:
		return name + "=*"
	}
}

// maskEmail replaces the local part of an e-mail address in one segment,
// however deep its "@" is encoded. "@hubspot", which has none, is no address.
func maskEmail(seg string) string {
	d := decodeAll(seg)
	i := strings.LastIndexByte(d, '@')
	if i < 1 {
		return seg
	}
	return "*@" + url.PathEscape(d[i+1:])
}
