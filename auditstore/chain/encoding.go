package chain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/hsagent/hsagentd/wire"
)

// ErrNotCanonical is what [Decode] returns for bytes that are not as
// [Record.Encode] writes a record.
var ErrNotCanonical = errors.New("not in the one encoding of a record")

// A field is one key of the encoding: how it is written and how it is read.
// The table of fields is the encoding; that it gives the same bytes as
// encoding/json is tested.
type field[T any] struct {
	key string // `"name":`
	has func(*T) bool
	put func([]byte, *T) []byte
	get func(*parser, *T)
}

var recordFields = []field[Record]{
	must(uint64Field("seq", func(r *Record) *uint64 { return &r.Seq })),
	{`"ts":`, func(*Record) bool { return true },
		func(b []byte, r *Record) []byte { return appendTime(b, r.TS) },
		func(p *parser, r *Record) { r.TS = p.time() }},
	must(textField("kind", func(r *Record) *string { return (*string)(&r.Kind) })),
	textField("clientSlug", func(r *Record) *string { return &r.ClientSlug }),
	intField("portalId", func(r *Record) *int64 { return &r.PortalID }),
	optField("slugSeq", func(r *Record) **uint64 { return &r.SlugSeq }),
	textField("callId", func(r *Record) *string { return &r.CallID }),
	intField("attempt", func(r *Record) *int { return &r.Attempt }),
	textField("method", func(r *Record) *string { return &r.Method }),
	textField("path", func(r *Record) *string { return &r.Path }),
	textField("objectType", func(r *Record) *string { return &r.ObjectType }),
	textField("objectId", func(r *Record) *string { return &r.ObjectID }),
	textField("apiVersion", func(r *Record) *string { return &r.APIVersion }),
	must(textField("actor", func(r *Record) *string { return &r.Actor })),
	{`"caller":`, func(r *Record) bool { return r.Caller != nil },
		func(b []byte, r *Record) []byte { return appendFields(b, callerFields, r.Caller) },
		func(p *parser, r *Record) { r.Caller = new(Caller); parseFields(p, callerFields, r.Caller) }},
	textField("reason", func(r *Record) *string { return &r.Reason }),
	textField("rule", func(r *Record) *string { return &r.Rule }),
	textField("confirmedBy", func(r *Record) *string { return &r.ConfirmedBy }),
	intField("statusCode", func(r *Record) *int { return &r.StatusCode }),
	optField("durationMs", func(r *Record) **int64 { return &r.DurationMs }),
	optField("requestBytes", func(r *Record) **int64 { return &r.RequestBytes }),
	optField("responseBytes", func(r *Record) **int64 { return &r.ResponseBytes }),
	intField("numErrors", func(r *Record) *int { return &r.NumErrors }),
	textField("correlationId", func(r *Record) *string { return &r.CorrelationID }),
	optField("rateLimitRemaining", func(r *Record) **int64 { return &r.RateLimitRemaining }),
	textField("tokenFingerprint", func(r *Record) *string { return &r.TokenFingerprint }),
	intField("storeVersion", func(r *Record) *int64 { return &r.StoreVersion }),
	textField("error", func(r *Record) *string { return &r.Error }),
}

var callerFields = []field[Caller]{
	must(intField("uid", func(c *Caller) *int { return &c.UID })),
	textField("user", func(c *Caller) *string { return &c.User }),
	must(intField("gid", func(c *Caller) *int { return &c.GID })),
	intField("pid", func(c *Caller) *int { return &c.PID }),
	textField("exe", func(c *Caller) *string { return &c.Exe }),
	textField("unit", func(c *Caller) *string { return &c.Unit }),
	{`"agent":`, func(c *Caller) bool { return c.Agent },
		func(b []byte, _ *Caller) []byte { return append(b, "true"...) },
		func(p *parser, c *Caller) { c.Agent = p.skip("true") }},
}

// must makes a field that is written even if it is empty.
func must[T any](f field[T]) field[T] {
	f.has = func(*T) bool { return true }
	return f
}

func textField[T any](name string, at func(*T) *string) field[T] {
	return field[T]{`"` + name + `":`,
		func(r *T) bool { return *at(r) != "" },
		func(b []byte, r *T) []byte { return appendText(b, *at(r)) },
		func(p *parser, r *T) { *at(r) = p.text() }}
}

func intField[T any, N int | int64](name string, at func(*T) *N) field[T] {
	return field[T]{`"` + name + `":`,
		func(r *T) bool { return *at(r) != 0 },
		func(b []byte, r *T) []byte { return strconv.AppendInt(b, int64(*at(r)), 10) },
		func(p *parser, r *T) { *at(r) = N(p.int()) }}
}

func uint64Field[T any](name string, at func(*T) *uint64) field[T] {
	return field[T]{`"` + name + `":`,
		func(r *T) bool { return *at(r) != 0 },
		func(b []byte, r *T) []byte { return strconv.AppendUint(b, *at(r), 10) },
		func(p *parser, r *T) { *at(r) = p.uint() }}
}

func optField[T any, N int64 | uint64](name string, at func(*T) **N) field[T] {
	return field[T]{`"` + name + `":`,
		func(r *T) bool { return *at(r) != nil },
		func(b []byte, r *T) []byte {
			if v := **at(r); v > 0 {
				return strconv.AppendUint(b, uint64(v), 10)
			}
			return strconv.AppendInt(b, int64(**at(r)), 10)
		},
		func(p *parser, r *T) {
			v := new(N)
			if p.at < len(p.s) && p.s[p.at] == '-' {
				*v = N(p.int())
			} else {
				*v = N(p.uint())
			}
			*at(r) = v
		}}
}

