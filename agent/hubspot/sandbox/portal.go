package sandbox

import (
	"errors"
	"fmt"
	"sync"
	"time"
	_ "time/tzdata" // portals live in named time zones, also on a machine without them

	"github.com/hsagent/hsagentd/wire"
)

// Portal describes one account of the sandbox. Only ID must be set.
type Portal struct {
	ID          int64
	Slug        string     // a label for the reader; the sandbox knows no slugs
	Token       wire.Token // the active token; zero = none yet, see Server.AddToken
	AccountType string     // "" = "STANDARD"
	TimeZone    string     // IANA name; "" = "US/Eastern"
	Currency    string     // "" = "USD"
	DataHosting string     // "" = the token's data centre, or else "na1"
	Scopes      []string   // what its tokens may do; nil = everything the sandbox knows

	BurstLimit  int // requests per rolling 10 s and app; 0 = 190, negative = no limit
	DailyLimit  int // requests per day of TimeZone; 0 = 625,000, negative = no limit
	SearchLimit int // searches per rolling second; 0 = 5, negative = no limit

	// How many objects there are to begin with; 0 = 25 contacts, 10 companies,
	// 12 deals and 8 tickets, negative = none.
	Contacts, Companies, Deals, Tickets int
}

// Identity changes what a portal says about itself. The zero Identity is the
// truth.
type Identity struct {
	ClaimID     int64 // account-info and access-token-info name this portal
	AccountInfo int   // account-info answers with this error status (403, say)
	TokenInfo   int   // access-token-info answers with this error status
}

// portal is an account at work.
type portal struct {
	cfg   Portal
	loc   *time.Location
	burst int

	current, old wire.Token // guarded by Server.mu

	limitMu  sync.Mutex // guards the fields up to the next blank line, and all its windows
	identity Identity
	daily    int
	used     int
	day      string
	search   *window

	mu     sync.Mutex // guards the objects
	stores map[string]*store
	nextID int64
}

func newPortal(cfg Portal, now time.Time) (*portal, error) {
	if cfg.ID <= 0 {
		return nil, errors.New("a portal ID is a positive number")
	}
	setDefault(&cfg.AccountType, "STANDARD")
	setDefault(&cfg.TimeZone, "US/Eastern")
	setDefault(&cfg.Currency, "USD")
	setDefault(&cfg.DataHosting, cfg.Token.Datacenter())
	setDefault(&cfg.DataHosting, "na1")
	if cfg.Scopes == nil {
		cfg.Scopes = allScopes()
	}
	loc, err := time.LoadLocation(cfg.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("its time zone: %w", err)
	}
	p := &portal{
		cfg:    cfg,
		loc:    loc,
		burst:  limitOf(cfg.BurstLimit, 190),
		daily:  limitOf(cfg.DailyLimit, 625_000),
		search: newWindow(limitOf(cfg.SearchLimit, 5), time.Second),
	}
	p.seed(now)
	return p, nil
}

func setDefault(s *string, def string) {
	if *s == "" {
		*s = def
	}
}

// unlimited is the limit of a portal without one. It is a number all the same,
// since the headers have to name one.
const unlimited = 100_000_000

func limitOf(n, def int) int {
	switch {
	case n == 0:
		return def
	case n < 0:
		return unlimited
	}
	return n
}

// SetIdentity changes what the portal says about itself; the zero Identity
// brings the truth back.
func (s *Server) SetIdentity(portalID int64, id Identity) error {
	p := s.portal(portalID)
	if p == nil {
		return fmt.Errorf("changing the identity of portal %d: %w", portalID, ErrNoPortal)
	}
	p.limitMu.Lock()
	defer p.limitMu.Unlock()
	p.identity = id
	return nil
}

// Spend uses up n of the portal's daily quota, as other apps of the same
// account would.
func (s *Server) Spend(portalID int64, n int) error {
	p := s.portal(portalID)
	if p == nil {
		return fmt.Errorf("spending quota of portal %d: %w", portalID, ErrNoPortal)
	}
	p.limitMu.Lock()
	defer p.limitMu.Unlock()
	p.turnDayLocked(s.now())
	p.used += n
	return nil
}

// UsedToday returns how much of the daily quota is used, in the portal's day.
func (s *Server) UsedToday(portalID int64) int {
	p := s.portal(portalID)
	if p == nil {
		return 0
	}
	p.limitMu.Lock()
	defer p.limitMu.Unlock()
	p.turnDayLocked(s.now())
	return p.used
}
