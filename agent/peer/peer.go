package peer

import (
	"errors"
	"os/user"
	"slices"
	"strconv"
	"sync"
)

// A Caller is the process that made a connection.
type Caller struct {
	UID    int
	GID    int
	Groups []int // supplementary
	PID    int   // 0 if it is outside our pid namespace
	User   string
	Exe    string // advisory; "" if it cannot be read
	Unit   string // systemd unit; advisory; "" if there is none
	Traced bool   // Unit was read while the process provably lived

	digest *digest // nil: nobody asked for it, or it cannot be had
}

// SHA256 returns the digest of the caller's executable in hexadecimal, or ""
// if it is not known. It waits while the file is being read, which happens once
// for each executable.
func (c *Caller) SHA256() string {
	if c.digest == nil {
		return ""
	}
	<-c.digest.done
	return c.digest.sum
}

// ErrUnsupported is returned where the system does not tell who the peer is.
var ErrUnsupported = errors.New("this system does not tell who is on the other end of a socket")

// InGroup reports whether the caller has the group gid.
func (c *Caller) InGroup(gid int) bool {
	return c.GID == gid || slices.Contains(c.Groups, gid)
}

// A digest is known once done is closed; "" if the file could not be read.
type digest struct {
	done chan struct{}
	sum  string
}

// userNames remembers names: looking one up reads /etc/passwd.
var userNames sync.Map // int -> string

// userName returns the name of uid, or "" if it has none.
func userName(uid int) string {
	if n, ok := userNames.Load(uid); ok {
		return n.(string)
	}
	name := ""
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		name = u.Username
	}
	userNames.Store(uid, name)
	return name
}
