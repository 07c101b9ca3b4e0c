package agent_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"filippo.io/age"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// dialAs connects to the socket as another user: the kernel keeps credentials
// for each thread, and one thread of ours becomes that user and dies with it.
func dialAs(t *testing.T, socket string, uid, gid int, groups ...uint32) net.Conn {
	t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	out := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		conn, err := func() (net.Conn, error) {
			set := func(trap, a, b, c uintptr) error {
				if _, _, errno := unix.RawSyscall(trap, a, b, c); errno != 0 {
					return errno
				}
				return nil
			}
			list := append([]uint32{uint32(gid)}, groups...)
			err := errors.Join(
				set(unix.SYS_SETGROUPS, uintptr(len(list)), uintptr(unsafe.Pointer(&list[0])), 0),
				set(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)),
				set(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)))
			if err != nil {
				return nil, err
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			f := os.NewFile(uintptr(fd), socket)
			defer f.Close()
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
				return nil, err
			}
			return net.FileConn(f)
		}()
		out <- result{conn, err}
	}()
	r := <-out
	require.NoError(t, r.err)
	t.Cleanup(func() { _ = r.conn.Close() })
	return r.conn
}

// ask sends a request on conn and returns the answer.
func ask(t *testing.T, conn net.Conn, line string) (int, http.Header) {
	t.Helper()
	_, err := io.WriteString(conn, line+" HTTP/1.1\r\nHost: hsagent\r\n\r\n")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header
}

// open lets everybody reach the socket, so that only the agent itself stands
// in the way.
func (r *rig) open() {
	r.t.Helper()
	require.NoError(r.t, os.Chmod(r.dir, 0o711))
	require.NoError(r.t, os.Chmod(r.socket, 0o777))
}

