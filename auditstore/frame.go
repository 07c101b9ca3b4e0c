package auditstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/hsagent/hsagentd/auditstore/chain"
)

// A segment is one of the write-ahead log's files. Numbers are big endian, and every
// part begins at a multiple of eight:
//
//	head   "hs-wal1\n" · epoch 8 · records before it 8 · root of their tree 32 ·
//	       sum of these 4 · 0 4
//	frames, one for each batch:
//	       epoch 8 · bytes of the body 4 · sum 4 · records before it 8 ·
//	       records with it 8 · root of the tree with it 32 · body · 0 to the
//	       next multiple of eight · mark 8
//	end    in a segment that another one continues: the epoch with its bits turned
//
// The body is, for each record, the length of the rest 4 · salt · stored bytes;
// then, of a batch that seals the log, the seal, and checkpoint and keys with
// the length 4 before each. Sums are CRC-32C: they tell a torn write, the roots
// everything else. The mark is the epoch plus one once the batch is durable. It
// is not synced by itself, and matters only where its frame cannot be read: with
// it the frame was acknowledged, and is damaged; without it it may be torn. The
// epoch is drawn at random for each segment: what is left of an older one in the
// file is free space.
const (
	segmentMagic = "hs-wal1\n"
	segmentHead  = 8 + 8 + 8 + 32 + 8
	frameHead    = 8 + 4 + 4 + 8 + 8 + 32
	word         = 8

	// maxFrame is more than the largest batch needs: its records, their lengths
	// and salts, a seal, a checkpoint and keys.
	maxFrame = maxBatch*(chain.MaxRecord+4+chain.SaltSize) + 64<<10
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errTorn = errors.New("it is not whole")
)

// A sighting is how the log stood after a batch, as the write-ahead log saw it.
type sighting struct {
	size uint64
	root chain.Hash
}

// A frame is one batch in the write-ahead log.
type frame struct {
	before uint64
	sighting
	body []byte
}

// appendHead begins a segment.
func appendHead(b []byte, epoch uint64, base sighting) []byte {
	start := len(b)
	b = append(b, segmentMagic...)
	b = binary.BigEndian.AppendUint64(b, epoch)
	b = binary.BigEndian.AppendUint64(b, base.size)
	b = append(b, base.root[:]...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	return binary.BigEndian.AppendUint32(b, 0)
}

// beginFrame leaves room for what sealFrame knows.
func beginFrame(b []byte) []byte { return append(b, make([]byte, frameHead)...) }

// appendStored adds a record's salt and bytes, which put writes, to the body. It
// returns them as well.
func appendStored(b, salt []byte, put func([]byte) ([]byte, error)) (all, stored []byte, err error) {
	at := len(b)
	b = append(append(b, 0, 0, 0, 0), salt...)
	if b, err = put(b); err != nil {
		return b[:at], nil, err
	}
	stored = b[at+4 : len(b) : len(b)]
	binary.BigEndian.PutUint32(b[at:], uint32(len(stored))) //nolint:gosec // at most chain.MaxRecord and a salt
	return b, stored, nil
}

// appendSeal adds a seal, and what was signed with it, to the body.
func appendSeal(b []byte, s *sealed) []byte {
	b = append(b, s.seal.bytes()...)
	for _, text := range []string{s.note, s.keys} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(text))) //nolint:gosec // some hundred bytes
		b = append(b, text...)
	}
	return b
}

// endFrame writes the frame's head, and a mark of zero behind its body. The
// frame is all of b.
func endFrame(b []byte, epoch uint64, f frame) []byte {
	n := len(b) - frameHead
	for len(b)%word != 0 {
		b = append(b, 0)
	}
	h := binary.BigEndian.AppendUint64(b[:0], epoch)
	h = binary.BigEndian.AppendUint32(h, uint32(n)) //nolint:gosec // below maxFrame
	h = binary.BigEndian.AppendUint32(h, 0)
	h = binary.BigEndian.AppendUint64(h, f.before)
	h = binary.BigEndian.AppendUint64(h, f.size)
	copy(b[len(h):], f.root[:])
	binary.BigEndian.PutUint32(b[12:], crc32.Checksum(b, castagnoli))
	return append(b, make([]byte, word)...)
}

// A sealed is a seal and what was signed with it, in the body of a frame.
type sealed struct {
	seal seal
	note string // "": nothing was signed
	keys string // "": those that the database knows
}

