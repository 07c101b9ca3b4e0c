package credstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"github.com/hsagent/hsagentd/wire/secret"
)

// ErrPassphrase means that the passphrase does not open the identity.
var ErrPassphrase = errors.New("wrong passphrase")

const (
	maxIdentity = 1 << 20

	// workFactor is what we protect an identity with: about a second and
	// 256 MiB. maxWorkFactor is the most that is accepted, about 1 GiB: a
	// file must not be able to ask for all memory.
	workFactor    = 18
	maxWorkFactor = 20

	armorHead  = "-----BEGIN AGE ENCRYPTED FILE-----"
	binaryHead = "age-encryption.org/v1\n"
)

// scryptWorkFactor is workFactor; the package's tests lower it.
var scryptWorkFactor = workFactor

// An Identity is the private key that opens the store. It shows nothing of
// itself in any formatter.
type Identity struct {
	ids       []age.Identity
	recipient age.Recipient // of the first
}

// Recipient is the public key that belongs to the identity, "age1…" or, for a
// post-quantum one, "age1pq1…".
func (id *Identity) Recipient() string { return id.recipient.(fmt.Stringer).String() }

// Format shows an identity as its recipient, whatever the verb.
func (id *Identity) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "identity of "+id.Recipient()) // a fmt.State keeps no error
}

// MarshalText always fails.
func (id *Identity) MarshalText() ([]byte, error) {
	return nil, errors.New("an identity cannot be marshalled")
}

// NeedsPassphrase reports whether the identity file at path is protected with
// a passphrase.
func NeedsPassphrase(path string) (bool, error) {
	b, err := readPrivate(path)
	if err != nil {
		return false, err
	}
	defer clear(b)
	return isEncrypted(b), nil
}

// LoadIdentity reads an identity file as age-keygen writes it, plain or
// protected with a passphrase (binary or armored). passphrase is called only
// where one is needed, and what it returns is cleared; nil means that nobody
// can be asked. A wrong passphrase is [ErrPassphrase].
//
// Where the file holds several identities, all of them open the store, and it
// is written to the first one's recipient.
func LoadIdentity(path string, passphrase func() ([]byte, error)) (*Identity, error) {
	b, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	if isEncrypted(b) {
		if passphrase == nil {
			return nil, fmt.Errorf("identity %s: %w: it is protected, and nobody can be asked for the passphrase", path, ErrPassphrase)
		}
		pass, err := passphrase()
		if err != nil {
			return nil, fmt.Errorf("read the passphrase of identity %s: %w", path, err)
		}
		plain, err := unprotect(b, pass)
		clear(pass)
		if err != nil {
			return nil, fmt.Errorf("identity %s: %w", path, err)
		}
		defer clear(plain)
		b = plain
	}
	var id *Identity
	secret.Do(func() { id, err = parseIdentity(b) })
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", path, err)
	}
	return id, nil
}

// GenerateIdentity makes an identity (X25519, or a post-quantum hybrid if pq)
// and writes it to path with mode 0600, protected if passphrase is not nil. It
// does not overwrite: then the error wraps [fs.ErrExist].
func GenerateIdentity(path string, passphrase []byte, pq bool) (*Identity, error) {
	passphrase = bytes.TrimRight(passphrase, "\r\n")
	if passphrase != nil && len(passphrase) == 0 {
		return nil, errors.New("the passphrase is empty")
	}
	var secret string
	if pq {
		k, err := age.GenerateHybridIdentity()
		if err != nil {
			return nil, fmt.Errorf("make an identity: %w", err)
		}
		secret = k.String()
	} else {
		k, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, fmt.Errorf("make an identity: %w", err)
		}
		secret = k.String()
	}
	id, err := parseIdentity([]byte(secret))
	if err != nil {
		return nil, fmt.Errorf("make an identity: %w", err)
	}
	text := fmt.Appendf(nil, "# created: %s\n# public key: %s\n%s\n", time.Now().UTC().Format(time.RFC3339), id.Recipient(), secret)
	defer clear(text)
	if passphrase != nil {
		r, err := age.NewScryptRecipient(string(passphrase))
		if err != nil {
			return nil, fmt.Errorf("protect the identity: %w", err)
		}
		r.SetWorkFactor(scryptWorkFactor)
		if text, err = encrypt(text, r); err != nil {
			return nil, fmt.Errorf("protect the identity: %w", err)
		}
	}
	if err := writeNew(path, text); err != nil {
		return nil, fmt.Errorf("write identity %s: %w", path, err)
	}
	return id, nil
}

// parseIdentity reads the lines of a plain identity file.
func parseIdentity(b []byte) (*Identity, error) {
	for line := range bytes.Lines(b) {
		if bytes.HasPrefix(bytes.ToUpper(bytes.TrimSpace(line)), []byte("AGE-PLUGIN-")) {
			return nil, errors.New("it names an age plug-in, and hsagentd runs no other programs: give it an identity made by age-keygen")
		}
	}
	// age's own texts quote nothing of the file, but go no further than they must.
	ids, err := age.ParseIdentities(bytes.NewReader(b))
	if err != nil {
		return nil, errors.New("it is no identity as age-keygen writes it (AGE-SECRET-KEY-…)")
	}
	id := &Identity{ids: ids}
	switch k := ids[0].(type) {
	case *age.X25519Identity:
		id.recipient = k.Recipient()
	case *age.HybridIdentity:
		id.recipient = k.Recipient()
	default:
		return nil, errors.New("it is of a kind that hsagentd does not know")
	}
	return id, nil
}

// unprotect decrypts an identity file with a passphrase.
func unprotect(b, pass []byte) ([]byte, error) {
	pass = bytes.TrimRight(pass, "\r\n")
	if len(pass) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrPassphrase)
	}
	k, err := age.NewScryptIdentity(string(pass))
	if err != nil {
		return nil, err
	}
	k.SetMaxWorkFactor(maxWorkFactor)
	plain, err := decrypt(b, k)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none) && len(none.StanzaTypes) == 1 && none.StanzaTypes[0] == "scrypt":
		return nil, ErrPassphrase
	case errors.As(err, &none):
		return nil, errors.New("it is encrypted to a key, not protected with a passphrase")
	}
	return plain, err
}

func isEncrypted(b []byte) bool {
	return bytes.HasPrefix(b, []byte(binaryHead)) || isArmored(b)
}

func isArmored(b []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte(armorHead))
}

// readPrivate reads a file that nobody but its owner may read. A systemd
// credential is one too: its files are the service's own, mode 0400.
func readPrivate(path string) ([]byte, error) {
	b, info, err := readStable(context.Background(), path, maxIdentity)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 && !isSystemdCredential(path, info) {
		clear(b)
		return nil, fmt.Errorf("identity %s has mode %04o: others may read it: run chmod 600 %s", path, perm, shellQuote(path))
	}
	return b, nil
}

// isSystemdCredential reports whether path is in the directory of the
// service's credentials, where some versions of systemd give files mode 0440,
// owned by root, and let the service in by an access control list.
func isSystemdCredential(path string, info fs.FileInfo) bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" || filepath.Dir(filepath.Clean(path)) != filepath.Clean(dir) {
		return false
	}
	return info.Mode().Perm()&^0o440 == 0 && ownerOf(info).uid == 0
}
