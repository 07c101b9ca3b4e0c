package hubspot

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
)

// An upload sends a request's body in a goroutine of its own, since the answer
// may come before its end. All methods of a nil upload are those of a request
// without a body.
type upload struct {
	conn   *Conn // its rw and socket alone are used
	body   io.Reader
	length int64 // -1: not known
	limit  time.Duration
	done   chan struct{} // closed at the end, after err

	mu       sync.Mutex
	answered bool  // nothing more is to be begun
	last     bool  // the last piece was begun
	whole    bool  // all of it was sent
	source   error // why the connection was cut
}

// Sizes of the pieces in which a body is sent.
const (
	pieceSize = 32 << 10
	framing   = 10 // room for a chunk's size before the data, and for its end
)

var pieces = sync.Pool{New: func() any { return new([framing + pieceSize + 2]byte) }}

var (
	errShort    = errors.New("the request's body is shorter than it was said to be")
	errAnswered = errors.New("HubSpot has answered")
)

func (c *Conn) startUpload(r *Request) *upload {
	u := &upload{conn: c, body: r.Body, length: r.Length, limit: c.pool.headerTimeout, done: make(chan struct{}), last: r.Length == 0}
	go u.run()
	return u
}

// run sends the body. Then the time begins to count in which an answer must
// come. Where the body cannot be read, or HubSpot takes no more of it for too
// long, the connection is cut, so that nobody waits for an answer.
func (u *upload) run() {
	defer close(u.done)
	err := u.send()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.whole = err == nil
	if u.answered {
		return
	}
	if u.source != nil || isTimeout(err) {
		if u.source == nil {
			u.source = err
		}
		u.conn.close()
		return
	}
	// A write that failed otherwise may have an answer that says why.
	_ = u.conn.socket.SetReadDeadline(time.Now().Add(u.limit)) // fails on a closed socket alone
}

// send sends the body piece by piece.
func (u *upload) send() error {
	buf := pieces.Get().(*[framing + pieceSize + 2]byte)
	defer pieces.Put(buf)
	for left := u.length; left != 0; {
		room := buf[framing : framing+pieceSize]
		if left > 0 && left < pieceSize {
			room = room[:left]
		}
		n, rerr := u.body.Read(room)
		if n > 0 {
			piece := room[:n]
			if u.length < 0 {
				piece = asChunk(buf, n)
			} else {
				left -= int64(n)
			}
			err := u.write(piece, left == 0)
			clear(piece) // bodies are nobody's to find in memory: one of ours has a token
			if err != nil {
				return err
			}
		}
		switch {
		case errors.Is(rerr, io.EOF) && left > 0:
			return u.failed(errShort)
		case errors.Is(rerr, io.EOF):
			left = 0
		case rerr != nil && left != 0:
			return u.failed(rerr)
		}
	}
	if u.length < 0 {
		return u.write(lastChunk, true)
	}
	return nil
}

var lastChunk = []byte("0\r\n\r\n")

// write sends a piece, unless HubSpot has answered.
func (u *upload) write(piece []byte, last bool) error {
	u.mu.Lock()
	answered := u.answered
	u.last = last && !answered
	u.mu.Unlock()
	if answered {
		return errAnswered
	}
	if _, err := u.conn.rw.Write(piece); err != nil {
		return fmt.Errorf("send the body: %w", err)
	}
	return nil
}

// asChunk frames the n bytes behind buf's first ones as a chunk.
func asChunk(buf *[framing + pieceSize + 2]byte, n int) []byte {
	var size [framing]byte
	s := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
	start := framing - len(s)
	copy(buf[start:], s)
	end := framing + n + copy(buf[framing+n:], "\r\n")
	return buf[start:end]
}

// failed notes that the body's source is why the upload ends.
func (u *upload) failed(err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.source = err
	return err
}

// stop says that the answer is there: what is not on its way is not sent.
func (u *upload) stop() {
	if u != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.answered = true
	}
}

// sent reports whether the whole body was sent, and the goroutine that sent it
// is at its end. Where the answer was quicker than the end of the last write,
// it waits a moment for that.
func (u *upload) sent() bool {
	if u == nil {
		return true
	}
	u.mu.Lock()
	last := u.last
	u.mu.Unlock()
	if !last {
		return false
	}
	t := time.NewTimer(maxLag)
	defer t.Stop()
	select {
	case <-u.done:
		return u.whole
	case <-t.C:
		return false
	}
}

// maxLag is how much later than the answer the last write may end.
const maxLag = 50 * time.Millisecond

// failure is why the upload has cut the connection, or nil.
func (u *upload) failure() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.source
}
