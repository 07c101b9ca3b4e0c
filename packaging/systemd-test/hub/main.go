// Command hub is the HubSpot of the systemd test: the sandbox on a loopback
// port, inside the booted system. It writes base.txt, ca.pem and token (of
// acme-corp) into the directory that it is given, and serves until it is
// killed.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "hub:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	play := sandbox.Demo()
	hub, err := sandbox.New(play).Start()
	if err != nil {
		return err
	}
	defer hub.Close()
	for _, f := range []struct{ name, text string }{
		{"ca.pem", string(hub.CAPEM)},
		{"token", play.Portals[0].Token.Reveal() + "\n"}, // made up, good here alone
		{"base.txt", hub.URL},                            // last: the others are there when it is
	} {
		//nolint:gosec // the service, which is another user, reads them
		if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.text), 0o644); err != nil {
			return err
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	<-stop
	return nil
}
