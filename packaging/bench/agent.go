package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hsagent/hsagentd/packaging/bench/upstream"
	"github.com/hsagent/hsagentd/wire"
)

// slug and portal are the client that calls are made for.
const (
	slug   = "bench"
	portal = 1000
)

// An installation is an hsagentd with its own files, as a user would have it.
type installation struct {
	bin    string // where hsagentd and hsctl are
	dir    string
	socket string
	flags  []string
}

// install makes identity, store and config below dir, with the real program.
func install(ctx context.Context, bin, dir string, up *upstream.Server) (*installation, error) {
	i := &installation{bin: bin, dir: dir, socket: filepath.Join(dir, "agent.sock")}
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, up.CAPEM, 0o600); err != nil {
		return nil, err
	}
	i.flags = []string{
		"--config", filepath.Join(dir, "config.toml"), "--socket", i.socket, "--store", filepath.Join(dir, "store.age"),
		"--identity", filepath.Join(dir, "identity.txt"), "--audit-dir", filepath.Join(dir, "audit"),
		"--upstream", up.URL, "--upstream-ca", ca,
	}
	return i, run(ctx, nil, i.hsagentd(), append([]string{"init"}, i.flags...)...)
}

func (i *installation) hsctl() string    { return filepath.Join(i.bin, "hsctl") }
func (i *installation) hsagentd() string { return filepath.Join(i.bin, "hsagentd") }

// start starts the agent and waits until it answers.
func (i *installation) start(ctx context.Context) (*process, error) {
	p, err := start(ctx, i.dir, i.hsagentd(), i.flags...)
	if err != nil {
		return nil, err
	}
	return p, p.await(i.socket)
}

// onboard gives the agent the client.
func (i *installation) onboard(ctx context.Context) error {
	s, err := wire.ParseSlug(slug)
	if err != nil {
		return err
	}
	c := wire.NewClient(i.socket)
	defer c.Close()
	if _, err := c.Onboard(ctx, s, wire.NewToken(upstream.Token(portal)), portal, "", false); err != nil {
		return fmt.Errorf("onboard %s: %w", slug, err)
	}
	return nil
}

func callPath(path string) string { return "/v1/call/" + slug + path }
