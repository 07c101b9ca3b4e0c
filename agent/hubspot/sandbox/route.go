package sandbox

import (
	"io"
	"mime"
	"net/http"
	"slices"
)

// maxBody is the largest body that the JSON endpoints take.
const maxBody = 16 << 20

// route finds who answers a request that has been let in.
func (x *exchange) route() *answer {
	t := x.target
	switch {
	case t.is("account-info", "details"):
		return x.only(http.MethodGet, "oauth", x.details)
	case t.is("account-info", "api-usage", "daily", "private-apps"):
		return x.only(http.MethodGet, "oauth", x.dailyUsage)
	case t.is("crm", "owners"):
		return x.only(http.MethodGet, "crm.objects.owners.read", x.owners)
	case t.is("files", "files"):
		return x.only(http.MethodPost, "files", x.upload)
	case len(t.seg) >= 3 && t.under("crm", "objects"):
		return x.objects()
	}
	return notThere()
}

// only lets one method and the bearers of a scope through to next.
func (x *exchange) only(method, scope string, next func() *answer) *answer {
	if x.r.Method != method {
		return notAllowed()
	}
	if refused := x.requireScope(scope); refused != nil {
		return refused
	}
	return next()
}

func (x *exchange) requireScope(scope string) *answer {
	if !slices.Contains(x.access.portal.cfg.Scopes, scope) {
		return missingScopes(scope)
	}
	return nil
}

// readBody reads a JSON body whole.
func (x *exchange) readBody() ([]byte, *answer) {
	mt, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil || mt != "application/json" {
		return nil, refusal(http.StatusUnsupportedMediaType, apiError{Message: "HTTP 415 Unsupported Media Type"})
	}
	raw, err := io.ReadAll(io.LimitReader(x.body, maxBody+1))
	if err != nil {
		return nil, invalid("The request's body ended early.")
	}
	if len(raw) > maxBody {
		return nil, refusal(http.StatusRequestEntityTooLarge, apiError{Message: "HTTP 413 Request Entity Too Large"})
	}
	return raw, nil
}
