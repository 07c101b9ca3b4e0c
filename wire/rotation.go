package wire

import (
	"context"
	"net/http"
	"net/url"
)

// A Rotate is the body of POST /v1/portals/{slug}/rotate. Its token is plain
// text: never log or print one.
type Rotate struct {
	Token string `json:"token"`
}

// A RotationState tells how far a rotation has come.
type RotationState string

// The states of a rotation.
const (
	// RotationSwitched: calls leave with the new token. The old one still
	// opens the portal, until HubSpot expires it.
	RotationSwitched RotationState = "switched"
	// RotationConfirmed: HubSpot refuses the old token, and the store has
	// dropped it. Nothing is left to do.
	RotationConfirmed RotationState = "confirmed"
	// RotationFellBack: HubSpot refused the new token, as after its "Cancel
	// rotation", and calls leave with the old one again.
	RotationFellBack RotationState = "fell_back"
)

// The steps of a rotation that the agent sees, and ticks, by itself.
const (
	StepStoreWritten     = "store_written"      // the new token is in the store
	StepNewTokenVerified = "new_token_verified" //nolint:gosec // no token: HubSpot named the same portal for it
	StepCRMReadAnswered  = "crm_read_answered"  // a read of CRM data with it was answered
	StepSeenInRecords    = "seen_in_records"    // the audit log has calls made with it
	StepOldTokenRefused  = "old_token_refused"  // HubSpot answered 401 to the old one
)

// A Rotation is the latest change of a slug's token, with the checklist that
// goes with it.
type Rotation struct {
	Slug           string        `json:"slug"`
	PortalID       int64         `json:"portalId"`
	State          RotationState `json:"state"`
	OldFingerprint string        `json:"oldFingerprint"`
	NewFingerprint string        `json:"newFingerprint"`
	StartedAt      Time          `json:"startedAt"`
	GraceEndsAt    Time          `json:"graceEndsAt"` // when HubSpot expires the old token by itself

	Steps     []RotationStep     `json:"steps"`     // in the order of the runbook
	Consumers []RotationConsumer `json:"consumers"` // in the order of the config
	Next      string             `json:"next"`      // what to do now: which button in HubSpot, and when
}

// A RotationStep is one box of the checklist that the agent ticks.
type RotationStep struct {
	Name   string `json:"name"`
	Done   bool   `json:"done"`
	At     *Time  `json:"at,omitempty"`     // when it was done
	Detail string `json:"detail,omitempty"` // what was seen, or what is awaited
}

// A RotationConsumer is one holder of the token outside the agent, as the
// config lists it. Somebody has to give it the new token and say so.
type RotationConsumer struct {
	Name  string `json:"name"`
	HowTo string `json:"howTo,omitempty"` // how to give it the new token
	Check string `json:"check,omitempty"` // a command that shows whether it has it: to be read before it is run
	Done  bool   `json:"done"`
	At    *Time  `json:"at,omitempty"` // when it was confirmed
}

// Rotations is the answer of GET /v1/rotations, sorted by slug.
type Rotations struct {
	Rotations []Rotation `json:"rotations"`
}

// RotationDone is the body of POST /v1/rotations/{slug}/done, which answers
// with the [Rotation].
type RotationDone struct {
	Consumer string `json:"consumer"` // a [RotationConsumer]'s name
}

// Rotate gives a slug a new token, which has to open the same portal. With
// dryRun the token is verified and nothing is written.
func (c *Client) Rotate(ctx context.Context, s Slug, t Token, dryRun bool) (*Portal, error) {
	q := url.Values{}
	if dryRun {
		q.Set("dryRun", "true")
	}
	p := new(Portal)
	if err := c.Do(ctx, http.MethodPost, "/v1/portals/"+s.String()+"/rotate", q, Rotate{Token: t.Reveal()}, p); err != nil {
		return nil, err
	}
	return p, nil
}

// Rotations lists the latest rotation of every slug that had one, sorted by
// slug.
func (c *Client) Rotations(ctx context.Context) ([]Rotation, error) {
	var out Rotations
	if err := c.Do(ctx, http.MethodGet, "/v1/rotations", nil, nil, &out); err != nil {
		return nil, err
	}
	return out.Rotations, nil
}

// Rotation asks for a slug's latest rotation.
func (c *Client) Rotation(ctx context.Context, s Slug) (*Rotation, error) {
	r := new(Rotation)
	if err := c.Do(ctx, http.MethodGet, "/v1/rotations/"+s.String(), nil, nil, r); err != nil {
		return nil, err
	}
	return r, nil
}

// ConfirmConsumer says that a consumer of a slug's token has the new one.
func (c *Client) ConfirmConsumer(ctx context.Context, s Slug, consumer string) (*Rotation, error) {
	r := new(Rotation)
	if err := c.Do(ctx, http.MethodPost, "/v1/rotations/"+s.String()+"/done", nil, RotationDone{Consumer: consumer}, r); err != nil {
		return nil, err
	}
	return r, nil
}
