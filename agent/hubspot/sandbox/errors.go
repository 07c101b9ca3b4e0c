package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// apiError is HubSpot's error body. Which members stand in it differs by error.
type apiError struct {
	Status        string              `json:"status"`
	Message       string              `json:"message"`
	CorrelationID string              `json:"correlationId"`
	Category      string              `json:"category,omitempty"`
	SubCategory   string              `json:"subCategory,omitempty"`
	ErrorType     string              `json:"errorType,omitempty"`
	PolicyName    string              `json:"policyName,omitempty"`
	GroupName     string              `json:"groupName,omitempty"`
	RequestID     string              `json:"requestId,omitempty"`
	Errors        []errorDetail       `json:"errors,omitempty"`
	Context       map[string][]string `json:"context,omitempty"`
}

type errorDetail struct {
	Message string              `json:"message"`
	Code    string              `json:"code,omitempty"`
	Context map[string][]string `json:"context,omitempty"`
}

// refusal makes an error answer. The correlation ID in its header is the one
// of its body.
func refusal(status int, e apiError) *answer {
	e.Status = "error"
	e.CorrelationID = newUUID()
	a := reply(status, e)
	a.header.Set("X-HubSpot-Correlation-Id", e.CorrelationID)
	return a
}

// reply makes a JSON answer.
func reply(status int, v any) *answer {
	body, err := json.Marshal(v)
	if err != nil {
		// Only a bug of the sandbox can bring this about: let it show.
		status, body = http.StatusInternalServerError, []byte(strconv.Quote(err.Error()))
	}
	return &answer{status: status, header: http.Header{"Content-Type": {"application/json;charset=utf-8"}}, body: body}
}

func noContent() *answer { return &answer{status: http.StatusNoContent, header: http.Header{}} }

func (x *exchange) unauthenticated() *answer {
	msg := "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more details at https://developers.hubspot.com/docs/methods/auth/oauth-overview"
	if x.bearer != "" {
		msg = "Invalid authentication: the access token is expired, revoked or of another kind."
	}
	return refusal(http.StatusUnauthorized, apiError{Message: msg, Category: "INVALID_AUTHENTICATION"})
}

func missingScopes(scopes ...string) *answer {
	return refusal(http.StatusForbidden, apiError{
		Message:  "This app hasn't been granted all required scopes to make this call.",
		Category: "MISSING_SCOPES",
		Errors: []errorDetail{{
			Message: "One or more of the following scopes are required.",
			Context: map[string][]string{"requiredGranularScopes": scopes},
		}},
	})
}

// notThere is the answer to a path that the API does not have.
func notThere() *answer {
	return refusal(http.StatusNotFound, apiError{Message: "resource not found"})
}

func objectNotFound(what string) *answer {
	return refusal(http.StatusNotFound, apiError{Message: what, Category: "OBJECT_NOT_FOUND"})
}

func invalid(format string, args ...any) *answer {
	return refusal(http.StatusBadRequest, apiError{Message: fmt.Sprintf(format, args...), Category: "VALIDATION_ERROR"})
}

func notAllowed() *answer {
	return refusal(http.StatusMethodNotAllowed, apiError{Message: "HTTP 405 Method Not Allowed"})
}

func badJSON(err error) *answer {
	return invalid("Invalid input JSON: %v", err)
}

// tooMany is a 429. Only the burst limit's body names the portal, at the end
// of its groupName.
func (x *exchange) tooMany(policy string) *answer {
	e := apiError{ErrorType: "RATE_LIMIT", PolicyName: policy}
	switch policy {
	case policyDaily:
		e.Message = "You have reached your daily limit."
		e.RequestID = newUUID()
	case policySecondly:
		e.Message = "You have reached your secondly limit."
	default:
		e.PolicyName = policyBurst
		e.Message = "You have reached your ten_secondly_rolling limit."
		if x.access != nil {
			e.GroupName = fmt.Sprintf("publicapi:%s:%d", "private-apps-api-calls-burst", x.access.portal.cfg.ID)
		}
	}
	return refusal(http.StatusTooManyRequests, e)
}

// ofStatus is the answer that HubSpot, or the edge before it, gives with a
// status for no reason of the request's own.
func (x *exchange) ofStatus(status int, policy string) *answer {
	switch status {
	case http.StatusUnauthorized:
		return x.unauthenticated()
	case http.StatusForbidden:
		return missingScopes("crm.objects.contacts.read")
	case http.StatusNotFound:
		return notThere()
	case http.StatusLocked:
		return refusal(status, apiError{Message: "The resource is locked by another request. Try again in 2 seconds."})
	case http.StatusTooManyRequests:
		return x.tooMany(policy)
	case 477: // the body is not documented, Retry-After in seconds is
		a := refusal(status, apiError{Message: "Migration in progress"})
		a.header.Set("Retry-After", "60")
		return a
	case http.StatusInternalServerError:
		return refusal(status, apiError{Message: "internal error"})
	}
	if status > 500 {
		return edgeError(status)
	}
	if status < 400 {
		return reply(status, struct{}{})
	}
	return refusal(status, apiError{Message: "HTTP " + strconv.Itoa(status)})
}

// edgeError is the page of the content network in front of the API.
func edgeError(status int) *answer {
	body := fmt.Sprintf("<!DOCTYPE html>\n<html lang=\"en-US\">\n<head><title>api.hubapi.com | %[1]d: %[2]s</title></head>\n"+
		"<body>\n<h1>Error %[1]d</h1>\n<p>%[2]s</p>\n</body>\n</html>\n", status, edgeText(status))
	return &answer{status: status, header: http.Header{"Content-Type": {"text/html; charset=UTF-8"}}, body: []byte(body)}
}

func edgeText(status int) string {
	switch status {
	case 521:
		return "Web server is down"
	case 522:
		return "Connection timed out"
	case 523:
		return "Origin is unreachable"
	case 524:
		return "A timeout occurred"
	case 525:
		return "SSL handshake failed"
	case 526:
		return "Invalid SSL certificate"
	}
	return http.StatusText(status)
}
