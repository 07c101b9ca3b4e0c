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
}

// ErrUnsupported is returned where the system does not tell who the peer is.
var ErrUnsupported = errors.New("this system does not tell who is on the other end of a socket")

// InGroup reports whether the caller has the group gid.
func (c *Caller) InGroup(gid int) bool {
	return c.GID == gid || slices.Contains(c.Groups, gid)
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