func TestThreat16StrangersAreRefusedUnread(t *testing.T) {
	const nobody = 65534
	var o rigOptions
	stranger := func(r *rig) net.Conn { return dialAs(t, r.socket, nobody, nobody) }
	uid := nobody
	if os.Geteuid() != 0 {
		// Only root becomes another user. Else the agent takes itself for one,
		// and we are the stranger.
		uid = os.Geteuid()
		o.made = func(a *agent.Agent) { a.PretendUID(nobody) }
		stranger = func(r *rig) net.Conn { return r.dial() }
	}
	r := newRig(t, o)
	eventually(t, func() bool { return r.agent.Status().Portals[string(wire.StateReady)] == 3 }, "ready")
	r.open()
	const tries = 100
	for range tries {
		conn := stranger(r)
		// The answer comes although nothing was asked, so nothing was read.
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		answer{status: resp.StatusCode, header: resp.Header, body: string(b)}.refused(t, wire.CodeDenied)
		_, err = conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	denied := r.records(chain.Filter{Kind: chain.CallDenied})
	require.Len(t, denied, tries)
	// A client that sends its request only now has a connection still, and so
	// sees its answer; that is so for a few at a time.
	eventually(t, func() bool {
		conn := stranger(r)
		_, err := io.Copy(io.Discard, conn)
		require.NoError(t, err)
		_, err = io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: hsagent\r\n\r\n")
		return err == nil
	}, "the connection stays for a moment")
	for _, rec := range denied {
		require.Equal(t, uid, rec.Caller.UID)
		require.Equal(t, os.Getpid(), rec.Caller.PID)
	}
	require.Empty(t, r.came())
	r.checkLog()
}

// A stranger that connects again and again is answered each time, but neither the
// audit log nor the agent's own has a line for each.
func TestStrangersDoNotFloodTheLogs(t *testing.T) {
	r := strangerRig(t, nil)
	const tries = 1500
	for range tries {
		got, err := io.ReadAll(r.stranger(t))
		require.NoError(t, err)
		require.Contains(t, string(got), string(wire.CodeDenied))
	}
	denied := len(r.records(chain.Filter{Kind: chain.CallDenied}))
	require.GreaterOrEqual(t, denied, 1000)
	require.Equal(t, denied, strings.Count(r.log.String(), "connection refused"))
}

func TestThreat16Groups(t *testing.T) {
	if os.Geteuid() != 0 {
		// TestThreat16WhoMayDoWhat shows the same without becoming anybody.
		require.NotZero(t, os.Getuid())
		return
	}
	const uid, socketGroup, adminGroup = 65533, 4242, 4343
	r := newRig(t, rigOptions{config: func(c *agent.Config) { c.SocketGroup, c.AdminGroup = socketGroup, adminGroup }})
	r.ready(3)
	r.open()
	call := "GET /v1/call/client-0" + contacts
	manage := []string{"POST /v1/lock", "POST /v1/unlock", "POST /v1/reload", "DELETE /v1/portals/client-0", "PUT /v1/portals/x", "POST /v1/portals/client-0/verify", "POST /v1/portals/client-0/resume", "POST /v1/onboard", "POST /v1/audit/verify"}

	member := func() net.Conn { return dialAs(t, r.socket, uid, uid, 5, socketGroup) }
	status, _ := ask(t, member(), call)
	require.Equal(t, 200, status)
	status, _ = ask(t, member(), "GET /v1/portals")
	require.Equal(t, 200, status)
	for _, line := range manage {
		status, header := ask(t, member(), line)
		require.Equal(t, 403, status, line)
		require.Equal(t, string(wire.CodeDenied), header.Get(wire.HeaderError))
	}
	require.Len(t, r.records(chain.Filter{Kind: chain.CallDenied}), len(manage))
	require.False(t, r.agent.Status().Locked)

	admin := func() net.Conn { return dialAs(t, r.socket, uid, adminGroup) }
	status, _ = ask(t, admin(), "POST /v1/portals/client-0/verify")
	require.Equal(t, 200, status)
	outcome := r.checkLog()
	require.Equal(t, uid, outcome[0].Caller.UID)
	require.Equal(t, uid, outcome[0].Caller.GID)
}

func TestThreat27PanicsEndTheirOwnRequestAlone(t *testing.T) {
	var (
		r    *rig
		kind atomic.Value
	)
	kind.Store(chain.Kind(""))
	r = newRig(t, rigOptions{config: audited(func(rec chain.Record) error {
		if rec.Kind == kind.Load() && ofCalls(rec) {
			panic("what went wrong: Bearer " + r.portals[0].Token.Reveal())
		}
		return nil
	})})
	r.ready(3)
	var wg sync.WaitGroup
	kind.Store(chain.CallIntent)
	for range 10 {
		wg.Go(func() {
			for range 10 {
				got := r.call("client-0", "POST", tagged("client-0"), strings.NewReader("{}"))
				got.refused(t, wire.CodeInternal)
				r.clean("the problem", got.text())
			}
		})
	}
	wg.Wait()
	require.Empty(t, r.came())

	// Where HubSpot's answer has begun, it breaks off, and nothing is added.
	kind.Store(chain.CallOutcome)
	for _, method := range []string{"GET", "PATCH"} {
		req, err := http.NewRequest(method, "http://hsagent/", nil)
		require.NoError(t, err)
		got := r.try(req, "/v1/call/client-0"+tagged("client-0"))
		require.Error(t, got.err)
		require.NotContains(t, got.body, "urn:hsagent")
	}
	kind.Store(chain.Kind(""))
	require.Equal(t, 200, r.call("client-0", "GET", tagged("client-0"), nil).status)
	require.Zero(t, r.agent.Status().CallsInFlight)
	require.Contains(t, r.log.String(), "panic in a handler")
	r.clean("the log", r.log.String())
}

func TestThreat31HeldConnectionsOfALockedAgent(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	conn := r.dial()
	status, _ := ask(t, conn, "GET /v1/call/client-0"+contacts)
	require.Equal(t, 200, status)
	require.Equal(t, 200, r.api("POST", "/v1/lock", "").status)
	status, header := ask(t, conn, "GET /v1/call/client-0"+contacts)
	require.Equal(t, 423, status)
	require.Equal(t, string(wire.CodeLocked), header.Get(wire.HeaderError))
	require.Len(t, r.came(), 1)
}

func TestThreat32Lock(t *testing.T) {
	const passphrase = "correct horse"
	var locked atomic.Bool
	r := newRig(t, rigOptions{config: func(c *agent.Config) {
		// As with an identity that scrypt protects, without its second of work:
		// TestThreat32ProtectedIdentity has the real one.
		load := c.LoadIdentity
		c.LoadIdentity = func(pass []byte) (*credstore.Identity, error) {
			if locked.Load() && string(pass) != passphrase {
				return nil, credstore.ErrPassphrase
			}
			return load(pass)
		}
	}})
	r.ready(3)
	locked.Store(true)
	require.Equal(t, 200, r.api("POST", "/v1/lock", "").status)
	before := r.hubspot.Count().Total.Arrivals
	require.True(t, r.agent.Status().Locked)
	for _, req := range [][2]string{
		{"GET", "/v1/call/client-0" + contacts}, {"POST", "/v1/call/client-0" + contacts}, {"GET", "/v1/portals"}, {"GET", "/v1/portals/client-0"}, {"DELETE", "/v1/portals/client-0"},
		{"POST", "/v1/portals/client-0/verify"}, {"POST", "/v1/portals/client-0/resume"}, {"POST", "/v1/onboard"}, {"POST", "/v1/reload"},
	} {
		r.api(req[0], req[1], "").refused(t, wire.CodeLocked)
	}
	r.api("PUT", "/v1/portals/new", `{"token":"pat-na1-00000000-0000-4000-8000-00000000000a"}`).refused(t, wire.CodeLocked)
	r.put(entryOf(r.portals[0])) // the watcher is gone too
	require.Equal(t, 200, r.api("GET", "/v1/status", "").status)
	require.Equal(t, 200, r.api("POST", "/v1/lock", "").status, "twice is no error")

	r.api("POST", "/v1/unlock", `{"passphrase":"wrong"}`).refused(t, wire.CodeBadPassphrase)
	r.api("POST", "/v1/unlock", `{"passphrase":"`+passphrase+`","more":1}`).refused(t, wire.CodeBadRequest)
	require.Equal(t, before, r.hubspot.Count().Total.Arrivals, "a locked agent says nothing to HubSpot")
	got := r.api("POST", "/v1/unlock", `{"passphrase":"`+passphrase+`"}`)
	require.Equal(t, 200, got.status, got.body)
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	require.Len(t, r.records(chain.Filter{Kind: chain.AgentLocked}), 1)
	require.Len(t, r.records(chain.Filter{Kind: chain.AgentUnlocked}), 1)
	require.NotContains(t, r.log.String(), passphrase)
	r.cleanAll()
}

func TestThreat32ProtectedIdentity(t *testing.T) {
	const passphrase = "correct horse"
	r := newRig(t, rigOptions{})
	r.stop()
	path := r.dir + "/identity.age"
	protect(t, r.dir+"/identity.txt", path, passphrase)
	opened, err := credstore.LoadIdentity(path, func() ([]byte, error) { return []byte(passphrase), nil })
	require.NoError(t, err)
	require.NoError(t, os.Remove(r.store.Path()))
	require.NoError(t, os.Remove(r.store.Path()+".seen"))
	require.NoError(t, credstore.Create(t.Context(), r.store.Path(), opened, nil))
	r.identity, r.store = opened, credstore.Open(r.store.Path(), opened)
	r.put(entryOf(r.portals[0]))

	r.start(rigOptions{config: func(c *agent.Config) {
		c.LoadIdentity = func(pass []byte) (*credstore.Identity, error) {
			if pass == nil {
				return credstore.LoadIdentity(path, nil)
			}
			return credstore.LoadIdentity(path, func() ([]byte, error) { return pass, nil })
		}
	}})
	require.True(t, r.agent.Status().Locked, "nobody was there to ask")
	r.call("client-0", "GET", contacts, nil).refused(t, wire.CodeLocked)
	r.api("POST", "/v1/unlock", `{"passphrase":"wrong"}`).refused(t, wire.CodeBadPassphrase)
	r.api("POST", "/v1/unlock", `{}`).refused(t, wire.CodeBadPassphrase)
	require.Equal(t, 200, r.api("POST", "/v1/unlock", `{"passphrase":"`+passphrase+`"}`).status)
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	require.NotContains(t, r.log.String(), passphrase)
}

// protect writes a protected copy of an identity file, as age does and with
// far less work than is wise.
func protect(t *testing.T, from, to, passphrase string) {
	t.Helper()
	plain, err := os.ReadFile(from)
	require.NoError(t, err)
	recipient, err := age.NewScryptRecipient(passphrase)
	require.NoError(t, err)
	recipient.SetWorkFactor(10)
	var b bytes.Buffer
	w, err := age.Encrypt(&b, recipient)
	require.NoError(t, err)
	_, err = w.Write(plain)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, os.WriteFile(to, b.Bytes(), 0o600))
}
