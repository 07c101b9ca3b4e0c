//go:build !linux

package peer

import "net"

// Digests are of no use here: nobody gets so far.
type Digests struct{}

// NewDigests returns an empty set.
func NewDigests() *Digests { return &Digests{} }

// FromConn fails: see [ErrUnsupported].
func FromConn(*net.UnixConn) (*Caller, error) { return nil, ErrUnsupported }

// Trace finds nothing.
func (c *Caller) Trace(*net.UnixConn, *Digests) {}
