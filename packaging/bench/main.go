// Command bench measures hsagentd and hsctl beside what a user would take
// instead. It starts everything itself, below a temporary directory:
//
//	bench peers [-json FILE] [-rounds N] [-time D]
//	bench cli   [-json FILE] [-runs N] [-logs DIR,…]
//
// The peers are those that the machine has; nothing is installed, and no
// service of the distribution is started. Absolute figures move with the
// machine and its other work: peers take turns in every round, and what counts
// are the ratios within a round.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/hsagent/hsagentd/packaging/bench/upstream"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want: bench peers or bench cli; -help tells more")
	}
	switch args[0] {
	case "peers":
		return benchPeers(ctx, args[1:])
	case "cli":
		return benchCLI(ctx, args[1:])
	case "proxy": // the bench starts itself so
		return serveProxy(ctx, args[1:])
	case "upstream":
		return serveUpstream(ctx)
	}
	return fmt.Errorf("no such bench: %s", args[0])
}

// newStage makes the directory and starts the upstream as a process of its own.
func newStage(ctx context.Context, bin string) (s *stage, end func(), err error) {
	dir, err := os.MkdirTemp("/tmp", "hsbench-") // a socket's path has no more than 107 bytes
	if err != nil {
		return nil, nil, err
	}
	end = func() { _ = os.RemoveAll(dir) } // best effort
	defer func() {
		if err != nil {
			end()
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // nginx's workers run as another user
		return nil, nil, err
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return nil, nil, err
	}
	up, proc, err := startUpstream(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	rm := end
	end = func() { proc.stop(); rm() }
	return &stage{bin: bin, dir: dir, up: up, addr: up.URL[len("https://"):], roots: pool(up.CAPEM)}, end,
		os.WriteFile(filepath.Join(dir, "ca.pem"), up.CAPEM, 0o644) //nolint:gosec // nothing secret
}

func pool(pem []byte) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(pem)
	return p
}

// startUpstream starts the yardstick as a process, so that its work and its
// memory are not the load generator's.
func startUpstream(ctx context.Context, dir string) (*upstream.Server, *process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	p, err := start(ctx, dir, self, "upstream")
	if err != nil {
		return nil, nil, err
	}
	up, err := readUpstream(p)
	if err != nil {
		p.stop()
		return nil, nil, err
	}
	return up, p, nil
}
