package chain

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// A Proof shows that a record is in the log of a checkpoint.
type Proof struct {
	Seq        uint64 `json:"seq"`
	Size       uint64 `json:"size"` // of the log
	Leaf       Hash   `json:"leaf"`
	Hashes     []Hash `json:"hashes"` // from the leaf's sibling to the root's child (RFC 6962, section 2.1.1)
	Record     []byte `json:"record,omitempty"`
	Salt       []byte `json:"salt,omitempty"` // record and salt are absent if it was pruned
	Checkpoint string `json:"checkpoint"`
}

// Verify checks the whole proof: the checkpoint's signature by one of the known
// keys, the path to its root, and record and salt against the leaf. It returns
// the record, nil for a pruned one, whose leaf alone is proved.
func (p *Proof) Verify(known Verifiers) (*Record, error) {
	c, err := OpenCheckpoint(p.Checkpoint, known)
	if err != nil {
		return nil, err
	}
	if c.Size != p.Size {
		return nil, fmt.Errorf("the proof is for %d records, and the checkpoint is of %d", p.Size, c.Size)
	}
	if err := included(c, p.Seq, p.Leaf, p.Hashes); err != nil {
		return nil, err
	}
	if p.Record == nil && p.Salt == nil {
		return nil, nil //nolint:nilnil // pruned: that is what the proof shows
	}
	if len(p.Salt) != SaltSize || Leaf(p.Salt, p.Record) != p.Leaf {
		return nil, fmt.Errorf("record %d: its bytes do not give its leaf hash", p.Seq)
	}
	r, err := Decode(p.Record)
	if err != nil {
		return nil, fmt.Errorf("record %d: %w", p.Seq, err)
	}
	if r.Seq != p.Seq {
		return nil, fmt.Errorf("record %d: its bytes are those of record %d", p.Seq, r.Seq)
	}
	return r, nil
}

var errNotIncluded = errors.New("its hash does not lead to the checkpoint's root")

// included checks the path from a leaf to a checkpoint's root.
func included(c *Checkpoint, seq uint64, leaf Hash, hashes []Hash) error {
	if seq >= c.Size {
		return fmt.Errorf("record %d is not among the %d of the checkpoint", seq, c.Size)
	}
	//nolint:gosec // a checkpoint's size fits 63 bits
	if err := tlog.CheckRecord(hashes, int64(c.Size), c.Root, int64(seq), leaf); err != nil {
		return fmt.Errorf("record %d: %w", seq, errNotIncluded)
	}
	return nil
}
