package main

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

// maxNote bounds what a checkpoint or a key may be.
const maxNote = 64 << 10

func newAuditCheckpoint(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "checkpoint",
		Short: "Print a signed checkpoint of the log",
		Example: `hsctl audit checkpoint
hsctl audit checkpoint | ssh backup 'cat >> checkpoints'`,
		Long: `The checkpoint is a signed note (C2SP tlog-checkpoint): the log's name, its size
and its root hash. Kept where nobody who can write the log can change it, it
shows that all records up to it are still there and unchanged.`,
		Args:        positional(0, 0),
		Annotations: exits(8, 12),
		RunE:        func(cmd *cobra.Command, _ []string) error { return printText(cmd.Context(), e, "/v1/audit/checkpoint") },
	}
}

func newAuditKey(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "key",
		Short:   "Print the key that verifies checkpoints and exports",
		Example: `hsctl audit key > acme-audit.pub`,
		Long: `The key is public, in the form of signed notes: name+hash+base64. Give it to
whoever is to verify an export; they must get it from you, not with the export.`,
		Args:        positional(0, 0),
		Annotations: exits(8, 12),
		RunE:        func(cmd *cobra.Command, _ []string) error { return printText(cmd.Context(), e, "/v1/audit/key") },
	}
}

// printText prints a plain text of the agent's.
func printText(ctx context.Context, e *env, path string) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	text, err := fetchText(ctx, c, path)
	if err != nil {
		return err
	}
	return e.writeJSON([]byte(text)) // escapes what could steer a terminal
}

func fetchText(ctx context.Context, c *wire.Client, path string) (string, error) {
	resp, err := c.Stream(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxNote))
	if err != nil {
		return "", fmt.Errorf("read the agent's answer: %w", err)
	}
	return string(b), nil
}
