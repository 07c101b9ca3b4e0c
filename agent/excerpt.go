package agent

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/hsagent/hsagentd/agent/hubspot"
)

// maxExcerpt bounds what is kept of an answer to read figures out of it.
const maxExcerpt = 1 << 20

// An excerpt is the kept body of an answer that says something: how many
// inputs of a batch failed (207), which object was created (201), what went
// wrong (4xx), and which portal answered, where the beginning of the body
// looks as if it named one.
type excerpt struct {
	resp *http.Response
	keep bool // known to be wanted
	drop bool // known not to be
	buf  bytes.Buffer
}

func newExcerpt(resp *http.Response) *excerpt {
	s := resp.StatusCode
	return &excerpt{resp: resp, keep: s == http.StatusCreated || s == http.StatusMultiStatus || s/100 == 4}
}

// portalKeys are the keys by which an answer names its portal.
var portalKeys = [][]byte{[]byte(`"portalId"`), []byte(`"hubId"`), []byte(`"hub_id"`)}

// add keeps the next piece of the body if it is wanted. The first piece
// decides for an answer of which only the portal is of interest.
func (e *excerpt) add(b []byte) {
	if e.drop || e.buf.Len() >= maxExcerpt {
		return
	}
	if !e.keep {
		for _, key := range portalKeys {
			e.keep = e.keep || bytes.Contains(b, key)
		}
		if e.drop = !e.keep; e.drop {
			return
		}
	}
	e.buf.Write(b)
}

// numErrors is how many inputs of a batch failed.
func (e *excerpt) numErrors() int {
	if e == nil || e.resp.StatusCode != http.StatusMultiStatus {
		return 0
	}
	return hubspot.NumErrors(e.buf.Bytes())
}

// objectID is the id of the object that a 201 says was created.
func (e *excerpt) objectID() string {
	if e == nil || e.resp.StatusCode != http.StatusCreated {
		return ""
	}
	var v struct {
		ID json.RawMessage `json:"id"`
	}
	if json.Unmarshal(e.buf.Bytes(), &v) != nil {
		return ""
	}
	id := strings.Trim(string(v.ID), `"`)
	if len(id) > 64 || strings.ContainsFunc(id, func(r rune) bool { return r < '0' || r > '9' }) {
		return "" // not an object's number: perhaps a name or an address
	}
	return id
}

// said is what the body says went wrong, and which portals it names.
func (e *excerpt) said() hubspot.APIError {
	if e == nil || e.buf.Len() == 0 {
		return hubspot.APIError{}
	}
	return hubspot.ParseError(e.resp.StatusCode, e.resp.Header.Get("Content-Type"), e.buf.Bytes())
}
