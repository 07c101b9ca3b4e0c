//go:build !linux

package peer

import "net"

// FromConn fails: see [ErrUnsupported].
func FromConn(*net.UnixConn) (*Caller, error) { return nil, ErrUnsupported }
