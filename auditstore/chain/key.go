package chain

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Keys sign a log's checkpoints and exports. The first is the current one; one
// before it may sign beside it for a time after a rotation.
type Keys []*Key

// A Key is an Ed25519 key under a log's name.
type Key struct {
	seed   []byte
	signer note.Signer
	secret string // as golang.org/x/mod/sumdb/note writes it
	public string
}

// NewOrigin draws the name of a new log.
func NewOrigin() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand
	return "hsagentd/" + hex.EncodeToString(b[:])
}

// GenerateKey makes a key for the log called origin.
func GenerateKey(origin string) (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return newKey(origin, private.Seed())
}

func newKey(name string, seed []byte) (*Key, error) {
	public, _ := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	vkey, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		return nil, fmt.Errorf("name a key: %w", err)
	}
	const ed25519Key = 1 // the first byte of what signed notes have in base64
	hash := vkey[len(name)+1:][:8]
	k := &Key{seed: seed, public: vkey}
	k.secret = "PRIVATE+KEY+" + name + "+" + hash + "+" + base64.StdEncoding.EncodeToString(append([]byte{ed25519Key}, seed...))
	if k.signer, err = note.NewSigner(k.secret); err != nil {
		return nil, fmt.Errorf("name a key: %w", err)
	}
	return k, nil
}

// ParseKeys reads the text of a key file: a line for each key, the current one
// first; empty lines and those that start with # mean nothing. Its errors
// repeat nothing of the text.
func ParseKeys(text string) (Keys, error) {
	var keys Keys
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		k, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it")
	}
	return keys.For(keys[0].Name())
}

func parseKey(secret string) (*Key, error) {
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, errors.New("it is no key of a signed note (PRIVATE+KEY+…)")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(secret, "+", 5)[4]) // NewSigner has seen that they are there
	if err != nil {
		return nil, errors.New("it is no Ed25519 key")
	}
	return newKey(signer.Name(), raw[1:])
}

// Secret is the key's line in a key file.
func (k *Key) Secret() string { return k.secret }

// Name is the name of the log that the key signs for.
func (k *Key) Name() string { return k.signer.Name() }

// Verifier is the public half, as in signed notes: name+hash+base64.
func (k *Key) Verifier() string { return k.public }

// Format keeps the secret half out of whatever prints a key.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.public)) } // fmt's own buffer

// For returns the keys under the name of a log, which a note needs in each of
// its signatures.
func (ks Keys) For(origin string) (Keys, error) {
	out := make(Keys, len(ks))
	for i, k := range ks {
		out[i] = k
		if k.Name() != origin {
			var err error
			if out[i], err = newKey(origin, k.seed); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Verifiers are the public halves.
func (ks Keys) Verifiers() Verifiers {
	out := make(Verifiers, len(ks))
	for i, k := range ks {
		out[i] = k.public
	}
	return out
}

func (ks Keys) signers() []note.Signer {
	out := make([]note.Signer, len(ks))
	for i, k := range ks {
		out[i] = k.signer
	}
	return out
}

// Verifiers are public keys of one log: name+hash+base64 each.
type Verifiers []string

var verifierKey = regexp.MustCompile(`[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}`)

// ParseVerifiers finds the public keys in a text, such as a file with one in
// each line.
func ParseVerifiers(text string) (Verifiers, error) {
	var out Verifiers
	for _, v := range verifierKey.FindAllString(text, -1) {
		if _, err := note.NewVerifier(v); err != nil {
			return nil, fmt.Errorf("%q is no verifier key (name+hash+base64): %w", v, err)
		}
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("there is no verifier key (name+hash+base64) in it")
	}
	return out, nil
}

// list are the keys as note.Open wants them: each once. Those that are
// malformed are left out: they verify nothing.
func (vs Verifiers) list() note.Verifiers {
	var list []note.Verifier
	for i, v := range vs {
		if slices.Contains(vs[:i], v) {
			continue
		}
		if k, err := note.NewVerifier(v); err == nil {
			list = append(list, k)
		}
	}
	return note.VerifierList(list...)
}
