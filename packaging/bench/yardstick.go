package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/packaging/bench/upstream"
)

// serveUpstream is the upstream's process: it prints where it is and how to
// trust it, and serves until it is told to stop.
func serveUpstream(ctx context.Context) error {
	s, err := upstream.Start()
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Printf("%s\n%send\n", s.URL, s.CAPEM)
	<-ctx.Done()
	return nil
}

// readUpstream reads what serveUpstream has printed.
func readUpstream(p *process) (*upstream.Server, error) {
	for range 1000 {
		if text, ok := strings.CutSuffix(p.said(), "\nend"); ok {
			url, pem, _ := strings.Cut(text, "\n")
			return &upstream.Server{URL: url, CAPEM: []byte(pem)}, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, fmt.Errorf("the upstream does not start: %s", p.said())
}
