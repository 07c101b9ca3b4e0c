package hubspot

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
)

// A Limit is the kind of limit that a 429 speaks of.
type Limit string

// The kinds of limit.
const (
	LimitNone     Limit = ""         // not a 429
	LimitDaily    Limit = "daily"    // the account's day: it ends at midnight in the portal's time zone
	LimitBurst    Limit = "burst"    // the app's ten seconds
	LimitSecondly Limit = "secondly" // the second, as searches have it
	LimitUnknown  Limit = "unknown"  // a 429 that does not say
)

// MaxErrorBody is how much of an answer is read for what went wrong, in bytes.
const MaxErrorBody = 1 << 20

// An APIError is what an answer of HubSpot's says went wrong. Every field is
// optional with HubSpot, and empty where the body is no JSON: HTML from the
// edge is common.
type APIError struct {
	Status        int
	Category      string // VALIDATION_ERROR, INVALID_AUTHENTICATION, MISSING_SCOPES …
	Message       string // may hold personal data: not for the log
	ErrorType     string // RATE_LIMIT, of a 429
	PolicyName    string // DAILY, TEN_SECONDLY_ROLLING, SECONDLY, of a 429
	GroupName     string
	CorrelationID string
	NumErrors     int      // how many single errors it lists
	MissingScopes []string // of a 403; any one is enough; sorted
	Portals       []int64  // the portals that the body names, which should all be the slug's; sorted
}

// errorBody is what HubSpot documents of an error, and what was seen besides.
type errorBody struct {
	Category      string          `json:"category"`
	Message       string          `json:"message"`
	ErrorType     string          `json:"errorType"`
	PolicyName    string          `json:"policyName"`
	GroupName     string          `json:"groupName"`
	CorrelationID string          `json:"correlationId"`
	NumErrors     json.RawMessage `json:"numErrors"`
	PortalID      json.RawMessage `json:"portalId"`
	HubID         json.RawMessage `json:"hubId"`
	HubIDOAuth    json.RawMessage `json:"hub_id"`
	Context       errorContext    `json:"context"`
	Errors        []struct {
		Category string       `json:"category"`
		Message  string       `json:"message"`
		Context  errorContext `json:"context"`
	} `json:"errors"`
}

type errorContext struct {
	RequiredGranularScopes []string `json:"requiredGranularScopes"`
	MissingScopes          []string `json:"missingScopes"`
}

// ParseError reads what the body of an answer says went wrong. It takes
// anything: HTML, nonsense, endless nesting, fields of a wrong kind. Only the
// first [MaxErrorBody] bytes are looked at.
func ParseError(status int, contentType string, body []byte) APIError {
	e := APIError{Status: status}
	b, ok := decodeErrorBody(contentType, body)
	if !ok {
		return e
	}
	e.Category, e.Message, e.ErrorType = b.Category, b.Message, b.ErrorType
	e.PolicyName, e.GroupName, e.CorrelationID = b.PolicyName, b.GroupName, b.CorrelationID
	e.NumErrors = b.count()

	for _, v := range []json.RawMessage{b.PortalID, b.HubID, b.HubIDOAuth} {
		e.addPortal(string(v))
	}
	if group, ok := strings.CutPrefix(b.GroupName, "publicapi:"); ok {
		e.addPortal(group[strings.LastIndexByte(group, ':')+1:])
	}
	e.addEmbedded(b.Category, b.Message)
	e.addScopes(b.Context)
	for _, one := range b.Errors {
		e.addEmbedded(one.Category, one.Message)
		e.addScopes(one.Context)
	}
	slices.Sort(e.Portals)
	e.Portals = slices.Compact(e.Portals)
	slices.Sort(e.MissingScopes)
	e.MissingScopes = slices.Compact(e.MissingScopes)
	return e
}

// decodeErrorBody reads body as far as it is JSON. A field of a wrong kind is
// left out, and the others are taken.
func decodeErrorBody(contentType string, body []byte) (errorBody, bool) {
	var b errorBody
	body = bytes.TrimLeft(body[:min(len(body), MaxErrorBody)], " \t\r\n")
	if strings.HasPrefix(strings.ToLower(contentType), "text/html") || len(body) == 0 || body[0] != '{' {
		return b, false
	}
	var kind *json.UnmarshalTypeError
	if err := json.Unmarshal(body, &b); err != nil && !errors.As(err, &kind) {
		return errorBody{}, false
	}
	return b, true
}

// count is how many errors a body counts, or lists if it does not count.
func (b errorBody) count() int {
	if n, ok := digits(string(b.NumErrors)); ok && n <= maxCount {
		return int(n)
	}
	return len(b.Errors)
}

// addPortal notes an ID; what is none is left out.
func (e *APIError) addPortal(s string) {
	if n, ok := digits(s); ok && n > 0 && n <= maxID {
		e.Portals = append(e.Portals, n)
	}
}

// addEmbedded notes the portals in the JSON array that HubSpot puts into the
// message of a VALIDATION_ERROR: "Property values were not valid: [{…}]".
func (e *APIError) addEmbedded(category, message string) {
	i := strings.Index(message, "[{")
	if category != "VALIDATION_ERROR" || i < 0 {
		return
	}
	var items []struct {
		PortalID json.RawMessage `json:"portalId"`
	}
	if err := json.NewDecoder(strings.NewReader(message[i:])).Decode(&items); err != nil {
		return // a message need not hold JSON
	}
	for _, it := range items {
		e.addPortal(string(it.PortalID))
	}
}

func (e *APIError) addScopes(c errorContext) {
	e.MissingScopes = append(e.MissingScopes, c.RequiredGranularScopes...)
	e.MissingScopes = append(e.MissingScopes, c.MissingScopes...)
}

// Limit tells which limit a 429 speaks of, by its policy's name or else by its
// message. It decides whether to wait seconds or until midnight.
func (e APIError) Limit() Limit {
	if e.Status != http.StatusTooManyRequests {
		return LimitNone
	}
	for _, s := range []string{strings.ToLower(e.PolicyName), strings.ToLower(e.Message)} {
		switch {
		case strings.Contains(s, "ten_secondly"):
			return LimitBurst
		case strings.Contains(s, "secondly"):
			return LimitSecondly
		case strings.Contains(s, "daily"):
			return LimitDaily
		}
	}
	return LimitUnknown
}

// NumErrors is how many inputs of a batch failed, by the body of a 207: a 2xx
// is no proof of success. It is 0 for a body that does not say.
func NumErrors(body []byte) int {
	var b errorBody
	var kind *json.UnmarshalTypeError
	if err := json.Unmarshal(body, &b); err != nil && !errors.As(err, &kind) {
		return 0
	}
	return b.count()
}
