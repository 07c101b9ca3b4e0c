package hubspot

import (
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"net/http/httputil"
	"strings"
	"sync"
)

// A body is the body of an answer as it arrives. At its end, however it ends,
// it gives up its connection.
type body struct {
	conn *Conn
	src  io.Reader
	left int64 // of its length; -1: src or the connection tells the end
	keep bool  // the connection may serve again
	err  error // how it has ended
}

var errClosed = errors.New("the answer's body was closed")

// Read reads the next bytes. The last ones of a body of known length come
// with io.EOF.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.left >= 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.src.Read(p)
	if b.left >= 0 {
		if b.left -= int64(n); b.left == 0 {
			err = io.EOF
		} else if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	}
	switch err {
	case nil:
		return n, nil
	case io.EOF: // wrapped, it would be no end
		b.finish(io.EOF)
	default:
		b.finish(brokenOff(err))
	}
	return n, b.err
}

// Close gives up what was not read.
func (b *body) Close() error {
	if b.err == nil {
		b.finish(errClosed)
	}
	return nil
}

func (b *body) finish(err error) {
	b.err = err
	b.conn.end(b.keep && err == io.EOF) //nolint:errorlint // it is the one that Read has set
}

// chunked decodes a chunked body and passes over its trailers.
type chunked struct {
	in     *bufio.Reader
	chunks io.Reader
}

func newChunked(in *bufio.Reader) *chunked {
	return &chunked{in: in, chunks: httputil.NewChunkedReader(in)}
}

// Read returns io.EOF when the trailers were read too.
func (c *chunked) Read(p []byte) (int, error) {
	n, err := c.chunks.Read(p)
	if err == io.EOF { //nolint:errorlint // the reader's own, never wrapped
		err = c.skipTrailers()
	}
	return n, err
}

// maxTrailers bounds the trailers, which nobody reads.
const maxTrailers = 4 << 10

// skipTrailers reads to the empty line behind the last chunk.
func (c *chunked) skipTrailers() error {
	for total := 0; ; {
		line, err := c.in.ReadSlice('\n') // at most the reader's buffer
		total += len(line)
		text, whole := strings.CutSuffix(string(line), "\r\n")
		_, _, isField := cutField(text)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return errTrailers
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case whole && text == "":
			return io.EOF
		case !whole || total > maxTrailers || !isField:
			return errTrailers
		}
	}
}

var errTrailers = errors.New("its trailers are malformed or too long")

// gunzipped is the decoded form of a body that gzip was asked for.
type gunzipped struct {
	body *body
	zip  *unzipper // nil before the first Read, and after the end
	err  error
}

// An unzipper is what decoding needs: 40 KiB, worth keeping.
type unzipper struct {
	in *bufio.Reader
	gz gzip.Reader
}

var unzippers = sync.Pool{New: func() any { return &unzipper{in: bufio.NewReader(nil)} }}

// Read decodes the next bytes.
func (g *gunzipped) Read(p []byte) (n int, err error) {
	if g.err != nil {
		return 0, g.err
	}
	if g.zip == nil {
		g.zip = unzippers.Get().(*unzipper)
		g.zip.in.Reset(g.body)
		err = g.zip.gz.Reset(g.zip.in)
	}
	if err == nil {
		n, err = g.zip.gz.Read(p)
	}
	switch {
	case err == nil:
		return n, nil
	case g.body.err == nil:
		g.err = InvalidError("it is no gzip")
	case g.body.err != io.EOF: //nolint:errorlint // the body's own, never wrapped
		g.err = g.body.err
	case err == io.EOF: //nolint:errorlint // wrapped, it is no end
		g.err = io.EOF
	default:
		g.err = InvalidError("it is no gzip, or broke off")
	}
	g.release()
	return n, g.err
}

// Close gives up what was not read.
func (g *gunzipped) Close() error {
	if g.err == nil {
		g.err = errClosed
	}
	g.release()
	return g.body.Close()
}

func (g *gunzipped) release() {
	if g.zip != nil {
		g.zip.in.Reset(nil)
		unzippers.Put(g.zip)
		g.zip = nil
	}
}
