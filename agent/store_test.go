package agent_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

func (r *rig) readStore() []byte {
	r.t.Helper()
	b, err := os.ReadFile(r.store.Path())
	require.NoError(r.t, err)
	return b
}

func TestThreat37BadStoresLeaveTheLastGoodOneServing(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	good := r.readStore()
	version := r.agent.Status().Store.Version
	bad := map[string]func(){
		"empty":          func() { r.writeFile(nil) },
		"not age":        func() { r.writeFile([]byte("{}")) },
		"cut short":      func() { r.writeFile(good[:len(good)-1]) },
		"cut in half":    func() { r.writeFile(good[:len(good)/2]) },
		"a byte flipped": func() { b := append([]byte(nil), good...); b[len(b)-20] ^= 1; r.writeFile(b) },
		"gone":           func() { require.NoError(t, os.Remove(r.store.Path())) },
		"a directory": func() {
			require.NoError(t, os.Remove(r.store.Path()))
			require.NoError(t, os.Mkdir(r.store.Path(), 0o700))
		},
		"null":          func() { r.writePlain("null") },
		"a list":        func() { r.writePlain("[]") },
		"no portals":    func() { r.writePlain(`{"version": 99}`) },
		"no JSON":       func() { r.writePlain(`{"version": 99, "portals": {`) },
		"more than one": func() { r.writePlain(`{"version": 99, "portals": {}} {}`) },
		"rolled back":   func() { r.writePlain(`{"version": 0, "portals": {}}`) },
		"all removed":   func() { r.writePlain(`{"version": 99, "portals": {}}`) },
	}
	for name, spoil := range bad {
		t.Run(name, func(t *testing.T) {
			before := len(r.records(chain.Filter{Kind: chain.StoreRefused}))
			spoil()
			eventually(t, func() bool { return r.agent.Status().Store.LastError != "" }, "the watcher sees it")
			st := r.agent.Status()
			require.Equal(t, version, st.Store.Version)
			require.NotNil(t, st.Store.ErrorAt)
			require.Equal(t, 3, st.Portals[string(wire.StateReady)])
			p := r.api("POST", "/v1/reload", "").refused(t, wire.CodeConflict)
			require.Contains(t, p.Detail, "serves on")
			for _, portal := range r.portals {
				require.Equal(t, 200, r.call(portal.Slug, "GET", tagged(portal.Slug), nil).status)
			}
			require.Len(t, r.records(chain.Filter{Kind: chain.StoreRefused}), before+1, "said once: %s", st.Store.LastError)

			require.NoError(t, os.RemoveAll(r.store.Path()))
			r.writeFile(good)
			eventually(t, func() bool { return r.agent.Status().Store.LastError == "" }, "mended")
		})
	}
	require.Empty(t, r.crossed())
	r.checkLog()
	r.cleanAll()
}

func TestThreat37UnreadableAtTheStart(t *testing.T) {
	r := newRig(t, rigOptions{})
	good := r.readStore()
	r.stop()
	r.writeFile(good[:100])
	r.start(rigOptions{})
	require.True(t, r.agent.Status().Locked)
	require.NotEmpty(t, r.agent.Status().Store.LastError)
	p := r.call("client-0", "GET", contacts, nil).refused(t, wire.CodeLocked)
	require.Contains(t, p.Detail, "could not be loaded")
	r.writeFile(good)
	eventually(t, func() bool { return r.call("client-0", "GET", contacts, nil).status == 200 }, "the mended store is taken by itself")
	require.Empty(t, r.agent.Status().Store.LastError)
	r.cleanAll()
}

func TestThreat41OlderStores(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	old := r.readStore()
	was := r.agent.Status().Store.Version
	next := sandbox.NewToken("na1")
	require.NoError(t, r.hubspot.Rotate(1000, next))
	entry := entryOf(r.portals[0])
	entry.Token = next
	r.put(entry)
	eventually(t, func() bool { return r.agent.Status().Store.Version == was+1 }, "the new one is taken")
	r.writeFile(old)
	eventually(t, func() bool { return strings.Contains(string(r.agent.Status().Store.LastError), "went back") }, "the old one is refused")
	r.api("POST", "/v1/reload", `{"force":false}`).refused(t, wire.CodeConflict)
	require.Equal(t, was+1, r.agent.Status().Store.Version)
	got := r.call("client-0", "GET", contacts, nil)
	require.Equal(t, next.Fingerprint(), r.outcomeOf(got).TokenFingerprint)
	require.Len(t, r.records(chain.Filter{Kind: chain.StoreRefused}), 1)

	// Also after a restart, and for changes through the agent.
	r.stop()
	r.start(rigOptions{})
	require.True(t, r.agent.Status().Locked)
	require.Contains(t, r.agent.Status().Store.LastError, "went back")
	got = r.api("POST", "/v1/reload", `{"force":true}`)
	require.Equal(t, 200, got.status, got.body)
	require.Equal(t, was, r.agent.Status().Store.Version)
	require.Empty(t, r.agent.Status().Store.LastError)
	r.ready(3)
	require.Equal(t, 200, r.call("client-0", "GET", contacts, nil).status)
	r.cleanAll()
}

