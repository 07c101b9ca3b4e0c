package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

func TestSocket(t *testing.T) {
	tests := []struct {
		name, flag string
		vars       map[string]string
		uid        int
		want       string
	}{
		{"flag", "/f", map[string]string{"HSAGENT_SOCK": "/e"}, 0, "/f"},
		{"environment", "", map[string]string{"HSAGENT_SOCK": "/e"}, 0, "/e"},
		{"root", "", map[string]string{"XDG_RUNTIME_DIR": "/run/user/0"}, 0, "/run/hsagent/agent.sock"},
		{"user", "", map[string]string{"XDG_RUNTIME_DIR": "/x"}, 1000, "/x/hsagent/agent.sock"},
		{"user without a session", "", nil, 1000, "/run/user/1000/hsagent/agent.sock"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &env{getenv: func(k string) string { return tt.vars[k] }, uid: tt.uid, global: globalOptions{socket: tt.flag}}
			require.Equal(t, tt.want, e.socket())
		})
	}
}

func TestReportHints(t *testing.T) {
	unreachable := func(cause error) error { return fmt.Errorf("%w at /x: %w", wire.ErrUnreachable, cause) }
	tests := []struct {
		name string
		err  error
		uid  int
		want string
	}{
		{"no socket, user", unreachable(os.ErrNotExist), 1000, "start it: systemctl --user start hsagentd.socket\n"},
		{"no socket, root", unreachable(os.ErrNotExist), 0, "start it: systemctl start hsagentd.socket\n"},
		{"nobody listens", unreachable(syscall.ECONNREFUSED), 1000, "before the first start hsagentd init\n"},
		{"not allowed", unreachable(os.ErrPermission), 1000, "socket_group"},
		{"hung up", unreachable(errors.New("EOF")), 1000, "journalctl"},
		{"throttled", &wire.Problem{Code: wire.CodeThrottled, Detail: "slow down", RetryAfter: 7}, 0, "hsctl: throttled: slow down (try again in 7 s)\n"},
		{"similar already said", &wire.Problem{Code: wire.CodeUnknownPortal, Detail: "no acme; close: acme-corp", Similar: []string{"acme-corp"}}, 0,
			"hsctl: unknown_portal: no acme; close: acme-corp\n"},
		{"two lines", errors.New("one\ntwo"), 0, "hsctl: one\nhsctl: two\n"},
		{"a token", errors.New("x " + madeUpToken), 0, "hsctl: x pat-na1-***\n"},
		{"terminal escapes", errors.New("x\x1b[2J"), 0, `hsctl: x\x1b[2J` + "\n"},
		{"nobody reads stdout", fmt.Errorf("write: %w", syscall.EPIPE), 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			e := &env{stderr: &b, getenv: func(string) string { return "/x" }, uid: tt.uid}
			e.report(t.Context(), tt.err)
			if tt.want == "" {
				require.Empty(t, b.String())
				return
			}
			require.Contains(t, b.String(), tt.want)
			for line := range strings.Lines(b.String()) {
				require.True(t, strings.HasPrefix(line, "hsctl: "), line)
			}
		})
	}
}
