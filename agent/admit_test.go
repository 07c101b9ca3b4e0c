package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/peer"
	"github.com/hsagent/hsagentd/wire"
)

func TestThreat16WhoMayDoWhat(t *testing.T) {
	const agentUID, socketGroup, adminGroup = 1000, 2000, 3000
	tests := []struct {
		name         string
		caller       peer.Caller
		groups       bool // the config names them
		call, manage bool
	}{
		{"the agent's own user", peer.Caller{UID: agentUID, GID: 1}, false, true, true},
		{"root", peer.Caller{UID: 0}, false, true, true},
		{"another user", peer.Caller{UID: 1001, GID: 1}, false, false, false},
		{"nobody", peer.Caller{UID: 65534, GID: 65534}, true, false, false},
		{"a group, none configured", peer.Caller{UID: 1001, GID: socketGroup, Groups: []int{adminGroup}}, false, false, false},
		{"the socket's group", peer.Caller{UID: 1001, GID: socketGroup}, true, true, false},
		{"the socket's group, supplementary", peer.Caller{UID: 1001, GID: 1, Groups: []int{5, socketGroup}}, true, true, false},
		{"the admin group", peer.Caller{UID: 1001, GID: adminGroup}, true, true, true},
		{"the admin group, supplementary", peer.Caller{UID: 1001, GID: 1, Groups: []int{adminGroup}}, true, true, true},
		{"a uid that is a group's number", peer.Caller{UID: socketGroup, GID: 1}, true, false, false},
		{"group root", peer.Caller{UID: 1001, GID: 0, Groups: []int{0}}, true, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := &Agent{uid: agentUID, cfg: Config{SocketGroup: -1, AdminGroup: -1}}
			if tt.groups {
				a.cfg.SocketGroup, a.cfg.AdminGroup = socketGroup, adminGroup
			}
			require.Equal(t, tt.call, a.mayCall(&tt.caller))
			require.Equal(t, tt.manage, a.mayManage(&tt.caller))
		})
	}
}

func TestThreat32WrongPassphrasesCostTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		a := &Agent{log: slog.New(slog.DiscardHandler), cfg: Config{LoadIdentity: func([]byte) (*credstore.Identity, error) {
			tries++
			return nil, credstore.ErrPassphrase
		}}}
		began := time.Now()
		for range 20 {
			err := a.Unlock(t.Context(), nil, []byte("guess"))
			var p *wire.Problem
			require.ErrorAs(t, err, &p)
			require.Equal(t, wire.CodeBadPassphrase, p.Code)
		}
		require.Equal(t, 20, tries)
		require.GreaterOrEqual(t, time.Since(began), 10*time.Minute)

		// Who gives up stops waiting, without a try.
		began = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, a.Unlock(ctx, nil, []byte("guess")), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, 20, tries)
	})
}

// Asking for a reload guesses no passphrase, and makes none wait.
func TestThreat32ReloadOfALockedAgentIsNoGuess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{log: slog.New(slog.DiscardHandler), cfg: Config{LoadIdentity: func(pass []byte) (*credstore.Identity, error) {
			if len(pass) == 0 {
				return nil, credstore.ErrPassphrase
			}
			return nil, errors.New("the right one, but the file is broken")
		}}}
		for range 10 {
			var p *wire.Problem
			require.ErrorAs(t, a.Reload(t.Context(), false), &p)
			require.Equal(t, wire.CodeLocked, p.Code)
		}
		require.Zero(t, a.unlocks.wait)
	})
}

// A connection that is kept, or was inherited, does not last: nobody waits for
// the clock here.
func TestThreat31ConnectionsDoNotLast(t *testing.T) {
	a := &Agent{log: slog.New(slog.DiscardHandler), doors: newDoors()}
	require.Equal(t, time.Minute, a.newServer().IdleTimeout)
	for age, want := range map[time.Duration]string{0: "", 59 * time.Minute: "", 61 * time.Minute: "close"} {
		conn := &guardedConn{caller: &peer.Caller{}, made: time.Now().Add(-age)}
		r := httptest.NewRequest(http.MethodGet, "http://hsagent/v1/openapi.json", nil)
		r.RequestURI = r.URL.Path
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), connKey{}, conn)))
		require.Equal(t, http.StatusOK, w.Code)
		require.Equal(t, want, w.Header().Get("Connection"), "after %v", age)
	}
}

func TestUntilIdle(t *testing.T) {
	now := time.Now()
	a := &Agent{cfg: Config{LockAfter: time.Minute}}
	require.Negative(t, a.untilIdle(now), "never used")
	a.lastUse.Store(now.Add(-20 * time.Second).UnixNano())
	require.Equal(t, 40*time.Second, a.untilIdle(now))
	require.Equal(t, -time.Hour+40*time.Second, a.untilIdle(now.Add(time.Hour)))
	a.inFlight.Add(1)
	require.Equal(t, time.Minute, a.untilIdle(now.Add(time.Hour)), "a call that takes long is in use")
}
