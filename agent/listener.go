package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/hsagent/hsagentd/agent/peer"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// A peerListener asks the kernel who made each connection and turns away, with
// nothing read, whoever may do nothing here.
type peerListener struct {
	net.Listener
	agent    *Agent
	readOnly bool // what comes here may read and no more
}

// Accept returns the next connection of a caller who may be here.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uc, ok := conn.(*net.UnixConn)
		if !ok {
			_ = conn.Close() // it is refused anyway
			return nil, fmt.Errorf("the socket is no Unix socket but %T", conn)
		}
		caller, err := peer.FromConn(uc)
		if err != nil {
			l.agent.log.Warn("connection refused: its peer is not known", "error", err)
			_ = conn.Close() // it is refused anyway
			continue
		}
		if !l.agent.mayUse(caller, l.readOnly) {
			l.agent.turnAway(uc, caller)
			continue
		}
		c := &guardedConn{Conn: conn, unix: uc, agent: l.agent, caller: caller, made: time.Now(), readOnly: l.readOnly}
		if problem := l.agent.doors.enter(c, l.agent.mayManage(caller)); problem != nil {
			l.agent.refused.count(problem.Code)
			l.agent.refuseConn(uc, problem)
			continue
		}
		return c, nil
	}
}

// trace has /proc looked at for the caller of a connection, which takes most of
// what accepting one would take: so it is done behind the doors, for those that
// are still open, and before anything is read of them.
func (a *Agent) trace(caller *peer.Caller, conn *net.UnixConn) {
	a.tracing.Lock()
	defer a.tracing.Unlock()
	caller.Trace(conn, a.digestsWanted())
}

// digestsWanted returns where to have executables hashed, or nil if no rule
// asks for that.
func (a *Agent) digestsWanted() *peer.Digests {
	if p := a.rules(); p != nil && p.NeedsDigests() {
		return a.digests
	}
	return nil
}

// Some connections that were turned away stay for a moment.
const (
	maxLingering = 16
	lingerTime   = time.Second
)

// turnAway answers a connection that may do nothing, without reading from it.
// Whoever tries again and again is counted, see denials, and no longer looked at.
func (a *Agent) turnAway(conn *net.UnixConn, caller *peer.Caller) {
	p := wire.Errorf(wire.CodeDenied, "user %s may not use this agent: ask for membership of the agent's socket_group", nameOf(caller))
	if a.denials.take(auditCaller(caller), string(p.Code), time.Now()) {
		a.trace(caller, conn)
		rec := a.event(chain.CallDenied)
		rec.Caller, rec.Error, rec.Reason = auditCaller(caller), string(p.Code), "the caller may not use the socket"
		rec.Rule = ruleSocket
		a.record(a.ctx, rec)
		a.log.Warn("connection refused", "caller_uid", caller.UID, "caller_pid", caller.PID)
	}
	answerUnread(conn, p)
	a.linger(conn, maxLingering)
}

// refuseConn answers a connection for which there is no place, and closes it.
// What its client has sent is taken off, or the kernel would tell it of a broken
// connection instead of the answer.
func (a *Agent) refuseConn(conn *net.UnixConn, p *wire.Problem) {
	answerUnread(conn, p)
	taken := 0
	for taken < maxHeader {
		n := receive(conn, 0)
		if n == 0 {
			break
		}
		taken += n
	}
	if taken > 0 {
		_ = conn.Close() // it has its answer
		return
	}
	a.linger(conn, maxLingering/4) // places are rare
}

// linger closes a connection that has its answer. Many clients see nothing but
// a broken connection where it is closed before they have sent their request;
// so a few at a time are kept for a moment, in which nobody reads from them.
func (a *Agent) linger(conn *net.UnixConn, most int64) {
	if a.lingering.Add(1) > most || conn.CloseWrite() != nil {
		a.lingering.Add(-1)
		_ = conn.Close() // it is refused anyway
		return
	}
	time.AfterFunc(lingerTime, func() {
		a.lingering.Add(-1)
		_ = conn.Close() // it is refused anyway
	})
}

// answerUnread answers a connection of which nothing was read.
func answerUnread(conn net.Conn, p *wire.Problem) {
	body := encodeProblem(p)
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // the answer fits the socket's buffer
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n%s: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		p.Status, http.StatusText(p.Status), wire.ProblemType, wire.HeaderError, p.Code, len(body), body) // a courtesy: the refusal stands without it
}

// connKey finds a request's connection in its context.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// connOf returns the connection that a request came on. Every connection of
// the server is a guarded one: [peerListener] makes no other.
func connOf(r *http.Request) *guardedConn {
	c, _ := r.Context().Value(connKey{}).(*guardedConn)
	return c
}

// callerOf returns who made the request's connection.
func callerOf(r *http.Request) *peer.Caller { return connOf(r).caller }
