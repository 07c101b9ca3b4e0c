package agent

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

const (
	// confirmTimeout bounds one question to HubSpot about a token.
	confirmTimeout = 30 * time.Second
	// confirmers is how many tokens are confirmed at once after a load. A call
	// that waits for its own token does not queue behind them.
	confirmers = 8
)

// confirm waits until HubSpot has confirmed the credential's portal.
func (a *Agent) confirm(ctx context.Context, c *credential) *wire.Problem {
	return c.identity.confirm(ctx, c, func(settle func(verdict)) {
		if !a.spawn(func() { settle(a.check(a.ctx, c)) }) {
			p := wire.Errorf(wire.CodeBusy, "the agent stops")
			settle(verdict{problem: p, cause: p})
		}
	})
}

// confirmAll confirms the keyring's new tokens in the background.
func (a *Agent) confirmAll(k *keyring) {
	var fresh []*credential
	for _, slug := range k.slugs {
		if c := k.credential(slug); c != nil && c.identity.state(c.PortalID) != wire.StateReady {
			fresh = append(fresh, c)
		}
	}
	queue := make(chan *credential, len(fresh))
	for _, c := range fresh {
		queue <- c
	}
	close(queue)
	for range min(confirmers, len(queue)) {
		a.spawn(func() {
			for c := range queue {
				if a.ctx.Err() != nil || a.keys.Load() != k {
					return // stopped, locked, or a newer store has its own round
				}
				_ = a.confirm(a.ctx, c) // what is wrong stands in the portal's state
			}
		})
	}
}

// check asks HubSpot about the credential's token and records what is new.
func (a *Agent) check(ctx context.Context, c *credential) verdict {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	account, problem := a.whose(ctx, c)
	v := judge(c, account, problem)
	switch {
	case v.problem == nil:
		c.lane.setZone(account.TimeZone)
		a.log.DebugContext(ctx, "portal verified", "slug", c.Slug.String(), "portal", c.PortalID)
		a.record(ctx, a.eventOf(chain.PortalVerified, c))
	case v.settled:
		if v.cause.Code == wire.CodeTokenRejected {
			if _, ok := a.fallBack(ctx, c); ok {
				return fellBack(c, v)
			}
		}
		// It is no news where the slug is stopped already, or has another token.
		if c.identity.stopped() == nil && !a.replaced(c) {
			a.noteQuarantine(ctx, c, v.cause.Code, v.problem)
		}
	case a.ctx.Err() != nil: // the agent stops: nothing is wrong with the portal
	default:
		a.log.WarnContext(ctx, "portal not verified", "slug", c.Slug.String(), "portal", c.PortalID, "reason", v.problem.Detail)
	}
	return v
}

// whose asks HubSpot which portal the credential's token opens: account-info
// first, and where a token may not read that, access-token-info, which needs
// no scope. The problem is one of token_rejected, scope_missing, throttled,
// upstream_* or audit_unavailable.
func (a *Agent) whose(ctx context.Context, c *credential) (*hubspot.Account, *wire.Problem) {
	got, problem := a.ask(ctx, c, http.MethodGet, hubspot.DetailsPath, nil)
	if problem != nil {
		return nil, problem
	}
	if got.status != http.StatusForbidden {
		if problem := got.problem("account-info"); problem != nil {
			return nil, problem
		}
		account, err := hubspot.DecodeAccount(got.body)
		if err != nil {
			return nil, wire.Errorf(wire.CodeUpstreamInvalid, "account-info: %v", err)
		}
		return &account, nil
	}
	missing := hubspot.ParseError(got.status, got.header.Get("Content-Type"), got.body)
	if got, problem = a.tokenInfo(ctx, c); problem != nil {
		return nil, problem
	}
	if got.status == http.StatusOK {
		info, err := hubspot.DecodeTokenInfo(got.body)
		if err != nil {
			return nil, wire.Errorf(wire.CodeUpstreamInvalid, "access-token-info: %v", err)
		}
		return &hubspot.Account{PortalID: info.HubID}, nil
	}
	switch problem := got.problem("access-token-info"); {
	case got.status == http.StatusUnauthorized, got.status == http.StatusTooManyRequests, got.status >= 500:
		return nil, problem
	default:
		return nil, wire.Errorf(wire.CodeScopeMissing,
			"account-info answered 403%s, and access-token-info answered %d: give the token a scope that lets it read account-info",
			scopes(missing.MissingScopes), got.status)
	}
}

// padded is how long the body of access-token-info is at least. crypto/tls
// grows a new buffer twice for a short record, and drops the first with the
// text in it; for one of this length the first is large enough.
const padded = 512

// tokenInfo asks access-token-info about the credential's token.
func (a *Agent) tokenInfo(ctx context.Context, c *credential) (*gotten, *wire.Problem) {
	body := append(make([]byte, 0, padded+c.Token.SizeJSON()), `{"tokenKey":`...)
	body = append(c.Token.AppendJSON(body), '}')
	for len(body) < padded {
		body = append(body, '\n')
	}
	return a.ask(ctx, c, http.MethodPost, hubspot.TokenInfoPath, body)
}

func scopes(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return " (missing scope: " + wire.Printable(strings.Join(names, " or ")) + ")"
}

// problem says what an answer other than 200 means for a token.
func (g *gotten) problem(what string) *wire.Problem {
	switch g.status {
	case http.StatusOK:
		return nil
	case http.StatusUnauthorized:
		return wire.Errorf(wire.CodeTokenRejected,
			"%s answered 401: HubSpot does not accept the token. It was revoked, rotated, mistyped, or found in public and switched off", what)
	case http.StatusTooManyRequests:
		p := wire.Errorf(wire.CodeThrottled, "%s answered 429: the portal's quota is used up for now", what)
		if d, ok := hubspot.ParseRetryAfter(g.header, time.Now()); ok {
			p = p.After(d)
		}
		return p
	default:
		return wire.Errorf(wire.CodeUpstreamInvalid, "%s answered %d", what, g.status)
	}
}
