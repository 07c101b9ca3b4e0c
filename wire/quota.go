package wire

import (
	"context"
	"net/http"
	"net/url"
)

// A QuotaState is a portal's quota in one word.
type QuotaState string

// The states of a portal's quota.
const (
	QuotaOK        QuotaState = "ok"
	QuotaLow       QuotaState = "low"       // fewer calls are left today than quota.warn_below
	QuotaExhausted QuotaState = "exhausted" // none is left until ResetsAt
	QuotaParked    QuotaState = "parked"    // HubSpot is migrating the portal
	QuotaUnknown   QuotaState = "unknown"   // no answer has told it yet today
)

// A Quota is what is left of a portal's limits, as far as HubSpot's answers
// told it and the agent counted on from there. What is not known is absent.
type Quota struct {
	Slug     string `json:"slug"`
	PortalID int64  `json:"portalId,omitempty"`

	DailyLimit     *int64 `json:"dailyLimit,omitempty"`     // calls a day, of all apps of the account
	DailyRemaining *int64 `json:"dailyRemaining,omitempty"` // of them
	BurstLimit     *int64 `json:"burstLimit,omitempty"`     // calls in one interval, of this token's app
	BurstRemaining *int64 `json:"burstRemaining,omitempty"` // of them, now
	IntervalMS     int64  `json:"intervalMs,omitempty"`

	ObservedAt *Time      `json:"observedAt,omitempty"` // of HubSpot's last word on the day
	ResetsAt   *Time      `json:"resetsAt,omitempty"`   // midnight in the portal's time zone
	UsedToday  *int64     `json:"usedToday,omitempty"`  // through this agent, by its audit log
	State      QuotaState `json:"state"`
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
