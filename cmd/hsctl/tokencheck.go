package main

import (
	"context"
	"fmt"

	"github.com/hsagent/hsagentd/wire"
)

// A tokenCheck is what became of the check of a token that is not stored.
type tokenCheck struct {
	wire.TokenPortal
	ExpectedPortalID int64 `json:"expectedPortalId,omitempty"`
	Match            bool  `json:"match"`
}

// runTokenCheck asks which portal a token opens, which stdin has or the user
// types, and compares it with the expected one, unless that is 0.
func runTokenCheck(ctx context.Context, e *env, expected int64) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	token, err := e.token(ctx, "", "token")
	if err != nil {
		return err
	}
	p, err := c.CheckToken(ctx, token, 0)
	if err != nil {
		return err
	}
	check := tokenCheck{TokenPortal: *p, ExpectedPortalID: expected, Match: expected == 0 || p.PortalID == expected}
	if err := e.emitTokenCheck(&check); err != nil {
		return err
	}
	if !check.Match {
		return &exitError{wire.ExitVerification, fmt.Errorf("the token opens another client's portal: do not onboard it")}
	}
	return nil
}

// emitTokenCheck prints one line everywhere, and other forms when asked for.
func (e *env) emitTokenCheck(t *tokenCheck) error {
	if e.global.output == formatJSON || e.global.output == formatCSV {
		return e.emit(t, func() *table {
			return &table{
				header: []string{"portalId", "accountType", "timeZone", "dataHostingLocation", "expectedPortalId", "match"},
				rows: [][]cell{{
					text(t.PortalID), text(t.AccountType), text(t.TimeZone), text(t.DataHosting), text(positive(t.ExpectedPortalID)), text(t.Match),
				}},
			}
		})
	}
	line := fmt.Sprintf("MISMATCH — token belongs to portal %d, expected %d", t.PortalID, t.ExpectedPortalID)
	if t.Match {
		line = fmt.Sprintf("OK — portal %d", t.PortalID)
		if t.AccountType != "" {
			line += " (" + wire.Printable(t.AccountType) + ")"
		}
	}
	_, err := fmt.Fprintln(e.stdout, line)
	return err
}
