package hubspot

import "time"

// The paths of the agent's own requests.
const (
	DetailsPath   = "/account-info/v3/details"
	UsagePath     = "/account-info/v3/api-usage/daily/private-apps"
	TokenInfoPath = "/oauth/v2/private-apps/get/access-token-info" //nolint:gosec // a path, no credential
)

// An Account is a portal as account-info describes it.
type Account struct {
	PortalID              int64
	AccountType           string
	TimeZone              string
	CompanyCurrency       string
	AdditionalCurrencies  []string
	UTCOffset             string
	UTCOffsetMilliseconds int64
	UIDomain              string
	DataHostingLocation   string
}

// DecodeAccount reads the answer of [DetailsPath].
func DecodeAccount(body []byte) (Account, error) { return Account{}, nil }

// A TokenInfo is what access-token-info says about a token.
type TokenInfo struct {
	HubID  int64 // the portal
	UserID int64
	AppID  int64
	Scopes []string
}

// DecodeTokenInfo reads the answer of [TokenInfoPath].
func DecodeTokenInfo(body []byte) (TokenInfo, error) { return TokenInfo{}, nil }

// A Usage is the account's daily use of its quota, as HubSpot counts it.
type Usage struct {
	Limit       int64
	Used        int64
	CollectedAt time.Time
	ResetsAt    time.Time // zero: not said
}

// DecodeUsage reads the answer of [UsagePath].
func DecodeUsage(body []byte) (Usage, error) { return Usage{}, nil }
