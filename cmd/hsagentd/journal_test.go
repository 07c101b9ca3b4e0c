package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/slogtest"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/stretchr/testify/require"
)

const madeUpToken = "pat-na1-00000000-0000-4000-8000-00000000000a"

// TestJournalHandler holds the handler against what slog asks of every one.
func TestJournalHandler(t *testing.T) {
	var entries []map[string]any
	h := &journalHandler{min: slog.LevelDebug, send: func(msg string, p journal.Priority, fields map[string]string) error {
		m := map[string]any{slog.MessageKey: msg, slog.LevelKey: int(p)}
		for name, v := range fields {
			switch name {
			case "SYSLOG_TIMESTAMP":
				m[slog.TimeKey] = v
			case "SYSLOG_IDENTIFIER":
			default:
				nest(m, strings.Split(name, "_"), v)
			}
		}
		entries = append(entries, m)
		return nil
	}}
	require.NoError(t, slogtest.TestHandler(h, func() []map[string]any { return entries }))
}

// nest undoes the flattening: slogtest's groups are capital letters, its
// attributes small ones.
func nest(m map[string]any, path []string, v string) {
	if len(path) == 1 {
		m[strings.ToLower(path[0])] = v
		return
	}
	sub, ok := m[path[0]].(map[string]any)
	if !ok {
		sub = map[string]any{}
		m[path[0]] = sub
	}
	nest(sub, path[1:], v)
}

func TestJournalFields(t *testing.T) {
	var got map[string]string
	h := &journalHandler{min: slog.LevelInfo, send: func(_ string, _ journal.Priority, fields map[string]string) error {
		got = fields
		return nil
	}}
	slog.New(h).Info("x", "priority", 7, "_hidden", 1, "call id", 2, "1st", 3, "", 4, strings.Repeat("long", 50), 5)
	require.Equal(t, "7", got["HSAGENT_PRIORITY"])
	require.Equal(t, "1", got["X_HIDDEN"])
	require.Equal(t, "2", got["CALL_ID"])
	require.Equal(t, "3", got["X1ST"])
	for name := range got {
		require.Regexp(t, `^[A-Z][A-Z0-9_]{0,63}$`, name)
	}
}

// TestThreat26LogMasksTokens: whatever is logged, in any form, no token gets
// through.
func TestThreat26LogMasksTokens(t *testing.T) {
	say := func(log *slog.Logger) {
		log.Error("got "+madeUpToken, "error", errors.New("refused "+madeUpToken), "list", []string{madeUpToken},
			slog.Group("g", "any", map[string]string{"k": madeUpToken}), madeUpToken, 1)
		log.With("with", madeUpToken).WithGroup("g").Warn("x", "quoted", strconv.Quote(`"`+madeUpToken))
	}
	for _, format := range []string{formatText, formatJSON} {
		t.Run(format, func(t *testing.T) {
			var out bytes.Buffer
			say(newLogger(&env{stderr: maskingWriter{&out}}, format, slog.LevelDebug))
			require.NotContains(t, out.String(), "00000000-0000")
			require.Contains(t, out.String(), "pat-na1-***")
		})
	}
	t.Run(formatJournal, func(t *testing.T) {
		var out bytes.Buffer
		say(slog.New(&journalHandler{min: slog.LevelDebug, send: func(msg string, _ journal.Priority, fields map[string]string) error {
			out.WriteString(msg)
			for k, v := range fields {
				out.WriteString(k + "=" + v + "\n")
			}
			return nil
		}}))
		require.NotContains(t, strings.ToUpper(out.String()), "00000000")
		require.Contains(t, out.String(), "pat-na1-***")
	})
}
