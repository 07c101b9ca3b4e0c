package hubspot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// The paths of the agent's own requests.
const (
	// DetailsPath answers a GET with the account that the token opens.
	DetailsPath = "/account-info/v3/details"
	// UsagePath answers a GET with the account's use of its daily quota.
	UsagePath = "/account-info/v3/api-usage/daily/private-apps"
	// TokenInfoPath answers a POST of {"tokenKey": token} with the token's
	// portal. Its body is the one place besides Authorization where a token
	// travels: never log it. It needs no scope.
	TokenInfoPath = "/oauth/v2/private-apps/get/access-token-info" //nolint:gosec // a path, no credential
)

// maxID is the largest ID that every JSON reader takes exactly: 2^53.
const maxID = 1 << 53

// An Account is what the agent keeps of a portal as account-info describes it.
type Account struct {
	PortalID            int64  // always positive
	AccountType         string // STANDARD, DEVELOPER_TEST, SANDBOX or APP_DEVELOPER
	TimeZone            string // an IANA name or alias, such as US/Eastern
	DataHostingLocation string // such as na1
}

// DecodeAccount reads the answer of [DetailsPath]. Its portal ID decides which
// slug a token may serve, so it must be there once, spelled so, as a positive
// whole number; a text, a fraction or a second portalId is an error. Other
// fields are taken if they are what they should be, and left empty if not.
func DecodeAccount(body []byte) (Account, error) {
	o, err := decodeObject(body)
	if err != nil {
		return Account{}, fmt.Errorf("read HubSpot's account details: %w", err)
	}
	var a Account
	if a.PortalID, err = positiveID(o, "portalId"); err != nil {
		return Account{}, fmt.Errorf("read HubSpot's account details: %w", err)
	}
	optional(o, "accountType", &a.AccountType)
	optional(o, "timeZone", &a.TimeZone)
	optional(o, "dataHostingLocation", &a.DataHostingLocation)
	return a, nil
}

// A TokenInfo is what access-token-info says about a token.
type TokenInfo struct {
	HubID  int64 // the portal's ID; always positive
	Scopes []string
}

// DecodeTokenInfo reads the answer of [TokenInfoPath], its hubId as strictly
// as [DecodeAccount] does portalId.
func DecodeTokenInfo(body []byte) (TokenInfo, error) {
	o, err := decodeObject(body)
	if err != nil {
		return TokenInfo{}, fmt.Errorf("read HubSpot's token info: %w", err)
	}
	var t TokenInfo
	if t.HubID, err = positiveID(o, "hubId"); err != nil {
		return TokenInfo{}, fmt.Errorf("read HubSpot's token info: %w", err)
	}
	optional(o, "scopes", &t.Scopes)
	return t, nil
}

// A Usage is the account's use of its daily quota, as HubSpot counts it.
type Usage struct {
	Limit       int64
	Used        int64
	CollectedAt time.Time // how old the figures are; zero: not said
}

// DecodeUsage reads the answer of [UsagePath]. Figures that HubSpot could not
// fetch (fetchStatus other than SUCCESS and CACHED) are an error.
func DecodeUsage(body []byte) (Usage, error) {
	var answer struct {
		Results []struct {
			Name         string `json:"name"`
			UsageLimit   *int64 `json:"usageLimit"`
			CurrentUsage *int64 `json:"currentUsage"`
			CollectedAt  string `json:"collectedAt"`
			FetchStatus  string `json:"fetchStatus"`
		} `json:"results"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Usage{}, fmt.Errorf("read HubSpot's daily usage: %w", err)
	}
	for _, r := range answer.Results {
		if r.Name != "private-apps-api-calls-daily" {
			continue
		}
		if r.FetchStatus != "SUCCESS" && r.FetchStatus != "CACHED" {
			return Usage{}, errors.New("read HubSpot's daily usage: HubSpot could not fetch it")
		}
		if r.UsageLimit == nil || r.CurrentUsage == nil || *r.UsageLimit < 0 || *r.CurrentUsage < 0 {
			return Usage{}, errors.New("read HubSpot's daily usage: no limit or no usage in it")
		}
		return Usage{Limit: *r.UsageLimit, Used: *r.CurrentUsage, CollectedAt: instant(r.CollectedAt)}, nil
	}
	return Usage{}, errors.New("read HubSpot's daily usage: no private-apps-api-calls-daily in it")
}

// instant is a date-time, or the zero time if it is none.
func instant(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// decodeObject reads the members of one JSON object, keys as they are spelled.
// Unlike json.Unmarshal it refuses a key that comes twice, whatever its case:
// two readers would disagree about it.
func decodeObject(body []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	o := map[string]json.RawMessage{}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			return nil, errors.New("not a JSON object")
		}
		low := strings.ToLower(key)
		if seen[low] {
			return nil, errors.New("a JSON object with a key that comes twice")
		}
		seen[low] = true
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, errors.New("not a JSON object")
		}
		o[key] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("a JSON object that does not end")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON object")
	}
	return o, nil
}

// positiveID is the member key of o, which must be a positive whole number of
// at most 2^53.
func positiveID(o map[string]json.RawMessage, key string) (int64, error) {
	v, ok := o[key]
	if !ok {
		return 0, fmt.Errorf("no %s in it", key)
	}
	n, ok := digits(string(v))
	if !ok || n <= 0 || n > maxID {
		return 0, fmt.Errorf("its %s is no positive whole number", key)
	}
	return n, nil
}

// optional reads the member key of o into out, if it is of out's kind.
func optional[T any](o map[string]json.RawMessage, key string, out *T) {
	var v T
	if raw, ok := o[key]; ok && json.Unmarshal(raw, &v) == nil {
		*out = v
	}
}