func TestThreat42MassRemoval(t *testing.T) {
	r := newRig(t, rigOptions{portals: portalsOf(8)})
	r.ready(8)
	r.change(func(e *credstore.Edit) error {
		for _, p := range r.portals[:3] {
			e.Remove(slugOf(t, p.Slug))
		}
		return nil
	})
	eventually(t, func() bool { return strings.Contains(string(r.agent.Status().Store.LastError), "lacks 3 of the 8") }, "refused")
	for _, p := range r.portals {
		require.Equal(t, 200, r.call(p.Slug, "GET", contacts, nil).status)
	}
	// Nothing is built on top of it either.
	fresh := sandbox.NewToken("na1")
	require.NoError(t, r.hubspot.AddPortal(sandbox.Portal{ID: 5000, Token: fresh}))
	r.api("PUT", "/v1/portals/fresh", `{"token":"`+fresh.Reveal()+`"}`).refused(t, wire.CodeConflict)
	require.Equal(t, 200, r.api("POST", "/v1/reload", `{"force":true}`).status)
	require.Equal(t, 5, r.agent.Status().Portals[string(wire.StateReady)])
	r.call("client-0", "GET", contacts, nil).refused(t, wire.CodeUnknownPortal)
}

func TestManagement(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	fresh, unknown := sandbox.NewToken("na1"), sandbox.NewToken("na1")
	require.NoError(t, r.hubspot.AddPortal(sandbox.Portal{ID: 5000, Token: fresh}))
	body := func(token wire.Token, more string) string { return `{"token":"` + token.Reveal() + `"` + more + `}` }
	ours := r.portals[0].Token
	before := r.readStore()
	refused := []struct {
		name, method, path, body string
		code                     wire.Code
	}{
		{"unknown key", "PUT", "/v1/portals/fresh", body(fresh, `,"portalID2":1`), wire.CodeBadRequest},
		{"no token", "PUT", "/v1/portals/fresh", `{}`, wire.CodeBadRequest},
		{"no body", "PUT", "/v1/portals/fresh", ``, wire.CodeBadRequest},
		{"two objects", "PUT", "/v1/portals/fresh", body(fresh, "") + "{}", wire.CodeBadRequest},
		{"no object", "PUT", "/v1/portals/fresh", `[]`, wire.CodeBadRequest},
		{"a token with a line end", "PUT", "/v1/portals/fresh", `{"token":"pat-na1\r\nX: y"}`, wire.CodeBadRequest},
		{"a negative portal", "PUT", "/v1/portals/fresh", body(fresh, `,"portalId":-1`), wire.CodeBadRequest},
		{"a portal in words", "PUT", "/v1/portals/fresh", body(fresh, `,"portalId":"5000"`), wire.CodeBadRequest},
		{"an unknown kind", "PUT", "/v1/portals/fresh", body(fresh, `,"kind":"oauth"`), wire.CodeBadRequest},
		{"a bad slug", "PUT", "/v1/portals/Fresh", body(fresh, ""), wire.CodeBadRequest},
		{"too long", "PUT", "/v1/portals/fresh", body(fresh, `,"kind":"`+strings.Repeat("x", 2<<20)+`"`), wire.CodeTooLarge},
		{"another portal", "PUT", "/v1/portals/fresh", body(fresh, `,"portalId":1000`), wire.CodeIdentityMismatch},
		{"a dead token", "PUT", "/v1/portals/fresh", body(unknown, ""), wire.CodeTokenRejected},
		{"an old slug with a new token", "PUT", "/v1/portals/client-0", body(fresh, ""), wire.CodeConflict},
		{"an old slug with another portal", "PUT", "/v1/portals/client-0", body(ours, `,"portalId":5000`), wire.CodeConflict},
		{"an old token under a new slug", "PUT", "/v1/portals/fresh", body(ours, ""), wire.CodeConflict},
		{"the same as a rehearsal", "PUT", "/v1/portals/fresh?dryRun=true", body(ours, ""), wire.CodeConflict},
		{"remove nobody", "DELETE", "/v1/portals/fresh", "", wire.CodeUnknownPortal},
		{"verify nobody", "POST", "/v1/portals/fresh/verify", "", wire.CodeUnknownPortal},
		{"resume nobody", "POST", "/v1/portals/fresh/resume", "", wire.CodeUnknownPortal},
		{"show nobody", "GET", "/v1/portals/fresh", "", wire.CodeUnknownPortal},
		{"reload with an unknown key", "POST", "/v1/reload", `{"Forced":true}`, wire.CodeBadRequest},
		{"unlock with an unknown key", "POST", "/v1/unlock", `{"pass":"x"}`, wire.CodeBadRequest},
		{"another method", "POST", "/v1/portals", "", wire.CodeMethodNotAllowed},
		{"no such path", "GET", "/v1/nothing", "", wire.CodeNotFound},
		{"no such path below a slug", "POST", "/v1/portals/client-0/verify/x", "", wire.CodeNotFound},
		{"an escaped path", "GET", "/v1/%70ortals", "", wire.CodeNotFound},
		{"a broken query", "GET", "/v1/portals?%zz", "", wire.CodeBadRequest},
	}
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			got := r.api(tt.method, tt.path, tt.body)
			got.refused(t, tt.code)
			require.NotContains(t, got.text(), fresh.Reveal())
			r.clean("the problem", got.text())
		})
	}
	require.Equal(t, before, r.readStore(), "nothing was written")

	got := r.api("PUT", "/v1/portals/fresh?dryRun=true", body(fresh, `,"portalId":5000`))
	require.Equal(t, 200, got.status, got.body)
	require.Contains(t, got.body, `"state":"ready"`)
	require.Equal(t, before, r.readStore(), "a rehearsal writes nothing")
	require.Empty(t, r.records(chain.Filter{Kind: chain.PortalOnboarded}))
	r.call("fresh", "GET", contacts, nil).refused(t, wire.CodeUnknownPortal)

	got = r.api("PUT", "/v1/portals/fresh", body(fresh, ""))
	require.Equal(t, 201, got.status, got.body)
	require.Equal(t, 200, r.call("fresh", "GET", contacts, nil).status)
	require.Equal(t, 200, r.api("PUT", "/v1/portals/fresh", body(fresh, "")).status, "twice is no error")
	entry, ok := r.loadStore().Get(slugOf(t, "fresh"))
	require.True(t, ok)
	require.Equal(t, int64(5000), entry.PortalID)
	require.False(t, entry.AddedAt.IsZero())

	require.Equal(t, 204, r.api("DELETE", "/v1/portals/fresh", "").status)
	r.call("fresh", "GET", contacts, nil).refused(t, wire.CodeUnknownPortal)
	_, ok = r.loadStore().Get(slugOf(t, "fresh"))
	require.False(t, ok)
	for kind, n := range map[chain.Kind]int{chain.PortalOnboarded: 1, chain.PortalRemoved: 1} {
		recs := r.records(chain.Filter{Kind: kind})
		require.Len(t, recs, n)
		require.Equal(t, os.Getpid(), recs[0].Caller.PID)
		require.Equal(t, fresh.Fingerprint(), recs[0].TokenFingerprint)
	}
	require.NotEmpty(t, r.records(chain.Filter{Slug: "fresh", Kind: chain.CallOutcome}), "its records stay")
	require.NotContains(t, r.log.String(), fresh.Reveal())
	r.checkLog()
	r.cleanAll()
}

// Two writers at once: neither loses what the other wrote.
func TestManagementBesideAnOutsideWriter(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, p := range portalsOf(13)[3:8] {
			p.ID += 10_000
			if err := r.hubspot.AddPortal(p); err == nil {
				r.put(entryOf(p))
			}
		}
	}()
	for _, p := range portalsOf(13)[8:] {
		require.NoError(t, r.hubspot.AddPortal(p))
		got := r.api("PUT", "/v1/portals/"+p.Slug, `{"token":"`+p.Token.Reveal()+`"}`)
		require.Equal(t, 201, got.status, got.body)
	}
	<-done
	require.Len(t, r.loadStore().Entries, 13)
	r.ready(13)
}

func (r *rig) loadStore() *credstore.Store {
	r.t.Helper()
	s, err := r.store.Load(r.t.Context())
	require.NoError(r.t, err)
	return s
}
