package credstore

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// Parse reads the plaintext of a store.
func Parse(plaintext []byte) (*Store, error) { return nil, ErrBadStore }

// A File is the store's file.
type File struct{ path string }

// Open returns the store at path, which id decrypts. It reads nothing yet.
func Open(path string, id *Identity) *File { return &File{path: path} }

// Create writes an empty store of version 1 and refuses to overwrite one.
func Create(ctx context.Context, path string, id *Identity, extraRecipients []string) error {
	return errors.ErrUnsupported
}

// Path returns the path that the file was opened with.
func (f *File) Path() string { return f.path }

// Load reads, decrypts and checks the store.
func (f *File) Load(ctx context.Context) (*Store, error) { return nil, errors.ErrUnsupported }

// Update changes the store under its lock. fn may run more than once.
func (f *File) Update(ctx context.Context, fn func(*Edit) error) (*Store, error) {
	return nil, errors.ErrUnsupported
}

// Watch calls changed whenever the file may have changed, until ctx ends; then it returns nil.
func (f *File) Watch(ctx context.Context, log *slog.Logger, changed func()) error {
	return errors.ErrUnsupported
}

// An Edit is one change of the store, within [File.Update].
type Edit struct{}

// An Account is what HubSpot told about a portal. An empty field leaves the store's value.
type Account struct {
	TimeZone, AccountType, DataHosting string
	Scopes                             []string
}

// ErrConflict is wrapped by [Edit.Put] where the token or portal ID stands under another slug.
var ErrConflict = errors.New("the token or portal ID stands under another slug")

// Store returns the store as it was read: admit it with a [Guard] before changing it.
func (e *Edit) Store() *Store { return nil }

// Get returns the entry of slug as edited so far.
func (e *Edit) Get(slug wire.Slug) (Entry, bool) { return Entry{}, false }

// Put adds or replaces an entry; keys of it that this package does not know stay.
func (e *Edit) Put(entry Entry) error { return nil }

// Remove removes the entry of slug, rejected or not, and reports whether there was one.
func (e *Edit) Remove(slug wire.Slug) bool { return false }

// SetVerified notes that HubSpot confirmed the portal at the time at.
func (e *Edit) SetVerified(slug wire.Slug, at time.Time, a Account) error { return nil }

// An Identity is the private key that opens the store.
type Identity struct{}

// ErrPassphrase means that the passphrase does not open the identity.
var ErrPassphrase = errors.New("wrong passphrase")

// NeedsPassphrase reports whether the identity file at path is protected with a passphrase.
func NeedsPassphrase(path string) (bool, error) { return false, errors.ErrUnsupported }

// LoadIdentity reads an identity file; passphrase is asked only where one is needed.
func LoadIdentity(path string, passphrase func() ([]byte, error)) (*Identity, error) {
	return nil, errors.ErrUnsupported
}

// GenerateIdentity makes an identity and writes it to path, mode 0600.
func GenerateIdentity(path string, passphrase []byte, pq bool) (*Identity, error) {
	return nil, errors.ErrUnsupported
}

// Recipient is the public key of the identity, "age1…".
func (id *Identity) Recipient() string { return "" }

// Refusals of [Guard.Admit].
var (
	ErrRollback    = errors.New("the store's version went back")
	ErrMassRemoval = errors.New("the store suddenly lacks many portals")
)

// A Guard refuses a store that is older than one seen before, or that lost many portals.
type Guard struct{}

// NewGuard returns the guard of the store at path, which keeps the highest version seen in path+".seen".
func NewGuard(path string, log *slog.Logger) *Guard { return &Guard{} }

// Admit tells whether next may replace prev (nil at start). With force it always may:
// for the user's word, and for a store that [File.Update] itself has just written.
func (g *Guard) Admit(prev, next *Store, force bool) error { return nil }
