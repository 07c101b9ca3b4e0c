package agent

import (
	"container/list"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// Bounds of connections. What a caller holds open costs memory and
// descriptors, which all callers share.
const (
	maxConns     = 512 // of one user
	spareConns   = 16  // more, of who may manage: for all but calls
	spareFDs     = 64  // that stay free, or a quarter of all if that is less
	recountAfter = time.Second

	// settle is how long a connection has for its request before another one
	// may take its place. Until then accepting waits, so it is short: what has
	// sent its request, and was not served yet, is not asked to go.
	settle = 5 * time.Millisecond

	// maxAsking bounds the look for a connection that has not sent its request.
	maxAsking = 16
)

// doors bounds the connections. Where there are too many, the one that has
// waited longest without a request is closed for the new one: a client that
// sends its request at once gets in whatever others leave hanging. Where all
// are at work, the new one is refused, save a few of who may manage the agent:
// its status can always be asked for.
type doors struct {
	open func() (used, limit int) // descriptors of the process

	mu      sync.Mutex
	conns   map[int]int        // by uid
	idle    map[int]*list.List // of *guardedConn by uid, who waits longest first
	all     int
	used    int // descriptors when last counted
	limit   int
	counted time.Time
	since   int // connections opened since then
}

func newDoors() *doors {
	return &doors{open: openFDs, conns: map[int]int{}, idle: map[int]*list.List{}}
}

// enter admits a connection, or says why not. It closes others for it.
func (d *doors) enter(c *guardedConn, manages bool) *wire.Problem {
	for {
		evicted, wait, problem := d.tryEnter(c, manages)
		for _, e := range evicted {
			_ = e.Conn.Close() // its place is taken
		}
		if wait <= 0 {
			return problem
		}
		time.Sleep(wait)
	}
}

// tryEnter returns the connections to close, and how long to wait before the
// next try.
func (d *doors) tryEnter(c *guardedConn, manages bool) (evicted []*guardedConn, wait time.Duration, p *wire.Problem) {
	d.mu.Lock()
	defer d.mu.Unlock()
	uid := c.caller.UID
	short, full := d.shortLocked(), d.conns[uid] >= maxConns
	for range 4 { // a call takes two descriptors
		if !full && !short {
			break
		}
		e, wait := d.evictLocked(uid, !full)
		if wait > 0 {
			return evicted, wait, nil
		}
		if e == nil {
			break
		}
		evicted = append(evicted, e)
		short, full = d.shortLocked(), d.conns[uid] >= maxConns
	}
	switch {
	case !full && !short:
	case manages && d.conns[uid] < maxConns+spareConns:
		c.spare = true
	case full:
		return evicted, 0, wire.Errorf(wire.CodeBusy, "user %s has %d connections at work, the most there may be: end some, or wait", nameOf(c.caller), d.conns[uid]).After(time.Second)
	default:
		return evicted, 0, wire.Errorf(wire.CodeBusy, "the agent has %d of %d file descriptors open: wait, or raise LimitNOFILE of its unit", d.used, d.limit).After(time.Second)
	}
	c.doors = d
	d.conns[uid]++
	d.all++
	d.since++
	d.waitLocked(c)
	return evicted, 0, nil
}

// shortLocked reports whether descriptors run short. One is set aside for each
// connection: a call needs another one, to HubSpot.
func (d *doors) shortLocked() bool {
	spare := min(spareFDs, max(d.limit, 16)/4)
	if now := time.Now(); d.limit == 0 || d.since >= spare/4 || now.Sub(d.counted) > recountAfter {
		d.used, d.limit = d.open()
		d.counted, d.since = now, 0
		spare = min(spareFDs, max(d.limit, 16)/4)
	}
	return d.limit-d.used-d.since-d.all < spare
}

// evictLocked takes the connection of uid that waits longest, or, with anyone,
// of the user with most. It returns how long to wait if that one is too young.
func (d *doors) evictLocked(uid int, anyone bool) (*guardedConn, time.Duration) {
	l := d.idle[uid]
	if anyone {
		for _, other := range d.idle {
			if l == nil || other.Len() > l.Len() {
				l = other
			}
		}
	}
	for range maxAsking {
		if l == nil || l.Len() == 0 {
			break
		}
		c := l.Front().Value.(*guardedConn)
		now := time.Now()
		if wait := settle - now.Sub(c.waiting); wait > 0 {
			return nil, wait
		}
		if c.asks() { // nobody has got round to it yet
			l.MoveToBack(c.waits)
			c.waiting = now
			continue
		}
		l.Remove(c.waits)
		c.waits = nil
		c.gone = true
		d.since-- // its descriptor is about to be closed
		d.leaveLocked(c)
		return c, 0
	}
	return nil, 0
}

func (d *doors) waitLocked(c *guardedConn) {
	uid := c.caller.UID
	if d.idle[uid] == nil {
		d.idle[uid] = list.New()
	}
	c.waits, c.waiting = d.idle[uid].PushBack(c), time.Now()
}

func (d *doors) leaveLocked(c *guardedConn) {
	if c.left {
		return
	}
	c.left = true
	uid := c.caller.UID
	d.all--
	if d.conns[uid]--; d.conns[uid] == 0 {
		delete(d.conns, uid)
		delete(d.idle, uid)
	}
}

// leave counts a connection out.
func (d *doors) leave(c *guardedConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.waits != nil {
		d.idle[c.caller.UID].Remove(c.waits)
		c.waits = nil
	}
	d.leaveLocked(c)
}

// work marks a connection that has a request, and reports whether it is still
// there. The returned function marks that it waits again.
func (d *doors) work(c *guardedConn) (done func(), ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.gone || c.left {
		return nil, false
	}
	if c.waits != nil {
		d.idle[c.caller.UID].Remove(c.waits)
		c.waits = nil
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !c.left {
			c.asked.Store(false)
			d.waitLocked(c)
		}
	}, true
}

// count is how many connections there are.
func (d *doors) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all
}
