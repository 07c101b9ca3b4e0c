package agent

import (
	"io"
	"net/http"

	"github.com/hsagent/hsagentd/wire"
)

// getCheckpoint answers with a signed checkpoint over all records so far.
func (a *Agent) getCheckpoint(w http.ResponseWriter, r *http.Request, _ apiRequest) *wire.Problem {
	note, err := a.audit.Checkpoint(r.Context())
	if err != nil {
		return wire.Errorf(wire.CodeAuditUnavailable, "no checkpoint: %v", err)
	}
	writeText(w, note)
	return nil
}

// getAuditKey answers with the verifier key of the checkpoints.
func (a *Agent) getAuditKey(w http.ResponseWriter, _ *http.Request, _ apiRequest) *wire.Problem {
	key := a.audit.Key()
	if key == "" {
		return wire.Errorf(wire.CodeAuditUnavailable, "this log has no key")
	}
	writeText(w, key+"\n")
	return nil
}

// writeText answers with plain text.
func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, text) // the caller may have gone
}
