// Fill writes an audit log for benchmarks: the calls of a made-up fleet over a
// year. It goes through the store's own encoding, so that the log opens and
// verifies like any other.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"time"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/auditstore/fill"
)

func main() {
	var cfg fill.Config
	dir := flag.String("dir", "", "directory of the log, which must be empty or missing")
	flag.IntVar(&cfg.Records, "n", 1_000_000, "about how many records")
	flag.IntVar(&cfg.Slugs, "slugs", 100, "how many clients")
	flag.Uint64Var(&cfg.Seed, "seed", 1, "the same seed gives the same calls")
	flag.IntVar(&cfg.Kills, "kills", 12, "how often the agent is killed in the middle of calls")
	flag.Parse()
	debug.SetMemoryLimit(memoryLimit)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *dir, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fill:", err)
		os.Exit(1)
	}
}

// memoryLimit is the daemon's.
const memoryLimit = 96 << 20

// chunk is how many records may wait to become durable.
const chunk = 4096

func run(ctx context.Context, dir string, cfg fill.Config) (err error) {
	if dir == "" {
		return errors.New("say where: make fill N=1000000 DIR=/tmp/audit")
	}
	s, err := auditstore.Open(ctx, auditstore.Config{Dir: dir, Actor: "hsagentd/fill", Lag: time.Minute})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if n := s.Status().Size; n > 0 {
		return fmt.Errorf("%s holds a log of %d records already", dir, n)
	}
	began, told, n := time.Now(), time.Now(), 0
	err = fill.Generate(cfg, func(rec chain.Record) error {
		if err := s.AppendLazy(rec); err != nil {
			return err
		}
		if n++; n%chunk != 0 {
			return nil
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			fmt.Fprintf(os.Stderr, "fill: %d records\n", n)
		}
		return errors.Join(s.Flush(ctx), s.Unmap())
	}, nil)
	if err != nil {
		return err
	}
	if err := s.Flush(ctx); err != nil {
		return err
	}
	took := time.Since(began)
	fmt.Fprintf(os.Stderr, "fill: %d records of %d clients in %s, %.0f a second\n", n, cfg.Slugs, took.Round(time.Millisecond), float64(n)/took.Seconds())
	return nil
}
