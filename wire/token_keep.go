package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
	"runtime"
	"sync"
	"weak"

	"github.com/hsagent/hsagentd/wire/secret"
)

// tokens are all tokens of the process, by the SHA-256 of their bytes: those of
// the same bytes are one, so that a store that is read again needs no more
// memory, and == compares.
var tokens tokenTable

type tokenTable struct {
	mu      sync.Mutex
	bySum   map[[sha256.Size]byte]weak.Pointer[kept]
	hash    hash.Hash
	state   []byte        // of the hash: a sum and zeros
	scratch *secret.Bytes // takes a padded token
}

// keep returns what is kept of the token b.
func (t *tokenTable) keep(b []byte) *kept {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := t.sumLocked(b)
	if k := t.bySum[sum].Value(); k != nil {
		return k
	}
	if t.bySum == nil {
		t.bySum = make(map[[sha256.Size]byte]weak.Pointer[kept])
	}
	k := newKept(b, sum)
	t.bySum[sum] = weak.Make(k)
	runtime.AddCleanup(k, t.forget, sum)
	return k
}

// forget drops a token that is gone, unless it has come back meanwhile.
func (t *tokenTable) forget(sum [sha256.Size]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bySum[sum].Value() == nil {
		delete(t.bySum, sum)
	}
}

// sumLocked is the SHA-256 of a token. The hash keeps its last block, if that
// is not full, and copies it about; so the token is padded here, as SHA-256
// does it, in secret memory, and the hash sees full blocks alone.
func (t *tokenTable) sumLocked(b []byte) (sum [sha256.Size]byte) {
	if len(b) > maxToken { // no token, whatever it is
		return sha256.Sum256(b)
	}
	if t.scratch == nil {
		t.hash = sha256.New()
		t.scratch = secret.New(maxToken + 2*sha256.BlockSize)
	}
	t.hash.Reset()
	t.scratch.Expose(func(p []byte) {
		defer clear(p)
		p = append(p[:0], b...)
		p = append(p, 0x80)
		for len(p)%sha256.BlockSize != sha256.BlockSize-8 {
			p = append(p, 0)
		}
		p = binary.BigEndian.AppendUint64(p, uint64(len(b))*8)
		_, _ = t.hash.Write(p) // a hash never fails
	})
	// The state after the last block is the sum. It stands at the head of the
	// hash's own encoding.
	const head = "sha\x03"
	var err error
	t.state, err = t.hash.(encoding.BinaryAppender).AppendBinary(t.state[:0])
	if err != nil || !bytes.HasPrefix(t.state, []byte(head)) {
		return sha256.Sum256(b)
	}
	copy(sum[:], t.state[len(head):])
	return sum
}
