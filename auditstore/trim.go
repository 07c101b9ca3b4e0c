package auditstore

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// appendTrimmed appends the record's encoding, masked and cut to what a record
// may have. It leaves in rec what it wrote.
func appendTrimmed(b []byte, rec *chain.Record) ([]byte, error) {
	if rec.Caller != nil {
		c := *rec.Caller // not ours to change
		rec.Caller = &c
	}
	// Who made the record has masked these; this is the last door.
	for _, s := range []*string{&rec.Path, &rec.Reason, &rec.ObjectID, &rec.CorrelationID} {
		*s = wire.MaskTokens(*s)
	}
	start := len(b)
	b, err := rec.AppendTo(b)
	if err != nil || len(b)-start <= chain.MaxRecord {
		return b, err
	}
	texts := []*string{&rec.Path, &rec.Reason, &rec.ObjectID, &rec.ObjectType, &rec.APIVersion, &rec.CorrelationID,
		&rec.Method, &rec.Error, &rec.TokenFingerprint, &rec.Rule, &rec.ConfirmedBy, &rec.CallID, &rec.Actor, (*string)(&rec.Kind)}
	if rec.Caller != nil {
		texts = append(texts, &rec.Caller.Exe, &rec.Caller.Unit, &rec.Caller.User)
	}
	for _, s := range texts {
		*s = cut(*s, len(b)-start-chain.MaxRecord)
		if b, err = rec.AppendTo(b[:start]); err != nil || len(b)-start <= chain.MaxRecord {
			break
		}
	}
	return b, err
}

// cut shortens s by at least n bytes, if it has them, and puts the beginning
// of its hash where it was cut: two long paths stay two.
func cut(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	end := "…#" + hex.EncodeToString(sum[:8])
	if len(s) <= len(end) {
		return s
	}
	return strings.ToValidUTF8(s[:max(0, len(s)-n-len(end))], "") + end
}
