package wire

import (
	"encoding/json"
	"time"
)

// TimeFormat is RFC 3339 in UTC with milliseconds: the form of every time in
// the protocol, the store and the audit log.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// A Time is an instant that JSON shows in [TimeFormat]; it reads any RFC 3339
// form.
type Time struct{ time.Time }

// At returns t as a Time, in UTC and cut to milliseconds.
func At(t time.Time) Time { return Time{t.UTC().Truncate(time.Millisecond)} }

// String returns the time in [TimeFormat], or "" for the zero time.
func (t Time) String() string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(TimeFormat)
}

// MarshalJSON writes the time in [TimeFormat].
func (t Time) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// UnmarshalJSON reads any RFC 3339 time; "" and null are the zero time.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s == "" {
		*t = Time{}
		return nil
	}
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return err
	}
	*t = At(v)
	return nil
}

// A State tells whether calls for a portal are made.
type State string

// The states of a portal.
const (
	StateReady       State = "ready"       // HubSpot named the portal that the token opens, and it is this one
	StateUnverified  State = "unverified"  // not yet asked, or asked without an answer: the first call waits for it
	StateQuarantined State = "quarantined" // contamination or a dead token was found: no calls until it is resumed
	StateRejected    State = "rejected"    // its store entry is bad
)

// A Portal is one entry of the fleet as clients see it: never with its token.
type Portal struct {
	Slug             string   `json:"slug"`
	PortalID         int64    `json:"portalId,omitempty"`
	Datacenter       string   `json:"datacenter,omitempty"`
	State            State    `json:"state"`
	Reason           string   `json:"reason,omitempty"` // why it is not ready
	Warning          string   `json:"warning,omitempty"`
	Kind             string   `json:"kind,omitempty"`
	AccountType      string   `json:"accountType,omitempty"`
	TimeZone         string   `json:"timeZone,omitempty"`
	DataHosting      string   `json:"dataHostingLocation,omitempty"`
	AddedAt          *Time    `json:"addedAt,omitempty"`
	LastRotatedAt    *Time    `json:"lastRotatedAt,omitempty"`
	VerifiedAt       *Time    `json:"verifiedAt,omitempty"`
	TokenFingerprint string   `json:"tokenFingerprint,omitempty"`
	Scopes           []string `json:"scopes,omitempty"`
}

// Portals is the answer of GET /v1/portals, sorted by slug.
type Portals struct {
	Portals []Portal `json:"portals"`
}

// Status is the answer of GET /v1/status.
type Status struct {
	Version         string         `json:"version"`
	PID             int            `json:"pid"`
	StartedAt       Time           `json:"startedAt"`
	UptimeSeconds   int64          `json:"uptimeSeconds"`
	Locked          bool           `json:"locked"`
	Store           StoreStatus    `json:"store"`
	Audit           AuditStatus    `json:"audit"`
	Policy          PolicyStatus   `json:"policy"`
	Portals         map[string]int `json:"portals"` // how many are in each state
	CallsInFlight   int            `json:"callsInFlight"`
	Upstream        string         `json:"upstream"`
	SocketActivated bool           `json:"socketActivated"`
	TokenMemory     string         `json:"tokenMemory,omitempty"` // hidden, locked or plain: see package secret
}

// StoreStatus tells which store the agent serves.
type StoreStatus struct {
	Path      string `json:"path"`
	Version   int64  `json:"version"`
	LoadedAt  *Time  `json:"loadedAt,omitempty"`
	LastError Fault  `json:"lastError"` // why a newer store was refused; the loaded one serves
	ErrorAt   *Time  `json:"errorAt,omitempty"`
}

// AuditStatus tells how the audit log stands.
type AuditStatus struct {
	Path      string `json:"path"`
	Size      uint64 `json:"size"`    // records in the log
	Durable   uint64 `json:"durable"` // how many of them are synced to disk
	LastError Fault  `json:"lastError"`
	SinkError string `json:"sinkError,omitempty"` // why the last checkpoint did not reach its sink
}

// Reload is the body of POST /v1/reload.
type Reload struct {
	Force bool `json:"force,omitempty"` // take a store whose version went back, or that lost many portals
}

// Unlock is the body of POST /v1/unlock.
type Unlock struct {
	Passphrase string `json:"passphrase,omitempty"`
}

// TokenCheck is the body of POST /v1/verify: which portal does a token open?
// Its token is plain text: never log or print one.
type TokenCheck struct {
	Token    string `json:"token"`
	PortalID int64  `json:"portalId,omitempty"` // identity_mismatch if it opens another one
}

// TokenPortal is the answer of POST /v1/verify.
type TokenPortal struct {
	PortalID    int64  `json:"portalId"`
	AccountType string `json:"accountType,omitempty"`
	TimeZone    string `json:"timeZone,omitempty"`
	DataHosting string `json:"dataHostingLocation,omitempty"`
}

// PutPortal is the body of PUT /v1/portals/{slug}. Its token is plain text:
// never log or print one.
type PutPortal struct {
	Token    string `json:"token"`
	PortalID int64  `json:"portalId,omitempty"` // refuse the token if it opens another portal
	Kind     string `json:"kind,omitempty"`     // service-key, private-app or static-app
}

// A Fault says what is wrong. The empty one is none, and null in JSON.
type Fault string

// MarshalJSON encodes the fault as a string or null.
func (f Fault) MarshalJSON() ([]byte, error) {
	if f == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(f))
}
