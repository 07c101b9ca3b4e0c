package secret

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
)

// Bytes are a secret of a fixed length. They show themselves as "[secret]" in
// every formatter and refuse to be marshalled. The nil *Bytes are no bytes.
type Bytes struct {
	b     []byte
	slot  []byte
	fated runtime.Cleanup // gives the slot back when nobody holds the Bytes
}

// New returns n bytes, all zero.
func New(n int) *Bytes {
	if n == 0 {
		return nil
	}
	slot := pages.take(n)
	s := &Bytes{b: slot[:n:n], slot: slot}
	s.fated = runtime.AddCleanup(s, pages.give, slot)
	return s
}

// Copy returns a copy of b, which stays its owner's to erase.
func Copy(b []byte) *Bytes {
	s := New(len(b))
	if s != nil {
		copy(s.b, b)
	}
	return s
}

// Expose shows the bytes to f, which must neither keep nor copy them.
func (s *Bytes) Expose(f func(b []byte)) {
	if s == nil {
		f(nil)
		return
	}
	f(s.b)
	runtime.KeepAlive(s) // else they could be erased under f
}

// Erase erases the bytes now, for an owner who shares them with nobody. There
// are none afterwards.
func (s *Bytes) Erase() {
	if s == nil || s.b == nil {
		return
	}
	s.fated.Stop()
	pages.give(s.slot)
	s.b, s.slot = nil, nil
}

// Len is how many bytes they are.
func (s *Bytes) Len() int {
	if s == nil {
		return 0
	}
	return len(s.b)
}

// Format shows "[secret]" whatever the verb.
func (s *Bytes) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "[secret]") // a fmt.State keeps no error
}

// LogValue shows "[secret]" in slog.
func (s *Bytes) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText always fails.
func (s *Bytes) MarshalText() ([]byte, error) {
	return nil, errors.New("a secret cannot be marshalled")
}
