package standing

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

// A Process is a daemon that runs.
type Process struct {
	PID    int
	Socket string
	LogDir string // whose files, of which there are ever more, are not counted
}

// Holds is what a daemon holds that has to go back to what it was (I6):
// goroutines, connections of callers, descriptors, MiB of memory resident, and
// of that without the mapped files, which the kernel takes back.
func (p Process) Holds(t testing.TB) map[string]int {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.Socket)
	}}
	resp, err := (&http.Client{Transport: tr}).Get("http://" + wire.Host + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	out := map[string]int{}
	for line := range strings.Lines(string(text)) {
		name, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch name {
		case "go_goroutines", "hsagent_connections":
			out[name], err = strconv.Atoi(v)
			require.NoError(t, err)
		}
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID))
	require.NoError(t, err)
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && !strings.HasPrefix(to, p.LogDir+"/") { // it may be closed by now
			out["fds"]++
		}
	}
	out["rss_mib"] = p.Memory(t, "VmRSS:")
	out["anon_mib"] = p.Memory(t, "RssAnon:")
	return out
}

// Memory reads one figure of /proc/PID/status, in MiB.
func (p Process) Memory(t testing.TB, what string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	require.NoError(t, err)
	_, rest, ok := bytes.Cut(b, []byte(what))
	require.True(t, ok)
	var kib int
	_, err = fmt.Sscan(string(rest), &kib)
	require.NoError(t, err)
	return kib >> 10
}

// Rests waits until the daemon holds no more than the figures of most (I6), and
// returns what it holds then. Connections to HubSpot are kept for a minute or
// so, and memory is given back when there is nothing else to do.
func (p Process) Rests(t testing.TB, most map[string]int) map[string]int {
	t.Helper()
	var now map[string]int
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		now = p.Holds(t)
		for what, limit := range most {
			assert.LessOrEqual(c, now[what], limit, what)
		}
	}, 3*time.Minute, time.Second)
	return now
}

// Answers checks that the daemon tells how it is (I7), and returns how long
// that took.
func (p Process) Answers(t testing.TB) time.Duration {
	t.Helper()
	begin := time.Now()
	client := wire.NewClient(p.Socket)
	defer client.Close()
	_, err := client.Status(context.Background())
	require.NoError(t, err)
	return time.Since(begin)
}
