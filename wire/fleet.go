package wire

// A FleetRow is one line of the body of POST /v1/onboard and /v1/rotate. Its
// token is plain text: never log or print one.
type FleetRow struct {
	Slug     string `json:"slug"`
	Token    string `json:"token"`
	PortalID int64  `json:"portalId,omitempty"` // refuse the token if it opens another portal
	Kind     string `json:"kind,omitempty"`
}

// What became of a row.
const (
	RowOK       = "ok"       // verified, and in the store once the last line has come
	RowExists   = "exists"   // the store has this slug with this token already
	RowRejected = "rejected" // code and detail say why; nothing was changed for it
)

// A FleetResult is one line of the answer: what became of a row.
type FleetResult struct {
	Row      int    `json:"row"` // data rows, from 1
	Slug     string `json:"slug"`
	Result   string `json:"result"`
	Code     Code   `json:"code,omitempty"`
	Detail   string `json:"detail,omitempty"`
	PortalID int64  `json:"portalId,omitempty"`

	AccountType string `json:"accountType,omitempty"`
}

// A FleetDone is the last line of the answer. Without it the answer broke off,
// and nothing was written.
type FleetDone struct {
	Done         bool  `json:"done"` // true
	OK           int   `json:"ok"`   // rows that are in the store now; with dryRun, that could be
	Exists       int   `json:"exists"`
	Rejected     int   `json:"rejected"`
	StoreVersion int64 `json:"storeVersion"`

	// Where the store could not be written: no row was taken.
	Code   Code   `json:"code,omitempty"`
	Detail string `json:"detail,omitempty"`
}
