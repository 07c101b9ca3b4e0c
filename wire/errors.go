package wire

import (
	"fmt"
	"net/http"
	"time"
)

// A Code is the stable word for one kind of error of the agent's own. Scripts
// may rely on it; the text beside it may change.
type Code string

// The codes, each with the status and the exit code that [Code.Status] and
// [Code.Exit] give it.
const (
	CodeBadRequest           Code = "bad_request"
	CodeDenied               Code = "denied"
	CodeConfirmationRequired Code = "confirmation_required"
	CodeBadPassphrase        Code = "bad_passphrase"
	CodeUnknownPortal        Code = "unknown_portal"
	CodeNotFound             Code = "not_found"
	CodeMethodNotAllowed     Code = "method_not_allowed"
	CodeConflict             Code = "conflict"
	CodeIdentityMismatch     Code = "identity_mismatch"
	CodeTokenRejected        Code = "token_rejected"
	CodeScopeMissing         Code = "scope_missing"
	CodeLocked               Code = "locked"
	CodeThrottled            Code = "throttled"
	CodeQuotaExhausted       Code = "quota_exhausted"
	CodePortalQuarantined    Code = "portal_quarantined"
	CodePortalUnverified     Code = "portal_unverified"
	CodePortalRejected       Code = "portal_rejected"
	CodePortalParked         Code = "portal_parked"
	CodeUpstreamUnreachable  Code = "upstream_unreachable"
	CodeUpstreamInvalid      Code = "upstream_invalid"
	CodeUpstreamTimeout      Code = "upstream_timeout"
	CodeAuditUnavailable     Code = "audit_unavailable"
	CodeTooLarge             Code = "too_large"
	CodeBusy                 Code = "busy"
	CodeInternal             Code = "internal"

	// CodeClientAbort and CodeLeakMasked stand in audit records only: the
	// caller hung up, and a token in an answer was masked.
	CodeClientAbort Code = "client_abort"
	CodeLeakMasked  Code = "leak_masked"
)

// Exit codes of hsctl.
const (
	ExitOK               = 0
	ExitFailed           = 1
	ExitUsage            = 2
	ExitHubSpot4xx       = 4
	ExitHubSpot5xx       = 5
	ExitUnreachable      = 6
	ExitLocked           = 7
	ExitDenied           = 8
	ExitUnknownPortal    = 9
	ExitQuarantined      = 10
	ExitThrottled        = 11
	ExitAuditUnavailable = 12
	ExitVerification     = 13
	ExitInterrupted      = 130
)

var codeTable = map[Code]struct{ status, exit int }{
	CodeBadRequest:           {http.StatusBadRequest, ExitUsage},
	CodeDenied:               {http.StatusForbidden, ExitDenied},
	CodeConfirmationRequired: {http.StatusForbidden, ExitDenied},
	CodeBadPassphrase:        {http.StatusForbidden, ExitLocked},
	CodeUnknownPortal:        {http.StatusNotFound, ExitUnknownPortal},
	CodeNotFound:             {http.StatusNotFound, ExitFailed},
	CodeMethodNotAllowed:     {http.StatusMethodNotAllowed, ExitFailed},
	CodeConflict:             {http.StatusConflict, ExitFailed},
	CodeIdentityMismatch:     {http.StatusUnprocessableEntity, ExitVerification},
	CodeTokenRejected:        {http.StatusUnprocessableEntity, ExitVerification},
	CodeScopeMissing:         {http.StatusUnprocessableEntity, ExitVerification},
	CodeLocked:               {http.StatusLocked, ExitLocked},
	CodeThrottled:            {http.StatusTooManyRequests, ExitThrottled},
	CodeQuotaExhausted:       {http.StatusTooManyRequests, ExitThrottled},
	CodePortalQuarantined:    {http.StatusConflict, ExitQuarantined},
	CodePortalUnverified:     {http.StatusConflict, ExitQuarantined},
	CodePortalRejected:       {http.StatusConflict, ExitQuarantined},
	CodePortalParked:         {http.StatusServiceUnavailable, ExitThrottled},
	CodeUpstreamUnreachable:  {http.StatusBadGateway, ExitHubSpot5xx},
	CodeUpstreamInvalid:      {http.StatusBadGateway, ExitHubSpot5xx},
	CodeUpstreamTimeout:      {http.StatusGatewayTimeout, ExitHubSpot5xx},
	CodeAuditUnavailable:     {http.StatusServiceUnavailable, ExitAuditUnavailable},
	CodeTooLarge:             {http.StatusRequestEntityTooLarge, ExitUsage},
	CodeBusy:                 {http.StatusServiceUnavailable, ExitFailed},
	CodeInternal:             {http.StatusInternalServerError, ExitFailed},
}

// Status is the HTTP status that carries the code; 500 for an unknown code.
func (c Code) Status() int {
	if e, ok := codeTable[c]; ok {
		return e.status
	}
	return http.StatusInternalServerError
}

// Exit is the exit code of hsctl for the code; 1 for an unknown code.
func (c Code) Exit() int {
	if e, ok := codeTable[c]; ok {
		return e.exit
	}
	return ExitFailed
}

// Headers of the protocol.
const (
	Host           = "hsagent"         // the request's Host; "localhost" is taken too
	HeaderError    = "Hsagent-Error"   // the code, on errors of the agent's own
	HeaderCallID   = "Hsagent-Call-Id" // on every answer of HubSpot's
	HeaderReason   = "Hsagent-Reason"  // free text that the record keeps
	HeaderRetry    = "Hsagent-Retry"   // "off": send once
	HeaderWait     = "Hsagent-Wait"    // how long the call may queue for quota
	ProblemType    = "application/problem+json"
	NDJSONType     = "application/x-ndjson"
	MaxReasonBytes = 1024
)

// A Problem is the body of an error of the agent's own (RFC 9457).
type Problem struct {
	Type   string `json:"type"`   // "urn:hsagent:error:<code>"
	Title  string `json:"title"`  // the status in words
	Status int    `json:"status"` // the HTTP status
	Detail string `json:"detail"` // what happened, to what, what to do next
	Code   Code   `json:"code"`

	CallID     string   `json:"callId,omitempty"`     // where a call was refused or broke off
	RetryAfter int      `json:"retryAfter,omitempty"` // seconds, as the header Retry-After
	Similar    []string `json:"similar,omitempty"`    // slugs close to an unknown one
}

// Error is the detail after the code.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// Errorf returns the problem of code c with a formatted detail.
func Errorf(c Code, format string, args ...any) *Problem {
	return &Problem{
		Type:   "urn:hsagent:error:" + string(c),
		Title:  http.StatusText(c.Status()),
		Status: c.Status(),
		Detail: MaskTokens(fmt.Sprintf(format, args...)),
		Code:   c,
	}
}

// After sets how long the client should wait before it tries again, rounded
// up to whole seconds.
func (p *Problem) After(d time.Duration) *Problem {
	p.RetryAfter = int((d + time.Second - 1) / time.Second)
	return p
}
