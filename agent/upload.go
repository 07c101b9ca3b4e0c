package agent

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// maxReplay is how much of a body is kept so that it can be sent again. A
// longer body is streamed all the same, but sent once: a thousand uploads at
// once must not fill the memory.
const maxReplay = 256 << 10

var (
	errUpload   = errors.New("the body could not be read from the caller")
	errBadBody  = errors.New("the body is not framed as HTTP/1.1 frames one")
	errTooLong  = errors.New("the body is longer than upstream.max_request_bytes")
	errUploaded = errors.New("the attempt has ended")
)

// An upload is a call's body on its way to HubSpot: it counts what was read of
// the caller, stops at the limit, and keeps the beginning for another attempt.
type upload struct {
	length int64 // -1: not known
	limit  int64

	read  atomic.Int64 // of src
	begun atomic.Bool  // src was read
	whole atomic.Bool  // src was read to its end
	over  atomic.Bool  // more was read than is kept
	ended atomic.Bool  // nothing more is read of src

	// mu is held while the caller is read, which may take long: it may still
	// be read for an attempt that was given up.
	mu   sync.Mutex
	src  io.Reader
	end  error  // that src returned
	kept []byte // of what was read, while it is all of it
	part *part  // of the attempt at hand
}

// A part is the body as one attempt reads it.
type part struct {
	*upload
	at int // how much it has taken of what is kept
}

// ownUpload is a body of the agent's own, which it owns from then on.
func ownUpload(body []byte) *upload {
	u := &upload{length: int64(len(body)), limit: int64(len(body)), kept: body, end: io.EOF}
	u.read.Store(u.length)
	u.begun.Store(true)
	u.whole.Store(true)
	return u
}

// erase erases what is kept. No attempt reads anything more.
func (u *upload) erase() {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(u.kept)
	u.kept, u.part = nil, nil
}

// begin lets HubSpot's answer start while the body is still being read, and
// returns what ends that: where HubSpot answered before it had the whole body,
// the caller is not waited for.
func (u *upload) begin(w http.ResponseWriter) (end func()) {
	if u == nil {
		return func() {}
	}
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex() // HTTP/1.1 has it
	return func() {
		// First the deadline: a read that waits for the caller holds the lock.
		// One that is about to begin sees that it must not, or is seen here.
		u.ended.Store(true)
		if u.cut() {
			_ = rc.SetReadDeadline(time.Unix(1, 0)) // the connection is of no more use
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		u.part = nil
	}
}

// cut reports whether the body was begun and not read to its end: nothing can
// follow it on the caller's connection. One that was not begun is net/http's to
// pass over.
func (u *upload) cut() bool { return u != nil && u.begun.Load() && !u.whole.Load() }

// attempt returns the body for the next attempt. The one before reads nothing
// more: where it is in the middle of that, attempt waits for the caller.
func (u *upload) attempt() io.Reader {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.part = &part{upload: u}
	return u.part
}

// replayable reports whether the body can be sent from its beginning.
func (u *upload) replayable() bool { return u == nil || !u.over.Load() }

// unread reports whether the caller has sent, or may still send, more than was
// read.
func (u *upload) unread() bool { return u != nil && !u.whole.Load() }

// sent is how many bytes were read of the caller; 0 where there is no body.
func (u *upload) sent() int64 {
	if u == nil {
		return 0
	}
	return u.read.Load()
}

// hungUp reports whether the caller of whose body err came has gone, or is not
// waited for any more.
func hungUp(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, http.ErrBodyReadAfterClose)
}

// Read gives the attempt what is kept, then what the caller sends.
func (p *part) Read(b []byte) (int, error) {
	u := p.upload
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.part != p:
		return 0, errUploaded
	case p.at < len(u.kept):
		n := copy(b, u.kept[p.at:])
		p.at += n
		return n, nil
	case u.end != nil:
		return 0, u.end
	}
	u.begun.Store(true)
	if u.ended.Load() {
		return 0, errUploaded
	}
	n, err := u.src.Read(b)
	switch total := u.read.Add(int64(n)); {
	case total > u.limit:
		n, err = 0, errTooLong
	case errors.Is(err, io.EOF) || total == u.length:
		u.whole.Store(true)
	case hungUp(err):
		err = errors.Join(errUpload, err)
	case err != nil:
		err = errors.Join(errBadBody, err)
	}
	u.end = err
	if !u.over.Load() && len(u.kept)+n <= maxReplay {
		u.kept = append(u.kept, b[:n]...)
	} else {
		u.kept = nil
		u.over.Store(true)
	}
	p.at = len(u.kept)
	return n, err
}
