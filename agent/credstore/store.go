package credstore

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// ErrBadStore is what every error of [Parse] wraps: nothing of the store can
// be used.
var ErrBadStore = errors.New("not a store")

// An Entry is one portal's credential as the store holds it, checked: its slug
// is well formed, its token can be sent in a header, and neither its token nor
// its portal ID stands under another slug.
type Entry struct {
	Slug     wire.Slug
	Token    wire.Token
	PortalID int64 // positive

	AddedAt       time.Time // zero where the store has none, as the other times
	LastRotatedAt time.Time
	VerifiedAt    time.Time

	Datacenter  string // of the token's prefix; the store's own word for a token without one
	DataHosting string // account-info's dataHostingLocation
	Kind        string // "", service-key, private-app or static-app
	BaseURL     string // "" for the agent's own; without a trailing slash
	TimeZone    string
	AccountType string
	Scopes      []string
	Previous    *Previous // the token before the last rotation, or nil

	// Warnings tell what in the entry was passed over, such as a date that
	// is none. They never contain a token.
	Warnings []string
}

// A Previous is the token that the last rotation replaced.
type Previous struct {
	Token wire.Token
	Until time.Time // when HubSpot drops it; zero if not known
}

// A Rejected entry is in the store but serves nothing.
type Rejected struct {
	Slug     string // as the store spells it, escaped and cut for showing, tokens masked
	PortalID int64  // 0 if it has none that can be read
	Reason   string // never with a token in it
}

// A Store is one version of the store, read and checked. It is immutable: do
// not write to its slices.
type Store struct {
	Version     int64
	LastUpdated time.Time  // zero if the store does not say
	Entries     []Entry    // sorted by slug
	Rejected    []Rejected // sorted by slug
}

// Get returns the entry of slug.
func (s *Store) Get(slug wire.Slug) (Entry, bool) {
	i, ok := slices.BinarySearchFunc(s.Entries, slug, func(e Entry, t wire.Slug) int {
		return strings.Compare(e.Slug.String(), t.String())
	})
	if !ok {
		return Entry{}, false
	}
	return s.Entries[i], true
}