// records calls fn with the salt and bytes of each record in the frame, and
// returns the seal, if there is one.
func (f *frame) records(fn func(seq uint64, value []byte) error) (*sealed, error) {
	rest := f.body
	next := func() ([]byte, error) {
		if len(rest) < 4 {
			return nil, errShort
		}
		n := int(binary.BigEndian.Uint32(rest))
		if n > len(rest)-4 {
			return nil, errShort
		}
		b := rest[4 : 4+n : 4+n]
		rest = rest[4+n:]
		return b, nil
	}
	for seq := f.before; seq < f.size; seq++ {
		v, err := next()
		if err == nil && len(v) < chain.SaltSize {
			err = errShort
		}
		if err == nil {
			err = fn(seq, v)
		}
		if err != nil {
			return nil, fmt.Errorf("record %d in the write-ahead log: %w", seq, err)
		}
	}
	if len(rest) == 0 {
		return nil, nil
	}
	if len(rest) < sealSize {
		return nil, errShort
	}
	var s sealed
	var err error
	if s.seal, err = parseSeal(rest[:sealSize]); err != nil {
		return nil, err
	}
	rest = rest[sealSize:]
	for _, text := range []*string{&s.note, &s.keys} {
		b, err := next()
		if err != nil {
			return nil, err
		}
		*text = string(b)
	}
	if len(rest) > 0 {
		return nil, errors.New("bytes stand behind the seal")
	}
	return &s, nil
}

// A segmentReader reads a segment in order.
type segmentReader struct {
	r     io.Reader
	epoch uint64
	base  sighting
	end   int64 // where the last whole frame ends, in the file
	buf   []byte
	tried []byte // what was read behind end
}

// newSegmentReader reads the head of a segment. With errTorn it has none; blank
// tells that nothing stands in its place.
func newSegmentReader(r io.Reader) (s *segmentReader, blank bool, err error) {
	h := make([]byte, segmentHead)
	_, err = io.ReadFull(r, h)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, false, err
	}
	epoch, size := binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint64(h[16:])
	s = &segmentReader{r: r, epoch: epoch, base: sighting{size, chain.Hash(h[24:56])}, end: segmentHead}
	if err != nil || !bytes.Equal(h, appendHead(nil, epoch, s.base)) {
		return nil, bytes.Equal(h, make([]byte, segmentHead)), errTorn
	}
	return s, false, nil
}

// next returns the next frame, which is good until the next call, or errTorn
// where no whole frame stands.
func (s *segmentReader) next() (*frame, error) {
	s.tried = s.tried[:0]
	if err := s.fill(frameHead); err != nil {
		return nil, err
	}
	h := s.tried
	n := int64(binary.BigEndian.Uint32(h[8:]))
	if binary.BigEndian.Uint64(h) != s.epoch || n > maxFrame {
		return nil, errTorn
	}
	whole := (frameHead+n+word-1)/word*word + word
	if err := s.fill(int(whole)); err != nil {
		return nil, err
	}
	b := s.tried[:whole-word]
	want := binary.BigEndian.Uint32(b[12:])
	clear(b[12:16])
	sum := crc32.Checksum(b, castagnoli)
	binary.BigEndian.PutUint32(b[12:], want)
	f := &frame{
		before:   binary.BigEndian.Uint64(b[16:]),
		sighting: sighting{binary.BigEndian.Uint64(b[24:]), chain.Hash(b[32:64])},
		body:     b[frameHead : frameHead+n],
	}
	if sum != want || f.before > f.size {
		return nil, errTorn
	}
	s.end += whole
	return f, nil
}

// fill reads until n bytes behind end are in tried.
func (s *segmentReader) fill(n int) error {
	at := len(s.tried)
	if n > cap(s.buf) {
		s.buf = append(make([]byte, 0, n+n/2), s.tried...)
	}
	s.tried = s.buf[:n]
	read, err := io.ReadFull(s.r, s.tried[at:])
	s.tried = s.tried[:at+read]
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTorn
	}
	return err
}

// rest notes what stands behind the last whole frame, and reports whether there
// is a frame, or a mark of one, that cannot be read and was acknowledged.
func (s *segmentReader) rest(seg *segment) (damaged bool, err error) {
	r := io.MultiReader(bytes.NewReader(s.tried), s.r)
	b := make([]byte, 64<<10)
	for first := true; ; {
		n, err := io.ReadFull(r, b)
		for i := 0; i+word <= n; i += word {
			switch w := binary.BigEndian.Uint64(b[i:]); {
			case first:
				seg.ended, seg.torn, first = w == ^s.epoch, w == s.epoch, false
			case w == s.epoch, w == s.epoch+1:
				damaged = true
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return damaged, nil
		}
		if err != nil {
			return damaged, err
		}
	}
}
