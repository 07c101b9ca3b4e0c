package chain

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hsagent/hsagentd/wire"
	"golang.org/x/mod/sumdb/note"
)

// ExportFormat is the first word of every export with proofs.
const ExportFormat = "hsagentd-evidence/1"

// A Manifest is the first line of an export with proofs: what the lines behind
// it must be, signed with the log's key. Without From and To they are all
// records of the slug up to the checkpoint.
type Manifest struct {
	Format       string     `json:"format"`
	Slug         string     `json:"slug"`
	From         *wire.Time `json:"from,omitempty"` // inclusive; the stretch has every record from here on
	To           *wire.Time `json:"to,omitempty"`   // exclusive
	FirstSlugSeq *uint64    `json:"firstSlugSeq"`   // nil: there are no records
	LastSlugSeq  *uint64    `json:"lastSlugSeq"`
	Count        uint64     `json:"count"`            // of the lines behind the manifest
	Pruned       []Range    `json:"pruned,omitempty"` // slugSeqs that have no line: their records were pruned
	Checkpoint   string     `json:"checkpoint"`
}

// A signedManifest is a manifest as the line shows it. What is signed is the
// line without this last member.
type signedManifest struct {
	Manifest
	Signature string `json:"signature"`
}

// A ProvedRecord is every other line of an export.
type ProvedRecord struct {
	Seq    uint64 `json:"seq"`
	Record []byte `json:"record"`
	Salt   []byte `json:"salt"`
	Proof  []Hash `json:"proof"`
}

// Line is the record's line, without a newline.
func (p *ProvedRecord) Line() ([]byte, error) { return json.Marshal(p) }

// Line signs the manifest and returns its line, without a newline.
func (m *Manifest) Line(keys Keys) ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode the manifest: %w", err)
	}
	msg, err := note.Sign(&note.Note{Text: string(text) + "\n"}, keys.signers()...)
	if err != nil {
		return nil, fmt.Errorf("sign the manifest: %w", err)
	}
	sigs := strings.TrimSuffix(string(msg[len(text)+2:]), "\n")
	return json.Marshal(signedManifest{*m, sigs})
}

// openManifest checks the line's form and signature, and opens the checkpoint in
// it, which must be of the log whose key has signed the manifest.
func openManifest(line []byte, known Verifiers) (*Manifest, *Checkpoint, error) {
	var m signedManifest
	if err := exactly(line, &m); err != nil {
		return nil, nil, err
	}
	if m.Format != ExportFormat {
		return nil, nil, fmt.Errorf("its format is %q, not %q", m.Format, ExportFormat)
	}
	text, err := json.Marshal(m.Manifest)
	if err != nil {
		return nil, nil, err
	}
	n, err := openNote(string(text)+"\n\n"+m.Signature+"\n", known)
	switch {
	case err != nil:
		return nil, nil, err
	case n.Text != string(text)+"\n":
		return nil, nil, errors.New("what is signed is a longer text")
	case (m.FirstSlugSeq == nil) != (m.LastSlugSeq == nil):
		return nil, nil, errors.New("it has only one of firstSlugSeq and lastSlugSeq")
	case m.From == nil && m.To == nil && m.FirstSlugSeq != nil && *m.FirstSlugSeq > 0:
		return nil, nil, fmt.Errorf("it has no from and to, and does not begin with the first record, but with slugSeq %d", *m.FirstSlugSeq)
	}
	c, err := OpenCheckpoint(m.Checkpoint, known)
	if err == nil {
		err = signedFor(n, c.Origin)
	}
	if err != nil {
		return nil, nil, err
	}
	return &m.Manifest, c, nil
}

// exactly decodes a line that must be written as encoding/json writes v: one
// form for one meaning, so that any change of a line shows.
func exactly(line []byte, v any) error {
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("it cannot be read: %w", err)
	}
	again, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(line, again) {
		return errors.New("it is not written as exports write it")
	}
	return nil
}

// An ExportReport is the result of [VerifyExport].
type ExportReport struct {
	Report
	Manifest   *Manifest   // nil if it is bad: then nothing else was looked at
	Checkpoint *Checkpoint // of the manifest
}

// maxLine in bytes is more than a line of an export can have.
const maxLine = 64 * MaxRecord

// VerifyExport reads an export with proofs and checks everything about it: the
// manifest's and the checkpoint's signatures by one of the known keys, each
// record's bytes and path to the checkpoint's root, and that no record between
// the first and the last was left out, added or moved. It calls each, unless
// that is nil, with every good record. Memory does not grow with the export.
// What is wrong stands in the report; an error is one of reading, or of each.
func VerifyExport(r io.Reader, known Verifiers, each func(raw []byte, r *Record) error) (*ExportReport, error) {
	v := &exportVerifier{lines: bufio.NewReaderSize(r, 64<<10), rep: &ExportReport{}, each: each}
	line, err := v.line()
	if err != nil {
		return nil, err
	}
	if v.rep.Manifest, v.rep.Checkpoint, err = openManifest(line, known); err != nil {
		v.rep.Add(0, BadNote, "the manifest: %v", err)
		return v.rep, nil
	}
	v.rep.Root = v.rep.Checkpoint.Root
	v.rep.Checkpoints = 1
	return v.rep, v.records()
}

