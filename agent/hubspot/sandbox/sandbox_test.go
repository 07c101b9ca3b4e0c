package sandbox_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/wire"
)

const (
	acme  = 12345678
	gamma = 13579246
)

var (
	acmeToken  = wire.NewToken("pat-na1-00000000-0000-4000-8000-00000000000a")
	gammaToken = wire.NewToken("pat-eu1-00000000-0000-4000-8000-00000000000b")
	spareToken = wire.NewToken("pat-na1-00000000-0000-4000-8000-00000000000c")
)

// clock is a clock that the test turns.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

// rig is a sandbox on a loopback port, and a client that trusts it.
type rig struct {
	*sandbox.Server
	t      *testing.T
	url    string
	client *http.Client
	clock  *clock
}

func start(t *testing.T, change func(*sandbox.Portal)) *rig {
	t.Helper()
	one := sandbox.Portal{ID: acme, Token: acmeToken}
	if change != nil {
		change(&one)
	}
	c := &clock{t: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	srv := sandbox.New(sandbox.Config{Now: c.now, Portals: []sandbox.Portal{
		one, {ID: gamma, Token: gammaToken, TimeZone: "Europe/Berlin", Currency: "EUR"},
	}})
	l, err := srv.Start()
	require.NoError(t, err)
	t.Cleanup(l.Close)
	transport := &http.Transport{
		TLSClientConfig:    &tls.Config{RootCAs: l.CertPool(), MinVersion: tls.VersionTLS13},
		DisableCompression: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &rig{
		Server: srv, t: t, url: l.URL, clock: c,
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
	}
}

type result struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any
}

// do makes a call with JSON in and, if it is that, JSON out.
func (r *rig) do(token wire.Token, method, path, body string) result {
	r.t.Helper()
	res, err := r.try(token, method, path, body)
	require.NoError(r.t, err)
	return res
}

func (r *rig) try(token wire.Token, method, path, body string) (result, error) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	require.NoError(r.t, err)
	if !token.IsZero() {
		req.Header.Set("Authorization", "Bearer "+token.Reveal())
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return r.send(req)
}

func (r *rig) send(req *http.Request) (result, error) {
	resp, err := r.client.Do(req)
	if err != nil {
		return result{}, err
	}
	defer func() { require.NoError(r.t, resp.Body.Close()) }()
	raw, err := io.ReadAll(resp.Body)
	out := result{status: resp.StatusCode, header: resp.Header, raw: raw}
	if bytes.HasPrefix(raw, []byte("{")) && err == nil {
		require.NoError(r.t, json.Unmarshal(raw, &out.body), string(raw))
	}
	return out, err
}

func (res result) results() []any {
	list, _ := res.body["results"].([]any)
	return list
}

func (res result) get(path ...string) any {
	var v any = res.body
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func TestListening(t *testing.T) {
	r := start(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/account-info/v3/details", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+acmeToken.Reveal())
	resp, err := r.client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "HTTP/1.1", resp.Proto)
	require.Equal(t, uint16(tls.VersionTLS13), resp.TLS.Version)
	require.NoError(t, resp.TLS.PeerCertificates[0].VerifyHostname("api.hubapi.com"))
	require.NoError(t, resp.TLS.PeerCertificates[0].VerifyHostname("localhost"))
}

func TestAccountInfo(t *testing.T) {
	r := start(t, nil)
	for _, path := range []string{"/account-info/v3/details", "/account-info/2026-03/details"} {
		res := r.do(gammaToken, "GET", path, "")
		require.Equal(t, 200, res.status)
		require.Equal(t, map[string]any{
			"portalId": float64(gamma), "accountType": "STANDARD", "timeZone": "Europe/Berlin", "companyCurrency": "EUR",
			"additionalCurrencies": []any{}, "utcOffset": "+01:00", "utcOffsetMilliseconds": 3.6e6,
			"uiDomain": "app-eu1.hubspot.com", "dataHostingLocation": "eu1",
		}, res.body)
	}
	require.Equal(t, "-05:00", r.do(acmeToken, "GET", "/account-info/v3/details", "").get("utcOffset"))
}

func TestIdentity(t *testing.T) {
	const info = "/oauth/v2/private-apps/get/access-token-info"
	r := start(t, nil)
	ask := func(bearer, about wire.Token) result {
		return r.do(bearer, "POST", info, `{"tokenKey":"`+about.Reveal()+`"}`)
	}
	require.Equal(t, float64(acme), ask(acmeToken, acmeToken).get("hubId"))
	require.Equal(t, 200, ask(wire.Token{}, acmeToken).status)
	require.Equal(t, 401, ask(wire.Token{}, gammaToken).status, "eu1 wants the bearer token too")
	require.Equal(t, 200, ask(gammaToken, gammaToken).status)
	require.Equal(t, 401, ask(acmeToken, spareToken).status)

	require.NoError(t, r.SetIdentity(acme, sandbox.Identity{ClaimID: 99}))
	require.Equal(t, 99.0, r.do(acmeToken, "GET", "/account-info/v3/details", "").get("portalId"))
	require.Equal(t, 99.0, ask(acmeToken, acmeToken).get("hubId"))
	require.NoError(t, r.SetIdentity(acme, sandbox.Identity{AccountInfo: 403}))
	require.Equal(t, 403, r.do(acmeToken, "GET", "/account-info/v3/details", "").status)
	require.Equal(t, float64(acme), ask(acmeToken, acmeToken).get("hubId"))
	require.NoError(t, r.SetIdentity(acme, sandbox.Identity{AccountInfo: 403, TokenInfo: 403}))
	require.Equal(t, "MISSING_SCOPES", ask(acmeToken, acmeToken).get("category"))
	require.ErrorIs(t, r.SetIdentity(1, sandbox.Identity{}), sandbox.ErrNoPortal)
}

func TestTokens(t *testing.T) {
	const path = "/account-info/v3/details"
	r := start(t, nil)
	status := func(token wire.Token) int { return r.do(token, "GET", path, "").status }

	require.Equal(t, 401, status(spareToken))
	require.Equal(t, "INVALID_AUTHENTICATION", r.do(wire.Token{}, "GET", path, "").get("category"))
	require.ErrorIs(t, r.AddToken(acme, gammaToken), sandbox.ErrTokenTaken)

	require.NoError(t, r.Rotate(acme, spareToken))
	require.Equal(t, []int{200, 200}, []int{status(acmeToken), status(spareToken)})
	r.CancelRotation(acme)
	require.Equal(t, []int{200, 401}, []int{status(acmeToken), status(spareToken)})
	require.NoError(t, r.Rotate(acme, spareToken))
	r.ExpireOld(acme)
	require.Equal(t, []int{401, 200}, []int{status(acmeToken), status(spareToken)})
	require.Equal(t, spareToken, r.ActiveToken(acme))
	r.RevokeToken(spareToken)
	require.Equal(t, 401, status(spareToken))
	require.Equal(t, 200, status(gammaToken))
}

func TestObservation(t *testing.T) {
	r := start(t, nil)
	r.do(acmeToken, "GET", "/crm/v3/objects/0-1?limit=2", "")
	r.do(gammaToken, "POST", "/crm/v3/objects/deals", `{"properties":{"dealname":"x"}}`)
	r.do(spareToken, "GET", "/nothing%20here", "")
	r.SetFaults(sandbox.Fault{DropBefore: true, Method: "POST"})
	_, err := r.try(acmeToken, "POST", "/crm/v3/objects/contacts/search", `{}`)
	require.Error(t, err)

	got := r.Requests()
	require.Len(t, got, 4)
	require.Equal(t, "/crm/v3/objects/0-1", got[0].Path)
	require.Equal(t, "limit=2", got[0].RawQuery)
	require.Equal(t, acmeToken.Fingerprint(), got[0].TokenFingerprint)
	require.Equal(t, []string{"[token]"}, got[0].Header["Authorization"])
	require.Equal(t, int64(gamma), got[1].PortalID)
	require.Equal(t, int64(31), got[1].BodyBytes)
	require.Equal(t, 201, got[1].Status)
	require.Equal(t, int64(0), got[2].PortalID)
	require.Equal(t, "/nothing%20here", got[2].Target)
	require.True(t, got[3].Search)
	require.Zero(t, got[3].Status)

	c := r.Count()
	require.Equal(t, sandbox.Tally{Arrivals: 4, OK: 2, ClientErrors: 1}, c.Total)
	require.Equal(t, sandbox.Tally{Arrivals: 2, OK: 1}, c.ByPortal[acme])
	require.Equal(t, map[string]int{"GET": 2, "POST": 2}, c.ByMethod)
	require.Equal(t, map[string]int{"contacts": 2, "deals": 1}, c.ByObjectType)
	r.Reset()
	require.Empty(t, r.Requests())
	require.Zero(t, r.Count().Total)
}

func TestKeepRequests(t *testing.T) {
	s := sandbox.New(sandbox.Config{KeepRequests: 3})
	for _, path := range []string{"/a", "/b", "/c", "/d", "/e"} {
		serve(s, "GET", path, wire.Token{})
	}
	var paths []string
	for _, req := range s.Requests() {
		paths = append(paths, req.Path)
	}
	require.Equal(t, []string{"/c", "/d", "/e"}, paths)
	require.Equal(t, 5, s.Count().Total.Arrivals)
}

func TestDemo(t *testing.T) {
	one, two := sandbox.Demo(), sandbox.Demo()
	s := sandbox.New(one)
	seen := map[string]bool{}
	for i, p := range one.Portals {
		require.NoError(t, p.Token.Check())
		require.Equal(t, p.DataHosting, p.Token.Datacenter())
		require.NotEqual(t, p.Token.Reveal(), two.Portals[i].Token.Reveal(), "a new token in each run")
		require.Equal(t, 200, serve(s, "GET", "/account-info/v3/details", p.Token).Code)
		require.Equal(t, p.Contacts, s.Objects(p.ID, "contacts"))
		seen[p.Slug] = true
	}
	require.Equal(t, map[string]bool{"acme-corp": true, "beta-inc": true, "gamma-gmbh": true}, seen)
}
