package chain

import (
	"crypto/sha256"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// A Hash is a SHA-256 hash of the tree.
type Hash = tlog.Hash

// SaltSize is how many random bytes salt a record's leaf.
const SaltSize = 16

// Leaf returns the leaf hash of the stored bytes of a record.
func Leaf(salt, stored []byte) Hash {
	h := sha256.New()
	h.Write(salt)
	h.Write(stored)
	var leaf [1 + sha256.Size]byte // 0x00 marks a leaf (RFC 6962, section 2.1)
	h.Sum(leaf[1:1])
	return sha256.Sum256(leaf[:])
}

// A Tree is the right edge of an RFC 6962 tree: what is needed to add leaves
// and to know the root. The zero value is the empty tree.
type Tree struct {
	size uint64
	edge [64]Hash // edge[i] is the complete subtree of 1<<i leaves, if that bit of size is set
}

// TreeAt returns the tree of the first n leaves, its edge read from r.
func TreeAt(n uint64, r tlog.HashReader) (*Tree, error) {
	t := &Tree{size: n}
	var levels []int
	var indexes []int64
	for rest := n; rest != 0; rest &= rest - 1 {
		l := bits.TrailingZeros64(rest)
		levels = append(levels, l)
		indexes = append(indexes, tlog.StoredHashIndex(l, int64(n>>l)-1)) //nolint:gosec // a log has fewer than 2^63 records
	}
	hashes, err := r.ReadHashes(indexes)
	if err != nil {
		return nil, fmt.Errorf("read the tree of %d records: %w", n, err)
	}
	for i, l := range levels {
		t.edge[l] = hashes[i]
	}
	return t, nil
}

// Size is the number of leaves.
func (t *Tree) Size() uint64 { return t.size }

// Add appends a leaf. It appends to dst the hashes that the leaf adds to the
// tree: its own and those of the subtrees that it completes, in the order of
// their levels, and returns dst.
func (t *Tree) Add(leaf Hash, dst []Hash) []Hash {
	dst = append(dst, leaf)
	l := 0
	for ; t.size>>l&1 == 1; l++ {
		leaf = tlog.NodeHash(t.edge[l], leaf)
		dst = append(dst, leaf)
	}
	t.edge[l] = leaf
	t.size++
	return dst
}

// Adopt puts the hashes that the last leaf added, as [Tree.Add] returns them,
// in the place of those computed: for a verifier that has noted that they
// differ, and goes on.
func (t *Tree) Adopt(hashes []Hash) {
	t.edge[len(hashes)-1] = hashes[len(hashes)-1]
}

// Root returns the root hash.
func (t *Tree) Root() Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	rest := t.size
	h := t.edge[bits.TrailingZeros64(rest)]
	for rest &= rest - 1; rest != 0; rest &= rest - 1 {
		h = tlog.NodeHash(t.edge[bits.TrailingZeros64(rest)], h)
	}
	return h
}
