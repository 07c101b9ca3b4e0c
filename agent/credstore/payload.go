package credstore

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/hsagent/hsagentd/wire/secret"
)

// age opens and makes the header, with the keys. The payload behind it is
// opened and sealed here: age's own readers and writers leave the plaintext in
// buffers that nobody can erase. The format is that of
// https://age-encryption.org/v1: a nonce, and chunks of 64 KiB, each sealed
// with its number and a mark on the last.
const (
	payloadNonce = 16
	chunkSize    = 64 << 10
	sealedChunk  = chunkSize + chacha20poly1305.Overhead
)

var errPayload = errors.New("its contents cannot be authenticated")

// decrypt opens an age file, binary or armored. It returns all of the
// plaintext or none of it: a file that was cut short is an error. The
// plaintext is in one buffer, the caller's to erase.
func decrypt(b []byte, ids ...age.Identity) (plain []byte, err error) {
	secret.Do(func() { plain, err = decryptAll(b, ids) })
	return plain, err
}

func decryptAll(b []byte, ids []age.Identity) ([]byte, error) {
	if isArmored(b) {
		var err error
		if b, err = io.ReadAll(armor.NewReader(bytes.NewReader(b))); err != nil {
			return nil, err
		}
	}
	header, err := age.ExtractHeader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	fileKey, err := age.DecryptHeader(header, ids...)
	if err != nil {
		return nil, err
	}
	defer clear(fileKey)
	rest, ok := bytes.CutPrefix(b, header)
	if !ok || len(rest) < payloadNonce {
		return nil, errPayload
	}
	aead, err := payloadCipher(fileKey, rest[:payloadNonce])
	if err != nil {
		return nil, err
	}
	rest = rest[payloadNonce:]
	plain := make([]byte, 0, len(rest))
	whole := plain[:cap(plain)]
	for number := uint64(0); ; number++ {
		n := min(len(rest), sealedChunk)
		last := n == len(rest)
		if last && number > 0 && n == chacha20poly1305.Overhead {
			err = errPayload // an empty chunk ends nothing but an empty file
		} else {
			plain, err = aead.Open(plain, chunkNonce(number, last), rest[:n], nil)
		}
		if err != nil {
			clear(whole) // plain is nil: Open returns nothing beside an error
			return nil, errPayload
		}
		if rest = rest[n:]; last {
			return plain, nil
		}
	}
}

// encrypt returns plain as a binary age file.
func encrypt(plain []byte, to ...age.Recipient) (sealed []byte, err error) {
	secret.Do(func() { sealed, err = encryptAll(plain, to) })
	return sealed, err
}

func encryptAll(plain []byte, to []age.Recipient) ([]byte, error) {
	var (
		b       bytes.Buffer // header and nonce: no secret
		fileKey []byte
	)
	if len(to) == 0 {
		return nil, errors.New("there is nobody to encrypt to")
	}
	tapped := append([]age.Recipient{keyTap{to[0], &fileKey}}, to[1:]...)
	if _, err := age.Encrypt(&b, tapped...); err != nil {
		return nil, err
	}
	defer clear(fileKey)
	aead, err := payloadCipher(fileKey, b.Bytes()[b.Len()-payloadNonce:])
	if err != nil {
		return nil, err
	}
	chunks := len(plain)/chunkSize + 1
	out := append(make([]byte, 0, b.Len()+len(plain)+chunks*chacha20poly1305.Overhead), b.Bytes()...)
	for number := uint64(0); ; number++ {
		n := min(len(plain), chunkSize)
		last := n == len(plain)
		out = aead.Seal(out, chunkNonce(number, last), plain[:n], nil)
		if plain = plain[n:]; last {
			return out, nil
		}
	}
}

// payloadCipher is what seals the chunks of a file with such a key and nonce.
func payloadCipher(fileKey, nonce []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, fileKey, nonce, "payload", chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive the payload's key: %w", err)
	}
	defer clear(key)
	return chacha20poly1305.New(key)
}

// chunkNonce is a chunk's number, in eleven bytes, and whether it is the last.
func chunkNonce(number uint64, last bool) []byte {
	n := make([]byte, chacha20poly1305.NonceSize)
	binary.BigEndian.PutUint64(n[3:11], number)
	if last {
		n[11] = 1
	}
	return n
}

// A keyTap is a recipient that tells which key the file has got.
type keyTap struct {
	age.Recipient
	fileKey *[]byte
}

// Wrap wraps the file's key for the recipient.
func (t keyTap) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	*t.fileKey = bytes.Clone(fileKey)
	return t.Recipient.Wrap(fileKey)
}

// WrapWithLabels is Wrap for a recipient that does not go with all others.
func (t keyTap) WrapWithLabels(fileKey []byte) ([]*age.Stanza, []string, error) {
	*t.fileKey = bytes.Clone(fileKey)
	if r, ok := t.Recipient.(age.RecipientWithLabels); ok {
		return r.WrapWithLabels(fileKey)
	}
	stanzas, err := t.Recipient.Wrap(fileKey)
	return stanzas, nil, err
}
