package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hsagent/hsagentd/packaging/bench/upstream"
)

// A figure is something measured that is no peer under load.
type figure struct {
	What string  `json:"what"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90,omitempty"`
	Unit string  `json:"unit"`
	N    int     `json:"n,omitempty"`
}

// note adds a figure that was taken once.
func (r *report) note(what string, v float64, unit string) {
	r.Figures = append(r.Figures, figure{What: what, P50: v, Unit: unit})
}

// times adds a figure that was taken often, and returns its median in ms.
func (r *report) times(what string, took []time.Duration) float64 {
	slices.Sort(took)
	f := figure{What: what, P50: micros(quantile(took, 0.5)) / 1000, P90: micros(quantile(took, 0.9)) / 1000, Unit: "ms", N: len(took)}
	r.Figures = append(r.Figures, f)
	return f.P50
}

func (r *report) printFigures(w io.Writer) {
	if len(r.Figures) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	line(t, "what", "p50", "p90", "unit", "n")
	line(t, "---", "---", "---", "---", "---")
	for _, f := range r.Figures {
		line(t, f.What, fmt.Sprintf("%.2f", f.P50), blank("%.2f", f.P90), f.Unit, blank("%.0f", float64(f.N)))
	}
	_ = t.Flush() // w is a terminal or a pipe
	fmt.Fprintln(w)
}

// A cliBench is one run of bench cli.
type cliBench struct {
	*stage
	rep  *report
	runs int
	soak time.Duration
}

func benchCLI(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench cli", flag.ContinueOnError)
	file := f.String("json", "", "write the figures to this file too")
	runs := f.Int("runs", 40, "how often each program is run")
	logs := f.String("logs", "", "audit logs that make fill has written, with commas; records are added to them")
	soak := f.Duration("soak", 30*time.Second, "how long 100 calls a second are made, and 8 processes contend for a limit")
	only := f.String("only", "", "these parts alone, with commas: call, onboard, reload, limit, start (with queries and memory)")
	bin := f.String("bin", "bin", "where hsagentd and hsctl are")
	if err := f.Parse(args); err != nil {
		return err
	}
	s, end, err := newStage(ctx, *bin)
	if err != nil {
		return err
	}
	defer end()
	b := &cliBench{stage: s, rep: newReport(append([]string{"cli"}, args...)...), runs: *runs, soak: *soak}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"call", b.call}, {"onboard", b.onboardings}, {"reload", b.reloads}, {"limit", b.limit},
		{"start", func(ctx context.Context) error { return b.logs(ctx, *logs) }},
	} {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), part.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "part:", part.name)
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	b.rep.print(os.Stdout)
	return b.rep.write(*file)
}

// fresh installs an agent with the client in a directory of its own.
func (b *cliBench) fresh(ctx context.Context, name string) (*installation, *process, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, nil, err
	}
	i, err := install(ctx, b.bin, dir, b.up)
	if err != nil {
		return nil, nil, err
	}
	p, err := i.start(ctx)
	if err == nil {
		err = i.onboard(ctx)
	}
	return i, p, err
}

// call runs whole processes that make one call each: hsctl, curl on the same
// socket, and curl with the token straight to the upstream.
func (b *cliBench) call(ctx context.Context) error {
	i, p, err := b.fresh(ctx, "call")
	if err != nil {
		return err
	}
	defer p.stop()
	curl, err := exec.LookPath("curl")
	if err != nil {
		b.rep.Missing = append(b.rep.Missing, err.Error())
		return nil
	}
	// Not as an argument: that is how a careful user does it too.
	conf := filepath.Join(i.dir, "curlrc")
	if err := os.WriteFile(conf, []byte("header = \"Authorization: Bearer "+upstream.Token(portal)+"\"\n"), 0o600); err != nil {
		return err
	}
	took, err := b.inTurn(ctx,
		[]string{i.hsctl(), "--socket", i.socket, "call", slug, "GET", upstream.Path},
		[]string{curl, "-s", "--fail", "--unix-socket", i.socket, "http://hsagent" + callPath(upstream.Path)},
		[]string{curl, "-s", "--fail", "-K", conf, "--cacert", filepath.Join(b.dir, "ca.pem"), b.up.URL + upstream.Path},
		[]string{"/bin/true"},
	)
	if err != nil {
		return err
	}
	unix, straight := paired(took[0], took[1]), paired(took[0], took[2])
	b.rep.times("hsctl call, whole process", took[0])
	b.rep.times("curl --unix-socket, whole process", took[1])
	b.rep.times("curl to the TLS upstream, whole process", took[2])
	b.rep.times("/bin/true, whole process", took[3])
	b.rep.judge("T10", "hsctl call / curl --unix-socket", unix, false, 0.45)
	b.rep.judge("T10", "hsctl call / curl to the TLS upstream", straight, false, 0.35)
	return nil
}

