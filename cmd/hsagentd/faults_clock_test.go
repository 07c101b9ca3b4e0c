//go:build faults

package main_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// skewed builds a daemon whose wall clock is off by as many seconds as the file
// says; the clock that only goes forward stays as it is, as when somebody sets
// a machine's time. No kernel gives a process a wall clock of its own: the
// standard library is built with an overlay.
func skewed(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	library := filepath.Join(strings.TrimSpace(string(out)), "src", "time", "time.go")
	b, err := os.ReadFile(library)
	require.NoError(t, err)
	const reading = "sec, nsec, mono := runtimeNow()\n"
	parts := strings.Split(string(b), "func Now() Time {\n\t"+reading)
	require.Len(t, parts, 2, "time.Now is not what it was")
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	here, err := os.Getwd()
	require.NoError(t, err)
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		library: write("time.go", parts[0]+"func Now() Time {\n\t"+reading+"\tsec += Skew()\n"+parts[1]),
		filepath.Join(filepath.Dir(library), "skew.go"): write("skew.go", `package time

import "sync/atomic"

var skew atomic.Int64

func Skew() int64 { return skew.Load() }

func SetSkew(sec int64) { skew.Store(sec) }
`),
		filepath.Join(here, "skew.go"): write("main.go", `package main

import (
	"os"
	"strconv"
	"time"
)

func init() {
	read := func() {
		b, err := os.ReadFile(`+strconv.Quote(file)+`)
		if n, perr := strconv.ParseInt(string(b), 10, 64); err == nil && perr == nil {
			time.SetSkew(n)
		}
	}
	read()
	go func() {
		for {
			read()
			time.Sleep(time.Millisecond)
		}
	}()
}
`),
	}})
	require.NoError(t, err)
	program := filepath.Join(dir, "hsagentd")
	build := exec.Command("go", "build", "-overlay", write("overlay.json", string(overlay)), "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	said, err := build.CombinedOutput()
	require.NoError(t, err, "%s", said)
	return program
}

// The machine's clock is set back and forth under load, by an hour, by years,
// to 1970 and beyond 2038, and a hundred times a second: no call fails, and the
// log has its order.
func TestFaultClock(t *testing.T) {
	s := newSite(t, 3)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	plain := &http.Server{Handler: s.hub, ReadHeaderTimeout: time.Minute}
	go func() { _ = plain.Serve(l) }() // until it is closed
	t.Cleanup(func() { _ = plain.Close() })
	s.url = "http://" + l.Addr().String() // a certificate would be of another time
	file := s.path("skew")
	s.wrap = []string{"sh", "-c", "shift && exec " + skewed(t, file) + ` "$@"`, "sh"}
	set := func(skew time.Duration) {
		require.NoError(t, os.WriteFile(file+".new", []byte(strconv.FormatInt(int64(skew/time.Second), 10)), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	set(0)
	cmd := s.start()
	ctx, cancel := context.WithCancel(t.Context())
	wg, failed := s.flawless(ctx, 8)
	const year = 365 * 24 * time.Hour
	now := time.Now()
	until := func(year int) time.Duration { return time.Date(year, 1, 20, 0, 0, 0, 0, time.UTC).Sub(now) }
	var slowest time.Duration
	pass := func() { // some calls, on this clock
		for range 50 {
			begin := time.Now()
			require.NoError(t, s.call(), s.logs())
			slowest = max(slowest, time.Since(begin))
		}
	}
	for _, skew := range []time.Duration{time.Hour, -time.Hour, 10 * year, -10 * year, until(1970), until(2038), 0} {
		set(skew)
		pass()
		s.status()
	}
	steps := 0
	for begin := time.Now(); time.Since(begin) < 3*time.Second; steps++ {
		set(rand.N(20*year) - 10*year)
		time.Sleep(10 * time.Millisecond) // a hundred times a second
	}
	set(0)
	pass()
	cancel()
	wg.Wait()
	require.LessOrEqual(t, failed.Load(), int64(8), "calls failed, and not only those that the test's end broke off")
	s.end(cmd)
	set(until(1970))
	s.end(s.start()) // a start in the past
	s.requireWhole()

	store, err := auditstore.Open(t.Context(), auditstore.Config{Dir: s.audit, Actor: "test"})
	require.NoError(t, err)
	first, last := 9999, 0
	require.NoError(t, store.Records(t.Context(), chain.Filter{}, func(_ []byte, r *chain.Record) error {
		first, last = min(first, r.TS.Year()), max(last, r.TS.Year())
		return nil
	}))
	require.NoError(t, store.Close())
	require.Equal(t, []int{1970, 2038}, []int{first, last}, "the control: the records have the times that were set")
	t.Logf("%d calls on 7 clocks and in %d steps, 0 failed; the slowest of those that were timed took %v", s.calls.Load(), steps, slowest)
}
