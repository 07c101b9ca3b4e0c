package hubspot

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// A socket is the TCP connection under TLS, with what TLS has no words for:
// look whether something has come without waiting for it, send several records
// in one packet, and bound each wait.
type socket struct {
	net.Conn
	fd      syscall.RawConn
	listen  func(uintptr) // listenTo, made once
	silent  bool          // what listenTo has found
	peeking bool          // a Read takes nothing: see peek
	pause   time.Duration // a Write waits so long at most, and a Read while patient
	patient bool          // a Read waits for pause; otherwise until the deadline that is set

	corked bool   // a Write goes to out
	out    []byte // TLS records: of no use to who reads this memory
}

// maxOut is how much room for records an idle connection keeps.
const maxOut = 4 << 10

func newSocket(c net.Conn) (*socket, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T has no file descriptor", c)
	}
	fd, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take the socket's descriptor: %w", err)
	}
	s := &socket{Conn: c, fd: fd}
	s.listen = s.listenTo
	return s, nil
}

// Read reads what has come, or waits for it.
func (s *socket) Read(b []byte) (int, error) {
	if s.peeking {
		return 0, s.peek()
	}
	if s.patient {
		if err := s.SetReadDeadline(time.Now().Add(s.pause)); err != nil {
			return 0, err
		}
	}
	return s.Conn.Read(b)
}

// Write sends b, or keeps it until the socket is uncorked.
func (s *socket) Write(b []byte) (int, error) {
	if s.corked {
		s.out = append(s.out, b...)
		return len(b), nil
	}
	if s.pause > 0 {
		if err := s.SetWriteDeadline(time.Now().Add(s.pause)); err != nil {
			return 0, err
		}
	}
	return s.Conn.Write(b)
}

// uncork sends what was kept, all at once.
func (s *socket) uncork() error {
	s.corked = false
	_, err := s.Write(s.out)
	if s.out = s.out[:0]; cap(s.out) > maxOut {
		s.out = nil
	}
	return err
}

var errHeard = errors.New("something came on an idle connection, or its end")

// peek returns os.ErrDeadlineExceeded, which TLS takes for a passing trouble,
// if nothing has come and the connection still stands; otherwise errHeard.
func (s *socket) peek() error {
	s.silent = false
	if err := s.fd.Control(s.listen); err != nil || !s.silent {
		return errHeard
	}
	return os.ErrDeadlineExceeded
}

// listenTo notes whether a read of the descriptor would have to wait.
func (s *socket) listenTo(fd uintptr) {
	var one [1]byte
	n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	s.silent = n <= 0 && errors.Is(err, syscall.EAGAIN)
}