// inTurn runs each command b.runs times, in turn. Each must print the
// upstream's body, but for /bin/true.
func (b *cliBench) inTurn(ctx context.Context, cmds ...[]string) ([][]time.Duration, error) {
	took := make([][]time.Duration, len(cmds))
	for n := range b.runs + 1 {
		for j, c := range cmds {
			cmd := exec.CommandContext(ctx, c[0], c[1:]...) //nolint:gosec // the bench's own list
			began := time.Now()
			out, err := cmd.Output()
			d := time.Since(began)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c[0], err)
			}
			if c[0] != "/bin/true" && string(out) != string(upstream.Body) {
				return nil, fmt.Errorf("%s printed another body than the upstream's", c[0])
			}
			if n > 0 { // the first warms the caches
				took[j] = append(took[j], d)
			}
		}
	}
	return took, nil
}

// paired is the median of a's time over b's of the same turn.
func paired(a, b []time.Duration) float64 {
	v := make([]float64, len(a))
	for i := range a {
		v[i] = float64(a[i]) / float64(b[i])
	}
	return middle(v)
}

// onboardings times hsctl onboard --csv.
func (b *cliBench) onboardings(ctx context.Context) error {
	for _, n := range []int{100, 1000} {
		i, p, err := b.fresh(ctx, fmt.Sprintf("onboard-%d", n))
		if err != nil {
			return err
		}
		var csv strings.Builder
		for k := range n {
			fmt.Fprintf(&csv, "client-%d,%s,%d\n", k, upstream.Token(int64(upstream.Crowd+k)), upstream.Crowd+k)
		}
		list := filepath.Join(i.dir, "list.csv")
		if err := os.WriteFile(list, []byte(csv.String()), 0o600); err != nil {
			return err
		}
		began := time.Now()
		err = run(ctx, nil, i.hsctl(), "--socket", i.socket, "onboard", "--csv", list)
		took := time.Since(began)
		p.stop()
		if err != nil {
			return err
		}
		b.rep.note(fmt.Sprintf("hsctl onboard --csv of %d portals, verified and written", n), took.Seconds()*1000, "ms")
	}
	return nil
}

// once makes one call at a socket and returns what is wrong with its answer.
func once(socket, path string) error {
	r, err := connect(viaSocket(socket, path), upstream.Body)
	if err != nil {
		return err
	}
	defer r.conn.Close()
	return r.once()
}

// firstAnswer starts a program and calls until it has answered.
func firstAnswer(ctx context.Context, socket, path string, boot func(context.Context) (*process, error)) (time.Duration, *process, error) {
	_ = os.Remove(socket) // of the run before; it may not be there
	began := time.Now()
	p, err := boot(ctx)
	if err != nil {
		return 0, nil, err
	}
	for {
		if err = once(socket, path); err == nil {
			return time.Since(began), p, nil
		}
		if took := time.Since(began); took > time.Minute {
			return took, p, errors.Join(err, errors.New(p.said()))
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// get reads a path of the agent's API to its end.
func get(ctx context.Context, c *http.Client, path string, w io.Writer) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hsagent"+path, nil)
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", path, resp.Status)
	}
	return io.Copy(w, resp.Body)
}

// none is no target.
func none() float64 { return math.NaN() }
