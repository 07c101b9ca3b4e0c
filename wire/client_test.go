package wire_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

// serve answers at a Unix socket with h until the test ends.
func serve(t *testing.T, h http.HandlerFunc) *wire.Client {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hs")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	path := filepath.Join(dir, "a.sock")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}}
	srv.Start()
	t.Cleanup(srv.Close)
	c := wire.NewClient(path)
	t.Cleanup(c.Close)
	return c
}

func slug(t *testing.T, s string) wire.Slug {
	t.Helper()
	v, err := wire.ParseSlug(s)
	require.NoError(t, err)
	return v
}

func TestClientCall(t *testing.T) {
	off, wait := false, 30*time.Second
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set(wire.HeaderCallID, "c1")
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusFound)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"method": r.Method, "target": r.RequestURI, "host": r.Host, "body": string(b), "length": r.ContentLength,
			"reason": r.Header.Get(wire.HeaderReason), "retry": r.Header.Get(wire.HeaderRetry),
			"wait": r.Header.Get(wire.HeaderWait), "x": r.Header.Get("X-Test"),
		})
	})
	resp, err := c.Call(t.Context(), wire.CallRequest{
		Slug: slug(t, "acme-corp"), Method: "PATCH", Target: "/a//b/%2e?x=%41&y=1+1", Header: http.Header{"X-Test": {"1"}},
		Body: io.MultiReader(strings.NewReader("{}")), Length: 2, Reason: "T-1", Retry: &off, Wait: &wait,
	})
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }() // only read
	require.Equal(t, http.StatusFound, resp.StatusCode, "redirects come back as they are")
	require.Nil(t, wire.AgentError(resp))
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.JSONEq(t, `{"method":"PATCH","target":"/v1/call/acme-corp/a//b/%2e?x=%41&y=1+1","host":"hsagent","body":"{}",
		"length":2,"reason":"T-1","retry":"off","wait":"30s","x":"1"}`, string(b))
}

func TestClientAgentError(t *testing.T) {
	tests := []struct {
		name, header, body string
		want               *wire.Problem
	}{
		{"HubSpot's", "", `{"status":"error"}`, nil},
		{"a problem", "unknown_portal", `{"code":"unknown_portal","detail":"no acme","status":404,"similar":["acme-corp"]}`,
			&wire.Problem{Code: "unknown_portal", Detail: "no acme", Status: 404, Similar: []string{"acme-corp"}}},
		{"no body", "locked", ``, &wire.Problem{Type: "urn:hsagent:error:locked", Title: "Locked", Status: 404,
			Detail: "the agent answered 404 Not Found", Code: "locked"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if tt.header != "" {
					w.Header().Set(wire.HeaderError, tt.header)
				}
				w.WriteHeader(http.StatusNotFound)
				_, _ = io.WriteString(w, tt.body)
			})
			resp, err := c.Call(t.Context(), wire.CallRequest{Slug: slug(t, "acme"), Method: "GET", Target: "/"})
			require.NoError(t, err)
			defer func() { _ = resp.Body.Close() }() // only read
			require.Equal(t, tt.want, wire.AgentError(resp))
		})
	}
}

func TestClientFleet(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.RequestURI {
		case "GET /v1/status":
			_, _ = io.WriteString(w, `{"version":"1","locked":true}`)
		case "GET /v1/portals":
			_, _ = io.WriteString(w, `{"portals":[{"slug":"acme","state":"ready"}]}`)
		case "GET /v1/portals/acme", "POST /v1/portals/acme/verify":
			_, _ = io.WriteString(w, `{"slug":"acme","state":"ready","portalId":7}`)
		case "PUT /v1/portals/acme?dryRun=true":
			b, _ := io.ReadAll(r.Body)
			if string(b) != `{"token":"`+madeUpToken+`","portalId":7,"kind":"service-key"}` {
				w.WriteHeader(http.StatusTeapot)
			}
			_, _ = io.WriteString(w, `{"slug":"acme","state":"ready"}`)
		case "DELETE /v1/portals/acme":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set(wire.HeaderError, "unknown_portal")
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"code":"unknown_portal","detail":"who?"}`)
		}
	})
	ctx, acme := t.Context(), slug(t, "acme")
	st, err := c.Status(ctx)
	require.NoError(t, err)
	require.True(t, st.Locked)
	ps, err := c.Portals(ctx)
	require.NoError(t, err)
	require.Len(t, ps, 1)
	p, err := c.Portal(ctx, acme)
	require.NoError(t, err)
	require.EqualValues(t, 7, p.PortalID)
	_, err = c.Verify(ctx, acme)
	require.NoError(t, err)
	_, err = c.Onboard(ctx, acme, wire.NewToken(madeUpToken), 7, "service-key", true)
	require.NoError(t, err)
	require.NoError(t, c.Remove(ctx, acme))

	var problem *wire.Problem
	require.ErrorAs(t, c.Remove(ctx, slug(t, "other")), &problem)
	require.Equal(t, wire.CodeUnknownPortal, problem.Code)
}

func TestClientUnreachable(t *testing.T) {
	c := wire.NewClient(filepath.Join(t.TempDir(), "none.sock"))
	_, err := c.Status(t.Context())
	require.ErrorIs(t, err, wire.ErrUnreachable)
	require.ErrorContains(t, err, "none.sock")

	hangsUp := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err = hangsUp.Status(t.Context())
	require.ErrorIs(t, err, wire.ErrUnreachable)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = hangsUp.Status(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, wire.ErrUnreachable)
}

// A crowded agent closes connections before it has read from them. A question is
// asked again; a call, and what changes something, is not.
func TestClientAsksAgain(t *testing.T) {
	var came atomic.Int64
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if came.Add(1) < 3 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "{}")
	})
	_, err := c.Status(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, came.Load())
	came.Store(0)
	require.ErrorIs(t, c.Remove(t.Context(), slug(t, "acme-corp")), wire.ErrUnreachable)
	_, err = c.Call(t.Context(), wire.CallRequest{Slug: slug(t, "acme-corp"), Method: http.MethodGet, Target: "/crm/v3/objects/contacts"})
	require.ErrorIs(t, err, wire.ErrUnreachable)
	require.EqualValues(t, 2, came.Load())
}

func TestClientForeignServer(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	_, err := c.Status(t.Context())
	require.ErrorContains(t, err, "is it hsagentd?")
}
