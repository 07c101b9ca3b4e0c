package agent_test

import (
	"fmt"
	"strings"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
)

// plainStore is the plaintext of a store of these portals, newer than any that
// tests write otherwise.
func plainStore(portals []sandbox.Portal) string {
	entries := make([]string, len(portals))
	for i, p := range portals {
		entries[i] = fmt.Sprintf(`%q: {"token": %q, "portalId": %d, "clientSlug": %q}`, p.Slug, p.Token.Reveal(), p.ID, p.Slug)
	}
	return `{"version": 99, "portals": {` + strings.Join(entries, ", ") + `}}`
}
