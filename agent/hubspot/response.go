package hubspot

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// Limits of an answer's head.
const (
	maxAnswerHead = 64 << 10 // all of it, with what is informal before it
	maxInformal   = 5        // heads of status 1xx before the answer's own
)

// receive reads the answer to r up to its body.
func (c *Conn) receive(r *Request) (*http.Response, error) {
	resp, err := readHead(c.buf)
	if err != nil {
		return nil, err
	}
	keep, err := frame(resp, r.Method)
	if err != nil {
		return nil, err
	}
	c.upload.stop()
	c.socket.patient = true
	if !hasBody(resp.StatusCode, r.Method) || resp.ContentLength == 0 {
		resp.Body = http.NoBody
		c.end(keep) // nothing may touch it from here on
		return resp, nil
	}
	b := &body{conn: c, src: c.buf.in, left: resp.ContentLength, keep: keep}
	if resp.TransferEncoding != nil {
		b.src = newChunked(c.buf.in)
	}
	resp.Body = b
	if enc := resp.Header["Content-Encoding"]; r.asksGzip() && len(enc) == 1 && strings.EqualFold(enc[0], "gzip") {
		delete(resp.Header, "Content-Encoding")
		delete(resp.Header, "Content-Length")
		resp.ContentLength, resp.Uncompressed = -1, true
		resp.Body = &gunzipped{body: b}
	}
	return resp, nil
}

// readHead reads heads until one is an answer's: those of status 1xx announce
// one, apart from 101, which switches protocols and ends HTTP.
func readHead(buf *buffers) (*http.Response, error) {
	limit := maxAnswerHead
	for range maxInformal + 1 {
		text, err := readText(buf, limit)
		if err != nil {
			return nil, err
		}
		limit -= len(text)
		resp, err := parseHead(text)
		if err != nil || resp.StatusCode > 199 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
	return nil, InvalidError("HubSpot announced an answer too often")
}

// readText reads a head of at most limit bytes, with the empty line at its
// end. Every line must end in CR LF.
func readText(buf *buffers, limit int) (string, error) {
	head := buf.head[:0]
	for {
		line, err := buf.in.ReadSlice('\n')
		head = append(head, line...)
		buf.head = head
		switch {
		case len(head) > limit:
			return "", InvalidError("the answer's header is longer than 64 KiB")
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil:
			return "", brokenOff(err)
		case !bytes.HasSuffix(head, []byte("\r\n")):
			return "", InvalidError("a line of the answer's header ends in a bare line feed")
		case len(head) == 2:
			return "", InvalidError("the answer begins with an empty line")
		case bytes.HasSuffix(head, []byte("\r\n\r\n")):
			return string(head), nil
		}
	}
}

// parseHead parses a head of whole lines. It is stricter than net/http: what
// two parsers could read differently is refused.
func parseHead(text string) (*http.Response, error) {
	status, fields, _ := strings.Cut(text, "\r\n")
	resp, err := parseStatus(status)
	if err != nil {
		return nil, err
	}
	lines := strings.Count(fields, "\r\n") - 1 // less the empty one
	values := make([]string, 0, lines)         // one allocation for all
	resp.Header = make(http.Header, lines)
	for {
		var line string
		if line, fields, _ = strings.Cut(fields, "\r\n"); line == "" {
			return resp, nil
		}
		as, value, ok := cutField(line)
		if !ok {
			return nil, InvalidError("a line of the answer's header is malformed")
		}
		name := canonical[as]
		if name == "" {
			name = textproto.CanonicalMIMEHeaderKey(as)
		}
		if earlier := resp.Header[name]; earlier != nil {
			resp.Header[name] = append(earlier, value)
			continue
		}
		values = append(values, value)
		at := len(values) - 1
		resp.Header[name] = values[at : at+1 : at+1]
	}
}

// canonical has the names that HubSpot's answers spell in their own way, so
// that a copy in the common spelling need not be made of each again.
var canonical = func() map[string]string {
	m := map[string]string{}
	for _, name := range []string{
		"X-HubSpot-Correlation-Id", "X-HubSpot-Auth-Failure", "X-HubSpot-NotFound",
		"X-HubSpot-RateLimit-Daily", "X-HubSpot-RateLimit-Daily-Remaining",
		"X-HubSpot-RateLimit-Interval-Milliseconds", "X-HubSpot-RateLimit-Max", "X-HubSpot-RateLimit-Remaining",
		"X-HubSpot-RateLimit-Secondly", "X-HubSpot-RateLimit-Secondly-Remaining",
	} {
		m[name] = textproto.CanonicalMIMEHeaderKey(name)
		m[strings.ToLower(name)] = m[name]
	}
	return m
}()

// cutField cuts a line of a head into name and value.
func cutField(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, ":")
	value = strings.Trim(value, " \t")
	return name, value, ok && isToken(name) && isFieldValue(value)
}

// parseStatus parses a status line.
func parseStatus(line string) (*http.Response, error) {
	resp := &http.Response{ProtoMajor: 1}
	version, status, _ := strings.Cut(line, " ")
	switch version {
	case "HTTP/1.1":
		resp.ProtoMinor = 1
	case "HTTP/1.0":
	default:
		return nil, InvalidError("the answer is no HTTP/1.1")
	}
	code, _, _ := strings.Cut(status, " ")
	n, err := strconv.ParseUint(code, 10, 16)
	if err != nil || len(code) != 3 || n < 100 || !isFieldValue(status) {
		return nil, InvalidError("the answer's status line is malformed")
	}
	resp.Proto, resp.Status, resp.StatusCode = version, status, int(n)
	return resp, nil
}

// frame decides how long the answer's body is (RFC 9112, 6.3) and whether the
// connection can be kept behind it. Framing that could be read in two ways is
// refused, wherever it stands.
func frame(resp *http.Response, method string) (keep bool, err error) {
	lengths, codings := resp.Header["Content-Length"], resp.Header["Transfer-Encoding"]
	resp.ContentLength = -1
	switch {
	case codings != nil && (lengths != nil || resp.ProtoMinor == 0 || len(codings) != 1 || !strings.EqualFold(codings[0], "chunked")):
		return false, InvalidError("the answer's Transfer-Encoding is not chunked alone")
	case codings != nil:
		resp.TransferEncoding = []string{"chunked"}
		delete(resp.Header, "Transfer-Encoding")
	case lengths != nil:
		n, ok := digits(lengths[0])
		if len(lengths) != 1 || !ok {
			return false, InvalidError("the answer's Content-Length is given twice or is no plain number")
		}
		resp.ContentLength = n
	}
	resp.Close = resp.ProtoMinor == 0 || connectionNamed(resp.Header)["Close"]
	switch resp.StatusCode {
	case http.StatusSwitchingProtocols, http.StatusRequestTimeout: // the latter may be about no request at all
		resp.Close = true
	}
	if hasBody(resp.StatusCode, method) {
		resp.Close = resp.Close || lengths == nil && codings == nil // its end is the connection's
	} else if method != http.MethodHead {
		resp.ContentLength = 0
	}
	return !resp.Close, nil
}

// hasBody reports whether an answer has a body, be it an empty one.
func hasBody(status int, method string) bool {
	return method != http.MethodHead && status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// brokenOff says that an answer ended too early, or why it was given up.
func brokenOff(err error) error {
	switch {
	case isTimeout(err):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return InvalidError("it broke off")
	default:
		return InvalidError("it broke off: " + err.Error())
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
