package chain

import (
	"strconv"

	"github.com/hsagent/hsagentd/wire"
)

// MaxRecord is the most bytes that an encoded record may have. It stays far
// below Badger's value threshold: larger values would be synced on a path
// whose errors Badger only logs.
const MaxRecord = 8 << 10

// A Kind tells what a record is about.
type Kind string

// The kinds of records.
const (
	CallIntent      Kind = "call.intent"      // a request is about to leave
	CallOutcome     Kind = "call.outcome"     // it ended
	CallDenied      Kind = "call.denied"      // it was refused here; nothing left
	CallInterrupted Kind = "call.interrupted" // found at start: an intent without an outcome; it may have left

	PortalOnboarded   Kind = "portal.onboarded"
	PortalRotated     Kind = "portal.rotated"
	PortalRemoved     Kind = "portal.removed"
	PortalQuarantined Kind = "portal.quarantined"
	PortalResumed     Kind = "portal.resumed"
	PortalVerified    Kind = "portal.verified"
	PortalRejected    Kind = "portal.rejected"

	StoreLoaded  Kind = "store.loaded"
	StoreRefused Kind = "store.refused"

	AgentStarted  Kind = "agent.started"
	AgentStopped  Kind = "agent.stopped"
	AgentLocked   Kind = "agent.locked"
	AgentUnlocked Kind = "agent.unlocked"
	PolicyLoaded  Kind = "policy.loaded"

	AuditKey    Kind = "audit.key"    // other keys sign the checkpoints from here on
	AuditPruned Kind = "audit.pruned" // the bytes and salts of older records were erased
	AuditGap    Kind = "audit.gap"    // an operator accepted that records are lost
)

// Kinds returns all kinds, those of calls first.
func Kinds() []Kind {
	return []Kind{
		CallIntent, CallOutcome, CallDenied, CallInterrupted,
		PortalOnboarded, PortalRotated, PortalRemoved, PortalQuarantined, PortalResumed, PortalVerified, PortalRejected,
		StoreLoaded, StoreRefused, AgentStarted, AgentStopped, AgentLocked, AgentUnlocked, PolicyLoaded, AuditKey, AuditPruned, AuditGap,
	}
}

// A Caller is the local process that asked, as the kernel named it.
type Caller struct {
	UID   int    `json:"uid"`
	User  string `json:"user,omitempty"`
	GID   int    `json:"gid"`
	PID   int    `json:"pid,omitempty"`
	Exe   string `json:"exe,omitempty"`   // advisory: a process can exec another program
	Unit  string `json:"unit,omitempty"`  // systemd unit
	Agent bool   `json:"agent,omitempty"` // the agent itself asked: identity, usage
}

// Name is the caller's user, by name, or by uid without one; nothing for no
// caller.
func (c *Caller) Name() string {
	switch {
	case c == nil:
		return ""
	case c.Agent:
		return "agent"
	case c.User != "":
		return c.User
	}
	return strconv.Itoa(c.UID)
}

// A Record is one entry of the audit log. The field order is the order of its
// encoding. It never holds a token, a body, or a header value other than those
// named here; Path is already stripped of personal data by who made it.
type Record struct {
	Seq        uint64    `json:"seq"` // 0, 1, 2 … without a gap; the log sets it
	TS         wire.Time `json:"ts"`  // the log sets it if zero
	Kind       Kind      `json:"kind"`
	ClientSlug string    `json:"clientSlug,omitempty"`
	PortalID   int64     `json:"portalId,omitempty"`
	SlugSeq    *uint64   `json:"slugSeq,omitempty"` // 0, 1, 2 … within ClientSlug; the log sets it
	CallID     string    `json:"callId,omitempty"`  // UUIDv7
	Attempt    int       `json:"attempt,omitempty"` // 1, 2 … of a call's wire attempts
	Method     string    `json:"method,omitempty"`
	Path       string    `json:"path,omitempty"`
	ObjectType string    `json:"objectType,omitempty"`
	ObjectID   string    `json:"objectId,omitempty"`
	APIVersion string    `json:"apiVersion,omitempty"`
	Actor      string    `json:"actor"` // hsagentd/<version>
	Caller     *Caller   `json:"caller,omitempty"`
	Reason     string    `json:"reason,omitempty"` // the caller's, or why an event happened
	Rule       string    `json:"rule,omitempty"`   // of the policy, that let an intent pass or denied

	ConfirmedBy string `json:"confirmedBy,omitempty"` // who said yes or no, where a rule asks for that

	StatusCode         int    `json:"statusCode,omitempty"` // HubSpot's; absent if it gave none
	DurationMs         *int64 `json:"durationMs,omitempty"`
	RequestBytes       *int64 `json:"requestBytes,omitempty"`
	ResponseBytes      *int64 `json:"responseBytes,omitempty"`
	NumErrors          int    `json:"numErrors,omitempty"` // of a 207
	CorrelationID      string `json:"correlationId,omitempty"`
	RateLimitRemaining *int64 `json:"rateLimitRemaining,omitempty"` // of the day
	TokenFingerprint   string `json:"tokenFingerprint,omitempty"`
	StoreVersion       int64  `json:"storeVersion,omitempty"`
	Error              string `json:"error,omitempty"` // a wire.Code
}

// A Receipt is proof that a record is durable in the log.
type Receipt struct {
	Seq  uint64
	Leaf Hash // its leaf hash
}