func appendFields[T any](b []byte, fields []field[T], v *T) []byte {
	sep := byte('{')
	for i := range fields {
		if f := &fields[i]; f.has(v) {
			b = append(b, sep)
			b = append(b, f.key...)
			b = f.put(b, v)
			sep = ','
		}
	}
	return append(b, '}')
}

// appendText writes a JSON string without HTML escapes. Bytes that are not
// UTF-8 become U+FFFD.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return appendOddText(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendOddText(b []byte, s string) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(strings.ToValidUTF8(s, "\uFFFD")) // a string always encodes, and a Buffer takes it
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}

func appendTime(b []byte, t wire.Time) []byte {
	b = append(b, '"')
	if !t.IsZero() {
		b = t.UTC().AppendFormat(b, wire.TimeFormat)
	}
	return append(b, '"')
}

// AppendTo appends the record's one encoding to b: compact JSON, keys in field
// order, no HTML escapes, no newline.
func (r *Record) AppendTo(b []byte) ([]byte, error) {
	if y := r.TS.UTC().Year(); y < 0 || y > 9999 {
		return b, fmt.Errorf("encode record %d: its time has the year %d", r.Seq, y)
	}
	return appendFields(b, recordFields, r), nil
}

// Encode returns the record's one encoding: compact JSON, keys in field order,
// no HTML escapes, no newline.
func (r *Record) Encode() ([]byte, error) { return r.AppendTo(nil) }

var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// Decode parses stored bytes. There is one encoding of each record: bytes that
// encode differently are refused with [ErrNotCanonical].
func Decode(b []byte) (*Record, error) {
	p := &parser{s: string(b)}
	r := new(Record)
	parseFields(p, recordFields, r)
	if p.bad || p.at != len(p.s) {
		return nil, fmt.Errorf("decode record: at byte %d: %w", p.at, ErrNotCanonical)
	}
	// The parser is lenient where this comparison is not.
	buf, _ := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	again, err := r.AppendTo((*buf)[:0])
	*buf = again
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(b, again) {
		return nil, fmt.Errorf("decode record: %w", ErrNotCanonical)
	}
	return r, nil
}

// A Head is what the stored bytes of every record begin with.
type Head struct {
	Seq     uint64
	TS      wire.Time
	Kind    Kind
	Slug    string
	SlugSeq *uint64
}

// DecodeHead parses only the beginning of stored bytes, which is much faster.
// The bytes must be known to be good by their hash.
func DecodeHead(b []byte) (Head, error) {
	p := &parser{s: string(b[:min(len(b), headBytes)])}
	var r Record
	p.open = true
	parseFields(p, recordFields[:6], &r)
	if p.bad {
		return Head{}, fmt.Errorf("decode record: at byte %d: %w", p.at, ErrNotCanonical)
	}
	return Head{r.Seq, r.TS, r.Kind, r.ClientSlug, r.SlugSeq}, nil
}

// headBytes is more than a head takes.
const headBytes = 320

// A parser reads the encoding. It takes a little more than Encode gives, and
// never fails otherwise than by setting bad.
type parser struct {
	s    string
	at   int
	bad  bool
	open bool // do not ask for the closing brace
}

func parseFields[T any](p *parser, fields []field[T], v *T) {
	sep := "{"
	for i := range fields {
		f := &fields[i]
		rest := p.s[p.at:]
		if len(rest) > 0 && rest[:1] == sep && strings.HasPrefix(rest[1:], f.key) {
			p.at += 1 + len(f.key)
			f.get(p, v)
			sep = ","
			if p.bad {
				return
			}
		}
	}
	if !p.open && !p.skip("}") {
		p.bad = true
	}
}

// skip reports whether s comes next, and passes it.
func (p *parser) skip(s string) bool {
	if !strings.HasPrefix(p.s[p.at:], s) {
		return false
	}
	p.at += len(s)
	return true
}

func (p *parser) digits() string {
	start := p.at
	if p.at < len(p.s) && p.s[p.at] == '-' {
		p.at++
	}
	for p.at < len(p.s) && p.s[p.at] >= '0' && p.s[p.at] <= '9' {
		p.at++
	}
	return p.s[start:p.at]
}

func (p *parser) int() int64 {
	v, err := strconv.ParseInt(p.digits(), 10, 64)
	p.bad = p.bad || err != nil
	return v
}

func (p *parser) uint() uint64 {
	v, err := strconv.ParseUint(p.digits(), 10, 64)
	p.bad = p.bad || err != nil
	return v
}

func (p *parser) text() string {
	if !p.skip(`"`) {
		p.bad = true
		return ""
	}
	start, escaped := p.at, false
	for ; p.at < len(p.s); p.at++ {
		switch p.s[p.at] {
		case '\\':
			escaped = true
			p.at++
		case '"':
			s := p.s[start:p.at]
			p.at++
			if escaped {
				var u string
				p.bad = p.bad || json.Unmarshal([]byte(p.s[start-1:p.at]), &u) != nil
				return u
			}
			return s
		}
	}
	p.at = len(p.s)
	p.bad = true
	return ""
}

func (p *parser) time() wire.Time {
	s := p.text()
	if s == "" {
		return wire.Time{}
	}
	t, err := time.Parse(wire.TimeFormat, s)
	p.bad = p.bad || err != nil
	return wire.Time{Time: t}
}
