package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// ErrUnreachable is what every error wraps that means: no agent answers at
// the socket.
var ErrUnreachable = errors.New("the agent does not answer")

// maxProblem bounds what is read of an error's body.
const maxProblem = 1 << 20

// A Client speaks to the agent at one socket. It is safe for concurrent use.
type Client struct {
	Socket string // path of the Unix socket
	http   http.Client
}

// NewClient returns a client for the socket at path. It does not connect yet.
func NewClient(path string) *Client {
	c := &Client{Socket: path}
	c.http.Transport = exchange{socket: path}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// Close ends the client's use. It keeps no connection open between requests.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// A CallRequest is one call for a slug.
type CallRequest struct {
	Slug   Slug
	Method string
	Target string // path and query as HubSpot wants them, starting with "/"
	Header http.Header
	Body   io.Reader // nil for none
	Length int64     // of Body; -1 or 0 with a body: not known
	Reason string    // kept in the record
	Retry  *bool     // false: send once
	Wait   *time.Duration
}

// Call makes a call and returns the answer whatever its status: HubSpot's if
// [AgentError] says nil, else the agent's own. The caller closes its body. An
// error that wraps [ErrUnreachable] means that no agent was there.
func (c *Client) Call(ctx context.Context, r CallRequest) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, "http://"+Host+"/", r.Body)
	if err != nil {
		return nil, Errorf(CodeBadRequest, "method %s: %v", Quote(r.Method), err)
	}
	// Opaque sends the target as it is: the agent parses it, not this side.
	req.URL.Opaque = "/v1/call/" + r.Slug.String() + r.Target
	if r.Body != nil && r.Length > 0 {
		req.ContentLength = r.Length
	}
	for k, vv := range r.Header {
		req.Header[k] = vv
	}
	if r.Reason != "" {
		req.Header.Set(HeaderReason, r.Reason)
	}
	if r.Retry != nil && !*r.Retry {
		req.Header.Set(HeaderRetry, "off")
	}
	if r.Wait != nil {
		req.Header.Set(HeaderWait, r.Wait.String())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.dialError(err)
	}
	return resp, nil
}

// AgentError returns the agent's own error that resp carries, or nil if resp
// is HubSpot's answer or a success. It reads the body of an error.
func AgentError(resp *http.Response) *Problem {
	code := resp.Header.Get(HeaderError)
	if code == "" {
		return nil
	}
	p := &Problem{}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err == nil {
		err = json.Unmarshal(b, p)
	}
	if err != nil || p.Code == "" {
		p = Errorf(Code(code), "the agent answered %s", resp.Status)
		p.Status = resp.StatusCode
	}
	return p
}

// Do sends in as JSON (nil for no body) to a path of the agent's own API and
// decodes the answer into out (nil to drop it). An error of the agent's own
// comes back as a [*Problem].
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.Stream(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("decode the agent's answer to %s %s: %w", method, path, err)
	}
	return nil
}

// Stream sends body to a path of the agent's own API and returns the answer
// for the caller to read and close. An error of the agent's own comes back as
// a [*Problem].
func (c *Client) Stream(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: Host, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	for try := 1; try < maxTries && method == http.MethodGet && hungUp(err); try++ {
		resp, err = c.http.Do(req)
	}
	if err != nil {
		return nil, c.dialError(err)
	}
	if p := AgentError(resp); p != nil {
		return nil, errors.Join(p, resp.Body.Close())
	}
	if resp.StatusCode/100 != 2 {
		err := fmt.Errorf("%s %s: the program at %s answered %s: is it hsagentd?", method, path, c.Socket, resp.Status)
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp, nil
}

// maxTries is how often a question is asked. A crowded agent closes connections
// whose request has not come for some milliseconds, which on a busy machine may
// be ours.
const maxTries = 3

// hungUp reports whether the agent closed the connection without an answer.
func hungUp(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Status asks how the agent is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	st := new(Status)
	if err := c.Do(ctx, http.MethodGet, "/v1/status", nil, nil, st); err != nil {
		return nil, err
	}
	return st, nil
}

// Portals lists the fleet, sorted by slug.
func (c *Client) Portals(ctx context.Context) ([]Portal, error) {
	var p Portals
	if err := c.Do(ctx, http.MethodGet, "/v1/portals", nil, nil, &p); err != nil {
		return nil, err
	}
	return p.Portals, nil
}

// Portal asks for one portal.
func (c *Client) Portal(ctx context.Context, s Slug) (*Portal, error) {
	p := new(Portal)
	if err := c.Do(ctx, http.MethodGet, "/v1/portals/"+s.String(), nil, nil, p); err != nil {
		return nil, err
	}
	return p, nil
}

// Onboard adds a portal with its token; portalID 0 takes the portal that the
// token opens. With dryRun the token is verified and nothing is written.
func (c *Client) Onboard(ctx context.Context, s Slug, t Token, portalID int64, kind string, dryRun bool) (*Portal, error) {
	q := url.Values{}
	if dryRun {
		q.Set("dryRun", "true")
	}
	p := new(Portal)
	in := PutPortal{Token: t.Reveal(), PortalID: portalID, Kind: kind}
	if err := c.Do(ctx, http.MethodPut, "/v1/portals/"+s.String(), q, in, p); err != nil {
		return nil, err
	}
	return p, nil
}

// CheckToken asks HubSpot which portal a token opens; nothing is stored. With a
// portalID other than 0, a token of another portal is an identity_mismatch.
func (c *Client) CheckToken(ctx context.Context, t Token, portalID int64) (*TokenPortal, error) {
	p := new(TokenPortal)
	if err := c.Do(ctx, http.MethodPost, "/v1/verify", nil, TokenCheck{Token: t.Reveal(), PortalID: portalID}, p); err != nil {
		return nil, err
	}
	return p, nil
}

// Verify asks HubSpot again which portal the slug's token opens.
func (c *Client) Verify(ctx context.Context, s Slug) (*Portal, error) {
	p := new(Portal)
	if err := c.Do(ctx, http.MethodPost, "/v1/portals/"+s.String()+"/verify", nil, nil, p); err != nil {
		return nil, err
	}
	return p, nil
}

// Remove offboards a slug. Its audit records stay.
func (c *Client) Remove(ctx context.Context, s Slug) error {
	return c.Do(ctx, http.MethodDelete, "/v1/portals/"+s.String(), nil, nil, nil)
}

// dialError turns a failure to reach the socket into one that wraps
// ErrUnreachable; a context's end stays as it is.
func (c *Client) dialError(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.Socket, op.Err)
	}
	return fmt.Errorf("%w at %s any more: %w", ErrUnreachable, c.Socket, err)
}
