package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/quota"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// A call is one request for one slug on its way through the agent.
type call struct {
	agent  *Agent
	id     string       // UUIDv7
	conn   *guardedConn // that it came on; nil for the agent's own
	caller *chain.Caller
	slug   wire.Slug
	method string
	target hubspot.Target
	path   string // of target, as the record keeps it
	op     hubspot.Op
	header http.Header // that goes on to HubSpot
	body   *upload     // nil for none
	reason string
	rule   string // of the policy, that decided
	policy *loadedPolicy

	confirmedBy string // who said yes or no, where the rule asks for that

	blind bool          // the answer may tell nothing of the slug
	once  bool          // never let an attempt be repeated
	wait  time.Duration // how long the call may wait for another attempt

	cred  *credential  // taken from the keyring once
	grant *quota.Grant // the quota's leave for the attempt at hand

	attempt int       // wire attempts so far
	sent    time.Time // when the attempt at hand began; zero if none is open
	broken  bool      // the last attempt met a bad kept connection and may be repeated at once
}

// serveCall makes a call: from the caller's request to the record of how it
// ended. This is the one path that a call takes.
func (a *Agent) serveCall(w http.ResponseWriter, r *http.Request) {
	c, problem := a.parseCall(r)
	if problem == nil {
		problem = a.permit(c, r)
	}
	if problem == nil {
		problem = a.admit(c, r)
	}
	if problem != nil {
		a.refuse(w, r, c, problem)
		return
	}
	defer c.release()
	ctx := r.Context()
	if problem := a.confirm(ctx, c.cred); problem != nil {
		a.refuse(w, r, c, problem)
		return
	}
	defer c.body.begin(w)()
	resp, problem := c.send(ctx)
	if c.body.unread() {
		w.Header().Set("Connection", "close") // the caller is told that begin's end closes it
	}
	switch {
	case problem != nil && c.attempt == 0:
		a.refuse(w, r, c, problem) // nothing left: there is no intent to end
		return
	case problem != nil:
		c.writeProblem(w, r, problem)
		return
	}
	c.passOn(ctx, w, resp)
}

// parseCall reads what is asked. The call that it returns has a slug as soon
// as one could be read, even beside a problem.
func (a *Agent) parseCall(r *http.Request) (*call, *wire.Problem) {
	c := &call{agent: a, id: newCallID(), conn: connOf(r), caller: connOf(r).audited, method: r.Method}
	slug, rest, err := hubspot.SplitCall(r.RequestURI)
	if err != nil {
		return c, asProblem(err)
	}
	c.slug = slug
	if c.target, err = hubspot.ParseTarget(rest); err != nil {
		c.path = hubspot.RecordRaw(rest)
		return c, asProblem(err)
	}
	c.path, c.op = hubspot.RecordPath(c.target), hubspot.Classify(r.Method, c.target)
	if problem := c.readOptions(r.Header); problem != nil {
		return c, problem
	}
	if c.header, err = hubspot.RequestHeaders(r.Header); err != nil {
		return c, asProblem(err)
	}
	if r.ContentLength != 0 {
		c.body = &upload{src: r.Body, length: r.ContentLength, limit: a.cfg.MaxRequestBytes}
	}
	return c, nil
}

// admit decides without any I/O whether the call may be made, and takes the
// slug's credential.
func (a *Agent) admit(c *call, r *http.Request) *wire.Problem {
	if connOf(r).spare {
		return wire.Errorf(wire.CodeBusy, "the agent has too many connections, and keeps the last few for its status: try again").After(time.Second)
	}
	k := a.keys.Load()
	if k == nil {
		return a.noKeys()
	}
	if c.cred = k.credential(c.slug.String()); c.cred == nil {
		return c.missing(k)
	}
	if c.body != nil && c.body.length > a.cfg.MaxRequestBytes {
		return errTooLarge(a.cfg.MaxRequestBytes)
	}
	return c.take()
}

// send sends the call as soon as the portal's quota has a place for it, again
// where that is safe and worth it, and returns HubSpot's last answer. Of all
// other attempts the outcome is recorded; of all, if it fails.
func (c *call) send(ctx context.Context) (*http.Response, *wire.Problem) {
	deadline := time.Now().Add(c.wait)
	for retry := 1; ; retry++ {
		req := c.request() // before the place and the intent: it may wait for the caller
		problem := c.queue(ctx, deadline)
		if problem != nil {
			return nil, problem
		}
		resp, problem := c.sendOnce(ctx, req)
		delay, again := c.again(resp, problem, retry)
		if !again || delay > 0 && time.Now().Add(delay).After(deadline) || !sleep(ctx, delay) {
			return resp, problem
		}
		if resp != nil {
			kept := newExcerpt(resp)                                  // it may name a portal that is not the slug's
			body, _ := io.ReadAll(io.LimitReader(resp.Body, maxPeek)) // so that the connection can be kept
			kept.add(body)
			_ = resp.Body.Close()
			c.outcome(result{resp: resp, bytes: int64(len(body)), kept: kept})
			if problem := c.cred.identity.stopped(); problem != nil && !c.caller.Agent {
				return nil, problem
			}
		}
	}
}

