package agent

import (
	"bytes"
	"container/list"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hsagent/hsagentd/agent/peer"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// maxHeadLine bounds one line of a request's head or of chunked framing.
const maxHeadLine = 64 << 10

// A guardedConn is one caller's connection. It watches the raw bytes for
// framing that two HTTP parsers could read differently, which net/http
// accepts: Content-Length beside Transfer-Encoding, a header given twice that
// must stand once, folded lines, bare line feeds, signs in numbers. The
// handler refuses every request of a connection on which such was seen; in the
// middle of a body, reading fails.
//
// It keeps in step with net/http by following the bodies too: a request that
// is hidden in a body is never taken for a head, nor the other way round.
type guardedConn struct {
	net.Conn
	unix    *net.UnixConn // the same
	agent   *Agent
	caller  *peer.Caller  // traced before the first read
	audited *chain.Caller // caller as records keep it, from then on; never changed
	doors   *doors        // nil: not counted

	// Of doors, under its lock.
	waits   *list.Element // while no request is at work
	waiting time.Time     // since when
	gone    bool          // closed for another connection
	left    bool          // not counted any more
	spare   bool          // for all but calls; set once

	made     time.Time
	readOnly bool // of the socket that it came on

	buf   []byte                 // net/http's own, through which it reads heads and the beginning of bodies
	fault atomic.Pointer[string] // what was wrong, once something was
	asked atomic.Bool            // a whole head was read since the last request was served
	scan  framing                // used by whoever reads: net/http reads one at a time
}

var errFraming = errors.New("the request's body is framed ambiguously")

// Close closes the connection and makes room for another.
func (c *guardedConn) Close() error {
	if c.doors != nil {
		c.doors.leave(c)
	}
	return c.Conn.Close()
}

// Read reads from the caller and follows the framing.
func (c *guardedConn) Read(b []byte) (int, error) {
	if c.buf == nil {
		c.buf = b[:cap(b)] // the first read is one of the buffer's whole length
		c.agent.trace(c.caller, c.unix)
		c.audited = auditCaller(c.caller)
	}
	n, err := c.Conn.Read(b)
	if c.fault.Load() != nil {
		return n, err
	}
	inBody := c.scan.state != inHead
	what := c.scan.feed(b[:n])
	if c.scan.heads > 0 {
		c.scan.heads = 0
		c.asked.Store(true)
	}
	if what != "" {
		c.fault.Store(&what)
		if inBody && c.scan.state != inHead {
			return 0, errFraming
		}
	}
	return n, err
}

// asks reports whether a request is there that was not served yet, or the
// beginning of one that was not even read.
func (c *guardedConn) asks() bool {
	return c.asked.Load() || receive(c.unix, unix.MSG_PEEK) > 0
}

// receive takes what has arrived, up to some KiB, without waiting for more, and
// returns how many bytes that is.
func receive(conn *net.UnixConn, flags int) (n int) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	buf := make([]byte, 4<<10)
	defer clear(buf) // a token may be on its way in
	// Not raw.Read, which waits for whoever reads at the moment.
	cerr := raw.Control(func(fd uintptr) { n, _, err = unix.Recvfrom(int(fd), buf, flags|unix.MSG_DONTWAIT) })
	if cerr != nil || err != nil {
		return 0
	}
	return n
}

// hungUp reports whether the caller has closed its end. net/http does not notice
// that before it has read the request's body.
func (c *guardedConn) hungUp() bool {
	raw, err := c.unix.SyscallConn()
	if err != nil {
		return true
	}
	var polled [1]unix.PollFd
	cerr := raw.Control(func(fd uintptr) {
		polled[0].Fd = int32(fd) //nolint:gosec // a descriptor is small
		_, err = unix.Poll(polled[:], 0)
	})
	return cerr != nil || err == nil && polled[0].Revents&unix.POLLHUP != 0
}

// eraseBuffer erases what was read of the connection and is still in net/http's
// buffer, which goes to another connection later on. It is for the goroutine
// that handles a request; nothing can be read of the connection afterwards.
func (c *guardedConn) eraseBuffer() { clear(c.buf) }

// framed returns what was wrong with the connection's framing, or "".
func (c *guardedConn) framed() string {
	if p := c.fault.Load(); p != nil {
		return *p
	}
	return ""
}

