package sandbox

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// trailerName is where the echo "trailer" goes.
const trailerName = "X-Sandbox-Echo"

// play answers a request as the fault wants it. To cut a connection it panics
// with [http.ErrAbortHandler], which is net/http's own way to do so.
func (f *Fault) play(w http.ResponseWriter, x *exchange) {
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-x.r.Context().Done():
		}
	}
	if f.Commit {
		x.answer() // done, and told to nobody
	}
	var a *answer
	switch {
	case f.DropBefore:
		panic(http.ErrAbortHandler)
	case f.Hang:
		x.drain() // so that the server notices when the client hangs up
		<-x.r.Context().Done()
		panic(http.ErrAbortHandler)
	case f.Raw != nil:
		f.writeRaw(w, x)
		return
	case f.replaces():
		a = f.answer(x)
	default:
		a = x.answer()
	}
	x.drain()
	x.dress(a)
	for name, values := range f.Header {
		a.header[http.CanonicalHeaderKey(name)] = x.fillAll(values)
	}
	f.echo(x, a)
	f.encode(x, a)
	f.write(w, x, a)
}

// replaces reports whether the fault has an answer of its own.
func (f *Fault) replaces() bool {
	return f.Status != 0 || f.Body != "" || f.Fill > 0 || f.Redirect != ""
}

// answer makes the fault's own answer. Errors that the API itself would send
// carry the rate-limit headers; those of the edge do not.
func (f *Fault) answer(x *exchange) *answer {
	status := f.Status
	switch {
	case status == 0 && f.Redirect != "":
		status = http.StatusFound
	case status == 0:
		status = http.StatusOK
	}
	a := x.ofStatus(status, f.Policy)
	if status <= 500 {
		x.peek()
	}
	if f.Body != "" {
		a.body = []byte(x.fill(f.Body))
	}
	if f.Fill > 0 {
		a.body = nil
		a.header.Set("Content-Type", "application/octet-stream")
	}
	if f.Redirect != "" {
		a.header.Set("Location", x.fill(f.Redirect))
	}
	return a
}

func (x *exchange) fill(s string) string { return strings.ReplaceAll(s, TokenPlaceholder, x.bearer) }

func (x *exchange) fillAll(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = x.fill(v)
	}
	return out
}

func (f *Fault) echo(x *exchange, a *answer) {
	switch f.EchoToken {
	case "":
	case "header":
		a.header.Set("X-Echo-Authorization", "Bearer "+x.bearer)
	case "trailer":
		a.header.Add("Trailer", trailerName)
	default:
		a.body = []byte(`{"echo":"` + echoed(f.EchoToken, x.bearer) + `","results":[]}`)
		a.header.Set("Content-Type", "application/json;charset=utf-8")
	}
}

// echoed writes the token in one of the ways that EchoToken names; an unknown
// way is the plain one.
func echoed(way, token string) string {
	each := func(format string) string {
		var b strings.Builder
		for i := range len(token) {
			fmt.Fprintf(&b, format, token[i])
		}
		return b.String()
	}
	switch way {
	case "json-escape":
		return each(`\u%04x`)
	case "base64":
		return base64.StdEncoding.EncodeToString([]byte(token))
	case "base64url":
		return base64.RawURLEncoding.EncodeToString([]byte(token))
	case "percent":
		return strings.ReplaceAll(url.QueryEscape(token), "-", "%2D")
	case "percent-all":
		return each("%%%02X")
	case "hex":
		return hex.EncodeToString([]byte(token))
	case "upper":
		return strings.ToUpper(token)
	case "reverse":
		b := []byte(token)
		slices.Reverse(b)
		return string(b)
	}
	return token
}

func (f *Fault) encode(x *exchange, a *answer) {
	usual := f.EchoToken == "" && f.Encoding == "" && len(a.body) > gzipFloor && acceptsGzip(x.r.Header)
	switch {
	case f.Gzip && f.Cut > 0:
		a.body, f.Cut = gzippedInTwo(a.body, f.Cut)
		a.header.Set("Content-Encoding", "gzip")
	case f.Gzip || usual:
		a.body = gzipped(a.body)
		a.header.Set("Content-Encoding", "gzip")
	}
	if f.Encoding != "" {
		a.header.Set("Content-Encoding", f.Encoding)
	}
}

// gzippedInTwo gzips a body so that its first bytes can be decoded before the
// others have come, and says how many bytes that takes.
func gzippedInTwo(body []byte, cut int64) (zipped []byte, first int64) {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	_, _ = zw.Write(body[:cut]) // a bytes.Buffer takes everything
	_ = zw.Flush()
	first = int64(b.Len())
	_, _ = zw.Write(body[cut:])
	_ = zw.Close()
	return b.Bytes(), first
}

// write sends the answer piece by piece, and cuts it where the fault says.
func (f *Fault) write(w http.ResponseWriter, x *exchange, a *answer) {
	if f.EarlyHints {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
	}
	rc := http.NewResponseController(w)
	flush := func() { _ = rc.Flush() } // a recorder or a lost client cannot be flushed
	maps.Copy(w.Header(), a.header)
	size := int64(len(a.body))
	if f.Fill > 0 {
		size = f.Fill
	}
	if f.Chunked || f.EchoToken == "trailer" {
		w.Header().Del("Content-Length")
	} else if a.status >= 200 && a.status != http.StatusNoContent && a.status != http.StatusNotModified {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	}
	w.WriteHeader(a.status)
	if f.DropAfterHeaders {
		flush()
		panic(http.ErrAbortHandler)
	}
	if x.r.Method == http.MethodHead {
		return
	}
	var body io.Reader = bytes.NewReader(a.body)
	if f.Fill > 0 {
		body = io.LimitReader(filler{}, f.Fill)
	}
	if f.Truncate > 0 && f.Truncate < size {
		body = io.LimitReader(body, f.Truncate)
	}
	f.copy(w, x, body, flush)
	if f.Truncate > 0 && f.Truncate < size {
		flush()
		panic(http.ErrAbortHandler)
	}
	if f.EchoToken == "trailer" {
		w.Header().Set(trailerName, x.bearer)
	}
}

// copy writes the body in the steps that the fault asks for.
func (f *Fault) copy(w io.Writer, x *exchange, body io.Reader, flush func()) {
	step, flushing := 32<<10, f.Chunked
	switch {
	case f.Trickle > 0 || f.EchoToken == "split":
		step, flushing = 1, true
	case f.Chunked:
		step = 1 << 10
	}
	buf := make([]byte, max(step, int(f.Cut)))
	piece := buf[:step]
	if f.Cut > 0 {
		piece, flushing = buf[:f.Cut], true
	}
	for {
		n, err := io.ReadFull(body, piece)
		piece = buf[:step]
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return // the client has gone
			}
			if flushing {
				flush()
			}
		}
		if err != nil {
			return
		}
		if f.Trickle > 0 {
			select {
			case <-time.After(f.Trickle):
			case <-x.r.Context().Done():
				return
			}
		}
	}
}

// writeRaw takes the connection over and answers with the fault's bytes alone.
func (f *Fault) writeRaw(w http.ResponseWriter, x *exchange) {
	x.drain()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = conn.Write([]byte(x.fill(string(f.Raw)))) // the client may have gone
	_ = conn.Close()
}

// filler is endless text.
type filler struct{}

func (filler) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "0123456789abcdef"[i%16]
	}
	return len(p), nil
}
