package agent

import (
	"slices"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/leak"
	"github.com/hsagent/hsagentd/wire"
)

// A credential is what a call needs of one slug. It never changes: a call
// takes it once, and slug, portal and token stay together whatever is rotated
// meanwhile.
type credential struct {
	credstore.Entry
	fingerprint string
	version     int64         // of the store that it came from
	identity    *identity     // what HubSpot said about this token
	needles     *leak.Needles // find the token in an answer
	lane        *lane         // the slug's own way to HubSpot
}

// A keyring is all credentials of one store. It never changes: a reload makes
// a new one and swaps one pointer.
type keyring struct {
	version  int64
	loadedAt time.Time
	creds    map[string]*credential
	rejected map[string]credstore.Rejected
	slugs    []string // of creds and rejected, sorted
}

// newKeyring builds the keyring of a store. What prev and fresh know of
// unchanged tokens (their identities, connections and needles) is carried over.
func newKeyring(store *credstore.Store, prev *keyring, fresh []*credential, newLane func(credstore.Entry) (*lane, error), now time.Time) (*keyring, error) {
	k := &keyring{
		version:  store.Version,
		loadedAt: now,
		creds:    make(map[string]*credential, len(store.Entries)),
		rejected: make(map[string]credstore.Rejected, len(store.Rejected)),
		slugs:    make([]string, 0, len(store.Entries)+len(store.Rejected)),
	}
	for _, e := range store.Entries {
		slug := e.Slug.String()
		c := &credential{Entry: e, fingerprint: e.Token.Fingerprint(), version: store.Version}
		old := prev.credential(slug)
		for _, f := range fresh {
			if f.Slug == e.Slug && f.Token == e.Token {
				old = f
			}
		}
		if old != nil && old.BaseURL == e.BaseURL && old.PortalID == e.PortalID {
			c.lane = old.lane
		} else {
			l, err := newLane(e)
			if err != nil {
				return nil, err
			}
			c.lane = l
		}
		if old != nil && old.Token == e.Token && old.PortalID == e.PortalID {
			c.identity, c.needles = old.identity, old.needles
		} else {
			c.identity, c.needles = newIdentity(), leak.New(e.Token)
		}
		k.creds[slug] = c
		k.slugs = append(k.slugs, slug)
	}
	for _, r := range store.Rejected {
		if _, ok := k.rejected[r.Slug]; ok || k.creds[r.Slug] != nil {
			continue
		}
		k.rejected[r.Slug] = r
		k.slugs = append(k.slugs, r.Slug)
	}
	slices.Sort(k.slugs)
	return k, nil
}

// again is the keyring of the same store, read again.
func (k *keyring) again(now time.Time) *keyring {
	again := *k
	again.loadedAt = now
	return &again
}

// identities are what HubSpot said about a keyring's tokens, without the tokens.
type identities map[identityKey]*identity

type identityKey struct {
	slug, fingerprint string
	portalID          int64
}

func (c *credential) identityKey() identityKey {
	return identityKey{c.Slug.String(), c.fingerprint, c.PortalID}
}

// identities returns those of the keyring.
func (k *keyring) identities() identities {
	out := make(identities, len(k.creds))
	for _, c := range k.creds {
		out[c.identityKey()] = c.identity
	}
	return out
}

// keepStopped takes over what is quarantined by the identities of a keyring
// before. It is for a keyring that does not serve yet.
func (k *keyring) keepStopped(before identities) {
	for _, c := range k.creds {
		if id := before[c.identityKey()]; id != nil && id.stopped() != nil {
			c.identity = id
		}
	}
}

// credential returns the slug's credential, or nil.
func (k *keyring) credential(slug string) *credential {
	if k == nil {
		return nil
	}
	return k.creds[slug]
}

// similar returns slugs of the keyring that slug may be a misspelling of.
func (k *keyring) similar(slug string) []string {
	var out []string
	for _, s := range k.slugs {
		if distance(slug, s) <= 1+len(slug)/5 || strings.HasPrefix(s, slug+"-") || strings.HasPrefix(slug, s+"-") {
			out = append(out, s)
		}
		if len(out) == 3 {
			break
		}
	}
	return out
}

// distance is the Levenshtein distance of a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diag
			if a[i-1] != b[j-1] {
				cost++
			}
			diag = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// view shows the credential to clients.
func (c *credential) view() wire.Portal {
	p := wire.Portal{
		Slug:             c.Slug.String(),
		PortalID:         c.PortalID,
		Datacenter:       c.homeDatacenter(),
		Kind:             c.Kind,
		AccountType:      c.AccountType,
		TimeZone:         c.TimeZone,
		Scopes:           c.Scopes,
		AddedAt:          timeOrNil(c.AddedAt),
		LastRotatedAt:    timeOrNil(c.LastRotatedAt),
		VerifiedAt:       timeOrNil(c.VerifiedAt),
		TokenFingerprint: c.fingerprint,
	}
	if len(c.Warnings) > 0 {
		p.Warning = strings.Join(c.Warnings, "; ")
	}
	c.identity.describe(&p, c)
	return p
}

// datacenter is the one that the token's prefix names, else the store's word.
func (c *credential) homeDatacenter() string {
	if dc := c.Token.Datacenter(); dc != "" {
		return dc
	}
	return c.Datacenter
}

func timeOrNil(t time.Time) *wire.Time {
	if t.IsZero() {
		return nil
	}
	w := wire.At(t)
	return &w
}