type framingState int

const (
	inHead framingState = iota
	inFixed
	inChunkSize
	inChunkData
	inChunkEnd
	inTrailer
)

// framing follows the HTTP/1.1 framing of a stream of requests.
type framing struct {
	state framingState
	line  []byte // of the head or the chunk framing, so far
	left  int64  // bytes of the body or the chunk

	heads   int  // that have ended; whoever feeds sets it back
	lines   int  // of this head
	http11  bool // says its first line
	hosts   int
	length  int64 // -1: no Content-Length
	chunked bool
}

// feed follows b and returns what is wrong with it, or "".
func (f *framing) feed(b []byte) string {
	for len(b) > 0 {
		switch f.state {
		case inFixed, inChunkData:
			n := min(int64(len(b)), f.left)
			f.left -= n
			b = b[n:]
			switch {
			case f.left > 0:
			case f.state == inFixed:
				f.state = inHead
			default:
				f.state = inChunkEnd
			}
			continue
		}
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			i = len(b) - 1
		}
		f.line = append(f.line, b[:i+1]...)
		b = b[i+1:]
		if len(f.line) > maxHeadLine {
			return "a line is too long"
		}
		if f.line[len(f.line)-1] != '\n' {
			return "" // the rest of the line is still to come
		}
		line, ok := bytes.CutSuffix(f.line, []byte("\r\n"))
		if !ok {
			return "a line ends in a bare line feed"
		}
		if bytes.ContainsAny(line, "\r\x00") {
			return "a line has a bare carriage return or a NUL byte"
		}
		if what := f.take(line); what != "" {
			return what
		}
		f.line = f.line[:0]
	}
	return ""
}

// take handles one whole line.
func (f *framing) take(line []byte) string {
	switch f.state {
	case inHead:
		return f.takeHead(line)
	case inChunkSize:
		size, _, _ := strings.Cut(string(line), ";")
		n, err := strconv.ParseUint(strings.TrimRight(size, " \t"), 16, 62)
		if err != nil {
			return "a chunk's size is no hexadecimal number"
		}
		f.left, f.state = int64(n), inChunkData
		if n == 0 {
			f.state = inTrailer
		}
	case inChunkEnd:
		if len(line) != 0 {
			return "a chunk is longer than its size"
		}
		f.state = inChunkSize
	case inTrailer:
		if len(line) == 0 {
			f.state = inHead
		}
	}
	return ""
}

func (f *framing) takeHead(line []byte) string {
	f.lines++
	if f.lines == 1 {
		f.hosts, f.length, f.chunked = 0, -1, false
		f.http11 = bytes.HasSuffix(line, []byte(" HTTP/1.1"))
		return ""
	}
	if len(line) == 0 {
		return f.endHead()
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	switch {
	case line[0] == ' ' || line[0] == '\t':
		return "a header is folded over several lines"
	case !ok || len(name) == 0 || bytes.ContainsAny(name, " \t"):
		return "a header line has no name, or a space before its colon"
	}
	value = bytes.Trim(value, " \t")
	switch {
	case is(name, "host"):
		f.hosts++
	case is(name, "content-length"):
		n, err := strconv.ParseUint(string(value), 10, 62)
		if err != nil || f.length >= 0 {
			return "Content-Length is given twice or is no plain number"
		}
		f.length = int64(n)
	case is(name, "transfer-encoding"):
		if !is(value, "chunked") || f.chunked {
			return "Transfer-Encoding is given twice or is something other than chunked"
		}
		if !f.http11 {
			return "Transfer-Encoding is given with another version than HTTP/1.1" // net/http does not heed it then
		}
		f.chunked = true
	}
	return ""
}

// is reports whether b is s, whatever the case of its letters. That no other
// letters pass for ASCII ones, their lengths see to.
func is(b []byte, s string) bool {
	return len(b) == len(s) && bytes.EqualFold(b, []byte(s))
}

func (f *framing) endHead() string {
	f.lines = 0
	f.heads++
	switch {
	case f.hosts != 1:
		return "the Host header is missing or given twice"
	case f.chunked && f.length >= 0:
		return "Content-Length and Transfer-Encoding are both given"
	case f.chunked:
		f.state = inChunkSize
	case f.length > 0:
		f.left, f.state = f.length, inFixed
	}
	return ""
}
