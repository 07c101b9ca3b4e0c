package agent

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// A tokenBody is a request's body that brings a token. Where it is read nothing
// makes a copy of the token but wire.Token, in secret memory.
type tokenBody struct {
	Slug     string     `json:"slug"`
	Token    wire.Token `json:"token"`
	PortalID int64      `json:"portalId"`
	Kind     string     `json:"kind"`
}

// Keys of the bodies that bring a token.
var (
	putKeys    = []string{"token", "portalId", "kind"}
	checkKeys  = []string{"token", "portalId"}
	rotateKeys = []string{"token"}
	rowKeys    = []string{"slug", "token", "portalId", "kind"}
)

var errBody = errors.New("no JSON object of the right keys")

// decodeExactly is json.Unmarshal, which makes no copy of what is not decoded,
// and refuses keys that are not known. A json.Decoder does too, but copies.
func decodeExactly(b []byte, v any, keys []string) error {
	var found map[string]passedOver
	if err := json.Unmarshal(b, &found); err != nil {
		return errBody
	}
	for key := range found {
		if !slices.ContainsFunc(keys, func(k string) bool { return strings.EqualFold(k, key) }) {
			return errBody
		}
	}
	if err := json.Unmarshal(b, v); err != nil {
		return errBody
	}
	return nil
}

// passedOver takes any JSON and keeps nothing of it.
type passedOver struct{}

func (passedOver) UnmarshalJSON([]byte) error { return nil }

// readSecret is readJSON for a body with a secret in it: what the body was read
// through is erased, and the connection closed behind the answer.
func readSecret(w http.ResponseWriter, r *http.Request, v any, keys ...string) *wire.Problem {
	defer eraseRead(w, r)()
	b, p := readBody(w, r)
	defer clear(b)
	switch {
	case p != nil:
		return p
	case len(b) == 0:
		return nil
	case decodeExactly(b, v, keys) != nil:
		return wire.Errorf(wire.CodeBadRequest, "the request's body is not the JSON object that this path takes")
	}
	return nil
}

// eraseRead says that the request brings a secret. What it returns erases the
// buffer through which net/http has read it. Whatever else was in there is lost:
// nothing can follow on the connection.
func eraseRead(w http.ResponseWriter, r *http.Request) (erase func()) {
	w.Header().Set("Connection", "close")
	return connOf(r).eraseBuffer
}

// readBody reads a whole body. It is the caller's to erase.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *wire.Problem) {
	body := http.MaxBytesReader(w, r.Body, maxAPIBody)
	size := int64(4 << 10)
	if r.ContentLength >= 0 {
		size = min(r.ContentLength, maxAPIBody) + 1 // one more, to see the end
	}
	b := make([]byte, 0, size)
	for {
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		var tooLong *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			return b, nil
		case errors.As(err, &tooLong):
			return b, wire.Errorf(wire.CodeTooLarge, "the request's body has more than %d bytes", maxAPIBody)
		case err != nil:
			return b, wire.Errorf(wire.CodeBadRequest, "the request's body is not the JSON object that this path takes")
		}
		if len(b) == cap(b) { // of a chunked body
			more := append(make([]byte, 0, 2*cap(b)), b...)
			clear(b)
			b = more
		}
	}
}
