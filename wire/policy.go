package wire

// A PolicyRule is one rule of who may call what, as the config writes it and
// GET /v1/policy shows it. Every key that is set must match, and within a list
// one match is enough.
type PolicyRule struct {
	Name    string      `toml:"name" json:"name"`
	Effect  string      `toml:"effect" json:"effect"` // allow, deny or confirm
	Users   []string    `toml:"users" json:"users,omitempty"`
	Groups  []string    `toml:"groups" json:"groups,omitempty"`
	Exes    []PolicyExe `toml:"exes" json:"exes,omitempty"`
	Units   []string    `toml:"units" json:"units,omitempty"`
	Portals []string    `toml:"portals" json:"portals,omitempty"`
	Methods []string    `toml:"methods" json:"methods,omitempty"`
	Paths   []string    `toml:"paths" json:"paths,omitempty"`
}

// A PolicyExe is an executable of a rule.
type PolicyExe struct {
	Path   string `toml:"path" json:"path"`
	SHA256 string `toml:"sha256" json:"sha256,omitempty"`
}

// Policy is the answer of GET /v1/policy.
type Policy struct {
	Rules    []PolicyRule `json:"rules"`
	LoadedAt *Time        `json:"loadedAt,omitempty"`
}

// PolicyStatus tells which policy decides.
type PolicyStatus struct {
	Rules     int   `json:"rules"` // 0: the agent's user, root and socket_group may call
	LoadedAt  *Time `json:"loadedAt,omitempty"`
	LastError Fault `json:"lastError"` // why a newer policy was refused; the loaded one decides
	ErrorAt   *Time `json:"errorAt,omitempty"`
}

// PolicyTest is the body of POST /v1/policy/test: what would the policy say to
// this call? Without User, Exe, SHA256 and Unit it is about the caller itself.
type PolicyTest struct {
	User   string `json:"user,omitempty"` // a name or a uid
	Exe    string `json:"exe,omitempty"`
	SHA256 string `json:"sha256,omitempty"` // of the executable
	Unit   string `json:"unit,omitempty"`
	Slug   string `json:"slug"`
	Method string `json:"method"`
	Path   string `json:"path"`
}

// PolicyVerdict is the answer of POST /v1/policy/test.
type PolicyVerdict struct {
	Effect string           `json:"effect"` // allow, deny or confirm
	Rule   string           `json:"rule"`   // as records name it
	Reason string           `json:"reason"`
	Rules  []PolicyRuleTest `json:"rules"` // what each rule says, in the config's order
}

// PolicyRuleTest is what one rule says to a call.
type PolicyRuleTest struct {
	Name     string `json:"name"`
	Effect   string `json:"effect"`
	Matches  bool   `json:"matches"`
	Mismatch string `json:"mismatch,omitempty"` // the first key of the rule that does not match
}

// The states of a [Confirmation].
const (
	ConfirmWaiting = "waiting"
	ConfirmAllowed = "allowed"
	ConfirmRefused = "refused"
	ConfirmExpired = "expired" // nobody answered in time
	ConfirmGone    = "gone"    // the caller hung up, or the agent stops
)

// A Confirmation is one line of GET /v1/confirmations: a call that waits until
// somebody says yes, or how that ended.
type Confirmation struct {
	ID        string `json:"id"` // the call's
	State     string `json:"state"`
	Rule      string `json:"rule"`
	Slug      string `json:"slug"`
	Method    string `json:"method"`
	Path      string `json:"path"` // as the record keeps it
	Reason    string `json:"reason,omitempty"`
	User      string `json:"user"` // the caller's
	UID       int    `json:"uid"`
	PID       int    `json:"pid"`
	Exe       string `json:"exe,omitempty"`
	Unit      string `json:"unit,omitempty"`
	AskedAt   Time   `json:"askedAt"`
	ExpiresAt Time   `json:"expiresAt"`
	By        string `json:"by,omitempty"` // who answered
}

// ConfirmationAnswer is the body of POST /v1/confirmations.
type ConfirmationAnswer struct {
	ID    string `json:"id"`
	Allow bool   `json:"allow"`
}