// sendOnce makes one wire attempt: a connection, the intent, then the first
// byte. Where it returns no answer, the outcome is recorded.
func (c *call) sendOnce(ctx context.Context, req *hubspot.Request) (*http.Response, *wire.Problem) {
	defer c.leave(nil) // whatever happens below, the place is not kept for ever
	c.broken = false
	conn, err := c.cred.lane.pool.Take(ctx)
	if err != nil {
		return nil, c.sendProblem(ctx, err)
	}
	if problem := c.intent(); problem != nil {
		conn.Release()
		return nil, problem
	}
	resp, err := conn.Send(ctx, req, c.cred.Token)
	c.leave(resp)
	c.broken = errors.Is(err, hubspot.ErrUnsent) || c.op.Read && errors.Is(err, hubspot.ErrBroken)
	if err != nil {
		problem := c.sendProblem(ctx, err)
		c.outcome(result{code: problem.Code})
		return nil, problem
	}
	if problem := c.unreadable(resp); problem != nil {
		_ = resp.Body.Close() // nothing of it is used
		c.outcome(result{resp: resp, code: problem.Code})
		return nil, problem
	}
	return resp, nil
}

// request is the call as HubSpot gets it, all but the token.
func (c *call) request() *hubspot.Request {
	req := &hubspot.Request{Method: c.method, Target: c.target, Header: c.header}
	if c.body != nil {
		req.Body, req.Length = c.body.attempt(), c.body.length
	}
	return req
}

// intent makes the record of a wire attempt durable. Until it has returned nil
// nothing may be written to the attempt's connection.
func (c *call) intent() *wire.Problem {
	if problem := c.withdrawn(); problem != nil {
		return problem
	}
	c.attempt++
	// Not the caller's context: when it hangs up now, the intent may already
	// be on its way to the disk and must get its outcome.
	_, err := c.agent.audit.Append(context.Background(), c.record(chain.CallIntent))
	if err != nil {
		return wire.Errorf(wire.CodeAuditUnavailable, "nothing was sent: the call could not be recorded: %v", err)
	}
	if c.grant != nil {
		c.grant.Sent() // the rest of the wait for a place is no part of the attempt
	}
	c.sent = time.Now()
	return nil
}

// passOn passes HubSpot's answer on to the caller and records the outcome when
// the body has ended, whoever ended it.
func (c *call) passOn(ctx context.Context, w http.ResponseWriter, resp *http.Response) {
	body := c.cred.needles.Reader(resp.Body)
	kept := newExcerpt(resp)
	leaked := c.passHeader(w.Header(), resp)
	w.Header().Set(wire.HeaderCallID, c.id)
	if c.body.cut() {
		w.Header().Set("Connection", "close")
	}
	w.WriteHeader(resp.StatusCode)
	ended := func(n int64, code wire.Code) {
		if leaked || body.Leaked() {
			code = wire.CodeLeakMasked
		}
		c.outcome(result{resp: resp, bytes: n, code: code, kept: kept})
	}
	n, code := stream(ctx, w, body, kept, resp.ContentLength, ended)
	_ = resp.Body.Close() // its end, or why it broke, is known
	ended(n, code)
	if leaked || body.Leaked() {
		c.agent.log.Error("HubSpot's answer contained the token; it was masked", "slug", c.slug.String(), "call_id", c.id)
	}
	if code != "" {
		_ = http.NewResponseController(w).Flush() // a broken answer is more than none; the caller may have gone
		panic(http.ErrAbortHandler)               // so that the caller sees a broken answer, not a short one
	}
}

// passHeader copies HubSpot's headers and masks the token in them.
func (c *call) passHeader(h http.Header, resp *http.Response) (leaked bool) {
	for name, values := range hubspot.ResponseHeaders(resp.Header) {
		if c.cred.needles.InName(name) {
			leaked = true
			continue
		}
		for i, v := range values {
			masked, hit := c.cred.needles.MaskString(v)
			values[i] = masked
			leaked = leaked || hit
		}
		h[name] = values
	}
	if h["Content-Type"] == nil {
		h["Content-Type"] = nil // none, rather than one that net/http guesses
	}
	return leaked
}

// A result is how a wire attempt ended.
type result struct {
	resp  *http.Response // nil: no answer
	bytes int64          // of the answer's decoded body
	code  wire.Code      // "": nothing went wrong here
	kept  *excerpt
}

