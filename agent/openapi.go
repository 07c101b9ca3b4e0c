package agent

import (
	_ "embed"
	"net/http"

	"github.com/hsagent/hsagentd/wire"
)

// openAPI describes the whole API. It is written by hand: a test compares its
// paths with the table of routes, its codes with wire's, and its schemas with
// the types that are encoded.
//
//go:embed openapi.json
var openAPI []byte

func (a *Agent) getOpenAPI(w http.ResponseWriter, _ *http.Request, _ apiRequest) *wire.Problem {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // the caller may have gone
	return nil
}
