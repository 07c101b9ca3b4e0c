package sandbox

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"time"
)

// accountInfo holds the nine fields of the account information endpoint.
type accountInfo struct {
	PortalID              int64    `json:"portalId"`
	AccountType           string   `json:"accountType"`
	TimeZone              string   `json:"timeZone"`
	CompanyCurrency       string   `json:"companyCurrency"`
	AdditionalCurrencies  []string `json:"additionalCurrencies"`
	UTCOffset             string   `json:"utcOffset"`
	UTCOffsetMilliseconds int64    `json:"utcOffsetMilliseconds"`
	UIDomain              string   `json:"uiDomain"`
	DataHostingLocation   string   `json:"dataHostingLocation"`
}

// details answers /account-info/{version}/details.
func (x *exchange) details() *answer {
	p := x.access.portal
	id := p.identityNow()
	if id.AccountInfo != 0 {
		return x.identityRefused(id.AccountInfo)
	}
	_, offset := x.now.In(p.loc).Zone()
	domain := "app.hubspot.com"
	if p.cfg.DataHosting != "na1" {
		domain = "app-" + p.cfg.DataHosting + ".hubspot.com"
	}
	sign, abs := '+', offset
	if offset < 0 {
		sign, abs = '-', -offset
	}
	return reply(http.StatusOK, accountInfo{
		PortalID:              p.claimedID(id),
		AccountType:           p.cfg.AccountType,
		TimeZone:              p.cfg.TimeZone,
		CompanyCurrency:       p.cfg.Currency,
		AdditionalCurrencies:  []string{},
		UTCOffset:             fmt.Sprintf("%c%02d:%02d", sign, abs/3600, abs%3600/60),
		UTCOffsetMilliseconds: int64(offset) * 1000,
		UIDomain:              domain,
		DataHostingLocation:   p.cfg.DataHosting,
	})
}

// tokenInfo answers the endpoint that takes a token in its body. The bearer
// token may be left out in na1 and is required elsewhere.
func (x *exchange) tokenInfo() *answer {
	if x.r.Method != http.MethodPost {
		return notAllowed()
	}
	var in struct {
		TokenKey string `json:"tokenKey"`
	}
	raw, refused := x.readBody()
	if refused != nil {
		return refused
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return badJSON(err)
	}
	named := x.s.lookup(in.TokenKey)
	if named == nil || x.bearer != "" && x.access == nil || x.bearer == "" && named.portal.cfg.DataHosting != "na1" {
		return x.unauthenticated()
	}
	if x.access == nil {
		x.access = named
	}
	if refused := x.charge(); refused != nil {
		return refused
	}
	p := named.portal
	id := p.identityNow()
	if id.TokenInfo != 0 {
		return x.identityRefused(id.TokenInfo)
	}
	return reply(http.StatusOK, struct {
		UserID int64    `json:"userId"`
		HubID  int64    `json:"hubId"`
		AppID  int64    `json:"appId"`
		Scopes []string `json:"scopes"`
	}{made("user", p.cfg.ID), p.claimedID(id), made("app", p.cfg.ID), p.cfg.Scopes})
}

// dailyUsage answers /account-info/{version}/api-usage/daily/private-apps.
func (x *exchange) dailyUsage() *answer {
	p := x.access.portal
	p.limitMu.Lock()
	used := p.used
	p.limitMu.Unlock()
	y, m, d := x.now.In(p.loc).Date()
	type usage struct {
		Name         string `json:"name"`
		UsageLimit   int    `json:"usageLimit"`
		CurrentUsage int    `json:"currentUsage"`
		CollectedAt  string `json:"collectedAt"`
		FetchStatus  string `json:"fetchStatus"`
		ResetsAt     string `json:"resetsAt"`
	}
	return reply(http.StatusOK, struct {
		Results []usage `json:"results"`
	}{[]usage{{
		Name:         "private-apps-api-calls-daily",
		UsageLimit:   p.daily,
		CurrentUsage: used,
		CollectedAt:  stamp(x.now),
		FetchStatus:  "SUCCESS",
		ResetsAt:     stamp(time.Date(y, m, d+1, 0, 0, 0, 0, p.loc)),
	}}})
}

func (x *exchange) identityRefused(status int) *answer {
	if status == http.StatusForbidden {
		return missingScopes("oauth")
	}
	return x.ofStatus(status, "")
}

func (p *portal) identityNow() Identity {
	p.limitMu.Lock()
	defer p.limitMu.Unlock()
	return p.identity
}

func (p *portal) claimedID(id Identity) int64 {
	if id.ClaimID != 0 {
		return id.ClaimID
	}
	return p.cfg.ID
}

// made invents a number that stays the same for the same portal.
func made(what string, portalID int64) int64 {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%s %d", what, portalID) // a hash never fails to write
	return int64(h.Sum32()%90_000_000) + 10_000_000
}

// stamp is the form of HubSpot's times: UTC with milliseconds.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
