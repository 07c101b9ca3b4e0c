package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// checkReason refuses what the record cannot keep.
func checkReason(reason string) error {
	switch {
	case len(reason) > wire.MaxReasonBytes:
		return usagef("--reason has %d bytes, the record keeps %d", len(reason), wire.MaxReasonBytes)
	case hasControl(reason):
		return usagef("--reason %s: it has to be one line without control bytes", wire.Quote(reason))
	}
	return nil
}

// methods are those that HubSpot's API uses.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete, http.MethodHead, http.MethodOptions}

// request makes the call of the command line, without its body.
func (o *callOptions) request(args []string) (*wire.CallRequest, error) {
	slugs, err := parseSlugs(args[:1])
	if err != nil {
		return nil, err
	}
	method, err := parseMethod(args[1])
	if err != nil {
		return nil, err
	}
	target, err := parseTarget(args[2], o.query)
	if err != nil {
		return nil, err
	}
	header, err := parseHeaders(o.headers)
	if err != nil {
		return nil, err
	}
	header.Set("User-Agent", "hsctl/"+wire.Version)
	req := &wire.CallRequest{Slug: slugs[0], Method: method, Target: target, Header: header, Reason: o.reason}
	if err := checkReason(o.reason); err != nil {
		return nil, err
	}
	switch {
	case o.wait < 0 || o.timeout < 0:
		return nil, usagef("--wait and --timeout: want a duration that is not negative")
	case o.hasData && len(o.fields) > 0:
		return nil, usagef("-d and -f both make the body: give one of them")
	case o.hasBody() && (method == http.MethodGet || method == http.MethodHead):
		return nil, usagef("%s takes no body: use --query key=value, or another method", method)
	case o.paginate && method != http.MethodGet && (method != http.MethodPost || !isSearch(target)):
		return nil, usagef("--paginate goes with GET, and with POST to a path that ends in /search")
	case o.paginate && o.include:
		return nil, usagef("--paginate and -i: there is no one answer whose headers could be shown")
	}
	if o.noRetry {
		retry := false
		req.Retry = &retry
	}
	if o.hasWait {
		req.Wait = &o.wait
	}
	return req, nil
}

func (o *callOptions) hasBody() bool { return o.hasData || len(o.fields) > 0 }

// parseMethod takes the known methods in any case, and others as they are.
func parseMethod(s string) (string, error) {
	if up := strings.ToUpper(s); slices.Contains(methods, up) {
		return up, nil
	}
	if strings.HasPrefix(s, "/") {
		return "", usagef("method %s looks like a path: want SLUG METHOD PATH, such as acme-corp GET /crm/v3/objects/contacts", wire.Quote(s))
	}
	if !isHeaderName(s) {
		return "", usagef("method %s: want GET, POST, PATCH, PUT, DELETE, HEAD or OPTIONS", wire.Quote(s))
	}
	return s, nil
}

// parseTarget makes the request's target of a path, which may have a query of
// its own, and of --query pairs. It changes nothing in the path: which ones are
// allowed is the agent's business.
func parseTarget(path string, pairs []string) (string, error) {
	if strings.Contains(strings.SplitN(path, "?", 2)[0], "://") {
		return "", usagef("path %s: give the path only, such as /crm/v3/objects/contacts; the agent knows the host", wire.Quote(path))
	}
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f {
			return "", usagef("path %s: write spaces, control bytes and letters outside ASCII percent-encoded, such as %%20", wire.Quote(path))
		}
	}
	if path == "" {
		return "", usagef("the path is empty")
	}
	if path[0] != '/' {
		path = "/" + path
	}
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return "", usagef("--query %s: want key=value", wire.Quote(p))
		}
		path = addQuery(path, k, v)
	}
	return path, nil
}

// addQuery appends an encoded pair to a target.
func addQuery(target, k, v string) string {
	sep := "?"
	if strings.Contains(target, "?") {
		sep = "&"
	}
	// HubSpot's lists read better with their commas, and %20 works everywhere.
	enc := strings.NewReplacer("+", "%20", "%2C", ",")
	return target + sep + enc.Replace(url.QueryEscape(k)) + "=" + enc.Replace(url.QueryEscape(v))
}

// isSearch reports whether the path of a target ends in /search.
func isSearch(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	return strings.HasSuffix(strings.TrimRight(path, "/"), "/search")
}

// ownHeaders are set by HTTP itself.
var ownHeaders = []string{"Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Te", "Trailer", "Upgrade", "Expect"}

// parseHeaders parses 'Name: value' lines.
func parseHeaders(lines []string) (http.Header, error) {
	h := http.Header{}
	for _, line := range lines {
		k, v, ok := strings.Cut(line, ":")
		k, v = http.CanonicalHeaderKey(strings.TrimSpace(k)), strings.TrimSpace(v)
		switch {
		case !ok || !isHeaderName(k) || hasControl(v):
			return nil, usagef("-H %s: want 'Name: value'", wire.Quote(line))
		case slices.Contains(ownHeaders, k):
			return nil, usagef("-H %s: hsctl sets it", k)
		}
		h.Add(k, v)
	}
	return h, nil
}

// isHeaderName reports whether s is a token of HTTP.
func isHeaderName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?={}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// hasControl reports whether s has a byte that a header's value may not have.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// openBody sets the body of req from -d or -f; the caller closes it.
func (o *callOptions) openBody(e *env, req *wire.CallRequest) (io.Closer, error) {
	none := io.NopCloser(nil)
	if !o.hasBody() {
		return none, nil
	}
	if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	name, isFile := strings.CutPrefix(o.data, "@")
	switch {
	case len(o.fields) > 0:
		b, err := fieldsJSON(o.fields)
		if err != nil {
			return nil, err
		}
		req.Body, req.Length = bytes.NewReader(b), int64(len(b))
		return none, nil
	case !isFile:
		req.Body, req.Length = strings.NewReader(o.data), int64(len(o.data))
		return none, nil
	case name == "-":
		// The transport closes what it sends; stdin is not its to close.
		req.Body = io.NopCloser(e.stdin)
		return none, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, &exitError{wire.ExitUsage, fmt.Errorf("-d: %w", err)}
	}
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
		req.Length = st.Size()
	}
	req.Body = f
	return f, nil
}

// fieldsJSON makes a JSON object of key=value fields.
func fieldsJSON(fields []string) ([]byte, error) {
	root := map[string]any{}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return nil, usagef("-f %s: want key=value", wire.Quote(f))
		}
		names := strings.Split(key, ".")
		if slices.Contains(names, "") {
			return nil, usagef("-f %s: a name in the key is empty", wire.Quote(f))
		}
		obj, last := root, len(names)-1
		for _, name := range names[:last] {
			if _, there := obj[name]; !there {
				obj[name] = map[string]any{}
			}
			inner, isObject := obj[name].(map[string]any)
			if !isObject {
				return nil, usagef("-f %s: %s has a value already", wire.Quote(f), wire.Quote(name))
			}
			obj = inner
		}
		if _, there := obj[names[last]]; there {
			return nil, usagef("-f %s: the key has a value already", wire.Quote(f))
		}
		obj[names[last]] = fieldValue(value)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(root); err != nil {
		return nil, fmt.Errorf("encode the fields: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// fieldValue is the JSON that s is, digit by digit, or s as a string.
func fieldValue(s string) any {
	if json.Valid([]byte(s)) {
		return json.RawMessage(s)
	}
	return s
}
