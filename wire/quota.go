package wire

import (
	"context"
	"net/http"
	"net/url"
)

// A QuotaState tells how a portal's quota stands.
type QuotaState string

// The states of a quota.
const (
	QuotaOK        QuotaState = "ok"
	QuotaLow       QuotaState = "low"       // below the config's quota.warn_below
	QuotaExhausted QuotaState = "exhausted" // no call today any more
	QuotaParked    QuotaState = "parked"    // HubSpot is migrating the portal (477)
	QuotaUnknown   QuotaState = "unknown"   // no answer of HubSpot's has told it yet
)

// A Quota is what is left of one portal's calls, as HubSpot's answers told it.
// What they did not tell is nil.
type Quota struct {
	Slug           string     `json:"slug"`
	PortalID       int64      `json:"portalId,omitempty"`
	DailyLimit     *int64     `json:"dailyLimit,omitempty"`
	DailyRemaining *int64     `json:"dailyRemaining,omitempty"` // others use it up too
	BurstLimit     *int64     `json:"burstLimit,omitempty"`     // calls within an interval
	BurstRemaining *int64     `json:"burstRemaining,omitempty"`
	IntervalMs     *int64     `json:"intervalMs,omitempty"` // of the burst limit
	ObservedAt     *Time      `json:"observedAt,omitempty"` // when HubSpot told the figures
	ResetsAt       *Time      `json:"resetsAt,omitempty"`   // midnight in the portal's time zone
	UsedToday      *int64     `json:"usedToday,omitempty"`  // calls made here, from the audit log
	State          QuotaState `json:"state"`
}

// Quotas is the answer of GET /v1/quota, sorted by slug.
type Quotas struct {
	Portals []Quota `json:"portals"`
}

// Quota asks what is left of every portal's quota, sorted by slug. With refresh
// the agent asks HubSpot first.
func (c *Client) Quota(ctx context.Context, refresh bool) ([]Quota, error) {
	q := url.Values{}
	if refresh {
		q.Set("refresh", "true")
	}
	var out Quotas
	if err := c.Do(ctx, http.MethodGet, "/v1/quota", q, nil, &out); err != nil {
		return nil, err
	}
	return out.Portals, nil
}