// outcome records how the open attempt ended. Without an open attempt nothing
// has left, and there is nothing to record.
func (c *call) outcome(res result) {
	if c.sent.IsZero() {
		return
	}
	rec := c.record(chain.CallOutcome)
	took, received := time.Since(c.sent).Milliseconds(), res.bytes
	c.sent = time.Time{}
	rec.DurationMs, rec.ResponseBytes, rec.Error = &took, &received, string(res.code)
	sent := c.body.sent()
	rec.RequestBytes = &sent
	if resp := res.resp; resp != nil {
		rec.StatusCode = resp.StatusCode
		rec.CorrelationID = c.clean(resp.Header.Get("X-Hubspot-Correlation-Id"))
		rec.RateLimitRemaining = hubspot.ParseRateLimit(resp.Header).DailyRemaining
	}
	rec.NumErrors = res.kept.numErrors()
	if rec.ObjectID == "" {
		rec.ObjectID = c.clean(res.kept.objectID())
	}
	c.agent.log.LogAttrs(context.Background(), slog.LevelDebug, "call", slog.String("slug", rec.ClientSlug), slog.String("call_id", c.id), slog.String("method", c.method),
		slog.String("path", c.path), slog.Int("status", rec.StatusCode), slog.Int64("took", took), slog.String("code", rec.Error))
	if err := c.agent.audit.AppendLazy(rec); err != nil {
		c.agent.log.Error("outcome not recorded", "slug", c.slug.String(), "call_id", c.id, "error", err)
	}
	c.cred.lane.tally.count(rec.StatusCode)
	c.inspect(res)
}

// record returns the fields that all records of the call share.
func (c *call) record(kind chain.Kind) chain.Record {
	rec := c.agent.event(kind)
	rec.ClientSlug, rec.CallID, rec.Attempt, rec.Method, rec.Path = c.slug.String(), c.id, c.attempt, c.method, c.path
	rec.ObjectType, rec.ObjectID, rec.APIVersion = c.op.ObjectType, c.op.ObjectID, c.op.APIVersion
	rec.Caller, rec.Reason = c.caller, c.reason
	if kind != chain.CallOutcome {
		rec.Rule, rec.ConfirmedBy = c.rule, c.confirmedBy
	}
	if c.cred != nil {
		rec.PortalID, rec.TokenFingerprint, rec.StoreVersion = c.cred.PortalID, c.cred.fingerprint, c.cred.version
	}
	return rec
}

// refuse answers a call that was not made, and records the refusal.
func (a *Agent) refuse(w http.ResponseWriter, r *http.Request, c *call, p *wire.Problem) {
	a.refused.count(p.Code)
	if !c.slug.IsZero() || p.Code == wire.CodeDenied {
		rec := c.record(chain.CallDenied)
		rec.Error = string(p.Code)
		a.recordDenial(r.Context(), rec)
	}
	c.writeProblem(w, r, p)
}

func (c *call) writeProblem(w http.ResponseWriter, r *http.Request, p *wire.Problem) {
	if !c.blind {
		p.CallID = c.id
	}
	if c.body.cut() {
		w.Header().Set("Connection", "close")
	}
	writeProblem(w, r, p)
}

// clean makes a short text of HubSpot's fit for a record.
func (c *call) clean(s string) string {
	masked, _ := c.cred.needles.MaskString(s)
	if len(masked) > 128 {
		masked = masked[:128]
	}
	return wire.MaskTokens(wire.Printable(masked))
}

func newCallID() string {
	id, err := uuid.NewV7()
	if err != nil {
		// The kernel's random source never fails; crypto/rand crashes first.
		return uuid.Nil.String()
	}
	return id.String()
}

// asProblem returns the problem that err is, or an internal one.
func asProblem(err error) *wire.Problem {
	var p *wire.Problem
	if errors.As(err, &p) {
		return p
	}
	return wire.Errorf(wire.CodeInternal, "%v", err)
}

// A gotten is the whole answer to one of the agent's own requests.
type gotten struct {
	status int
	header http.Header
	body   []byte
}

// maxOwnAnswer bounds what is read of an answer to the agent's own requests.
const maxOwnAnswer = 1 << 20

// ask makes a request of the agent's own with the credential, recorded like
// any call. It erases body, which may have a secret in it.
func (a *Agent) ask(ctx context.Context, cred *credential, method, path string, body []byte) (*gotten, *wire.Problem) {
	c := &call{
		agent: a, id: newCallID(), caller: a.selfCaller, slug: cred.Slug, cred: cred,
		method: method, target: hubspot.Target{Path: path}, path: path,
		header: http.Header{"Accept": {"application/json"}}, wait: defaultWait,
	}
	c.op = hubspot.Classify(method, c.target)
	if body != nil {
		c.header.Set("Content-Type", "application/json")
		c.body = ownUpload(body)
		defer c.body.erase()
	}
	resp, problem := c.send(ctx)
	if problem != nil {
		return nil, problem
	}
	b, err := io.ReadAll(io.LimitReader(cred.needles.Reader(resp.Body), maxOwnAnswer))
	_ = resp.Body.Close() // its end, or why it broke, is known
	res := result{resp: resp, bytes: int64(len(b))}
	if err != nil {
		problem = c.sendProblem(ctx, err)
		res.code = problem.Code
	}
	c.outcome(res)
	return &gotten{resp.StatusCode, resp.Header, b}, problem
}