type exportVerifier struct {
	lines *bufio.Reader
	rep   *ExportReport
	each  func(raw []byte, r *Record) error

	next   uint64  // the slugSeq that must come
	pruned []Range // that are still to come
	last   uint64  // seq of the record before
	any    bool
}

var errLine = errors.New("the export has a line that is too long to be one")

// line reads a line, without its newline; nil is the end.
func (v *exportVerifier) line() ([]byte, error) {
	var long []byte
	for {
		part, err := v.lines.ReadSlice('\n')
		long = append(long, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(long) <= maxLine:
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, errLine
		case errors.Is(err, io.EOF) && len(long) == 0:
			return nil, nil
		case errors.Is(err, io.EOF):
			v.rep.Add(v.last, BadForm, "the last line is cut off")
			return long, nil
		case err != nil:
			return nil, fmt.Errorf("read the export: %w", err)
		}
		return long[:len(long)-1], nil
	}
}

func (v *exportVerifier) records() error {
	m := v.rep.Manifest
	v.pruned = m.Pruned
	if m.FirstSlugSeq != nil {
		v.next = *m.FirstSlugSeq
	}
	n := uint64(0)
	for ; ; n++ {
		line, err := v.line()
		if err != nil {
			return err
		}
		if line == nil {
			break
		}
		if err := v.record(line); err != nil {
			return err
		}
	}
	v.rep.Records = n
	v.skip()
	if m.LastSlugSeq != nil && v.next <= *m.LastSlugSeq {
		v.rep.Add(v.last, Missing, "the records with the slugSeqs %s are not there", Range{v.next, *m.LastSlugSeq})
	}
	if n != m.Count {
		v.rep.Add(v.last, Missing, "there are %d records, and the manifest says %d", n, m.Count)
	}
	return nil
}

// skip passes over slugSeqs that were pruned.
func (v *exportVerifier) skip() {
	for len(v.pruned) > 0 && v.pruned[0].First <= v.next {
		r := v.pruned[0]
		v.pruned = v.pruned[1:]
		if r.First == v.next && r.Last >= r.First {
			v.rep.Pruned = append(v.rep.Pruned, r)
			v.rep.PrunedRecords += r.Last - r.First + 1
			v.next = r.Last + 1
		}
	}
}

// record checks one line. What is wrong is noted once, and the next line is
// looked at as if nothing had been.
func (v *exportVerifier) record(line []byte) error {
	v.skip()
	m := v.rep.Manifest
	var p ProvedRecord
	if err := exactly(line, &p); err != nil {
		v.rep.Add(v.last, BadForm, "the line after it: %v", err)
		v.next++
		return nil
	}
	r, err := v.proved(&p)
	if err != nil {
		v.rep.Add(p.Seq, Changed, "%v", err)
		v.next++
		return nil
	}
	switch {
	case r.ClientSlug != m.Slug || r.SlugSeq == nil:
		v.rep.Add(p.Seq, Unknown, "it is no record of %s", m.Slug)
		return nil
	case m.LastSlugSeq == nil || *r.SlugSeq > *m.LastSlugSeq:
		v.rep.Add(p.Seq, Unknown, "it stands after the last one, by its slugSeq %d", *r.SlugSeq)
		return nil
	case *r.SlugSeq > v.next:
		v.rep.Add(p.Seq, Missing, "the records with the slugSeqs %s are not there before it", Range{v.next, *r.SlugSeq - 1})
	case *r.SlugSeq < v.next || v.any && p.Seq <= v.last:
		v.rep.Add(p.Seq, BadOrder, "it stands a second time, or too late, by its slugSeq %d", *r.SlugSeq)
		return nil
	}
	v.next, v.last, v.any = *r.SlugSeq+1, p.Seq, true
	if v.each != nil {
		return v.each(p.Record, r)
	}
	return nil
}

// proved checks a record's bytes and their path to the root.
func (v *exportVerifier) proved(p *ProvedRecord) (*Record, error) {
	if len(p.Salt) != SaltSize {
		return nil, fmt.Errorf("its salt has %d bytes, not %d", len(p.Salt), SaltSize)
	}
	if err := included(v.rep.Checkpoint, p.Seq, Leaf(p.Salt, p.Record), p.Proof); err != nil {
		return nil, err
	}
	r, err := Decode(p.Record)
	if err == nil && r.Seq != p.Seq {
		err = fmt.Errorf("its bytes are those of record %d", r.Seq)
	}
	return r, err
}
