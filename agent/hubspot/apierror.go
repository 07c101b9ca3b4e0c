package hubspot

// A Limit is the kind of limit that a 429 speaks of.
type Limit string

// The kinds of limit.
const (
	LimitNone     Limit = ""         // not a 429
	LimitDaily    Limit = "daily"    // the account's day: waiting helps at midnight
	LimitBurst    Limit = "burst"    // the app's ten seconds
	LimitSecondly Limit = "secondly" // the second, as searches have it
	LimitUnknown  Limit = "unknown"  // a 429 that does not say
)

// An APIError is what the body of an answer of HubSpot's says went wrong.
type APIError struct {
	Status        int
	Category      string
	Message       string
	ErrorType     string
	PolicyName    string
	GroupName     string
	CorrelationID string
	NumErrors     int
	MissingScopes []string
	Portals       []int64
}

// ParseError reads the body of an answer.
func ParseError(status int, contentType string, body []byte) APIError { return APIError{Status: status} }

// Limit classifies a 429.
func (e APIError) Limit() Limit { return LimitNone }

// NumErrors is how many inputs of a batch failed.
func NumErrors(body []byte) int { return 0 }
