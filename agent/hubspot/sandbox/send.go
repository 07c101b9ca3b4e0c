package sandbox

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// gzipFloor is the size from which an answer is worth compressing.
const gzipFloor = 1024

// dress gives an answer the headers that every answer of HubSpot has. Search
// endpoints have no rate-limit headers.
func (x *exchange) dress(a *answer) {
	h := a.header
	id := h.Get("X-HubSpot-Correlation-Id")
	if id == "" {
		id = newUUID()
		h.Set("X-HubSpot-Correlation-Id", id)
	}
	h.Set("X-Request-Id", id)
	if x.budget != nil && !x.target.search() {
		x.budget.setHeader(h)
	}
	ray := strings.ReplaceAll(newUUID(), "-", "")
	h.Set("CF-Ray", ray[:16]+"-IAD")
	h.Set("CF-Cache-Status", "DYNAMIC")
	h.Set("Server", "cloudflare")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains; preload")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Access-Control-Allow-Credentials", "false")
	h.Add("Vary", "origin, Accept-Encoding")
	h.Add("Set-Cookie", "__cf_bm="+ray+"; path=/; domain=.hubapi.com; HttpOnly; Secure; SameSite=None")
}

// send writes a whole answer.
func (x *exchange) send(w http.ResponseWriter, a *answer) {
	x.drain()
	x.dress(a)
	if len(a.body) > gzipFloor && acceptsGzip(x.r.Header) {
		a.header.Set("Content-Encoding", "gzip")
		a.body = gzipped(a.body)
	}
	maps.Copy(w.Header(), a.header)
	if a.status != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	if x.r.Method != http.MethodHead && len(a.body) > 0 {
		_, _ = w.Write(a.body) // a client that has gone reads no answer
	}
}

// drain reads what is left of the request's body, so that it is counted and
// the connection can be used again.
func (x *exchange) drain() { _, _ = io.Copy(io.Discard, x.body) }

func acceptsGzip(h http.Header) bool {
	for part := range strings.SplitSeq(h.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if name == "gzip" && strings.ReplaceAll(q, " ", "") != "q=0" {
			return true
		}
	}
	return false
}

var gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

func gzipped(body []byte) []byte {
	var b bytes.Buffer
	zw := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(zw)
	zw.Reset(&b)
	_, _ = zw.Write(body) // a bytes.Buffer takes everything
	_ = zw.Close()
	return b.Bytes()
}
