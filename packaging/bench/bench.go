package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hsagent/hsagentd/packaging/bench/upstream"
	"github.com/hsagent/hsagentd/wire"
)

// delay is how long the slow upstream takes.
const delay = 50 * time.Millisecond

// A row is a peer at a number of connections, with its rounds.
type row struct {
	Peer   string    `json:"peer"`
	Conns  int       `json:"connections"`
	Slow   bool      `json:"slowUpstream,omitempty"` // of 50 ms
	Rounds []measure `json:"rounds"`
	Median measure   `json:"median"`
}

// A ratio is a target and what became of it.
type ratio struct {
	Target string  `json:"target"`
	What   string  `json:"what"`
	Want   string  `json:"want"`
	Got    float64 `json:"got"`
	Met    bool    `json:"met"`
}

// A report is all of one run.
type report struct {
	When      time.Time          `json:"when"`
	Machine   string             `json:"machine"`
	Version   string             `json:"version"`
	Command   string             `json:"command"`
	Missing   []string           `json:"missing,omitempty"`
	Fdatasync float64            `json:"fdatasyncP50us,omitempty"` // of 300 bytes appended
	Rows      []*row             `json:"rows,omitempty"`
	RSS       map[string]float64 `json:"rssMiB,omitempty"`
	Figures   []figure           `json:"figures,omitempty"`
	Ratios    []ratio            `json:"ratios"`
}

func newReport(args ...string) *report {
	return &report{When: time.Now().UTC().Truncate(time.Second), Machine: machine(), Version: wire.Version, Command: "bench " + strings.Join(args, " "), RSS: map[string]float64{}}
}

// machine describes what this runs on.
func machine() string {
	model := "?"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(b), "model name\t: "); ok {
			model, _, _ = strings.Cut(rest, "\n")
		}
	}
	load, _ := os.ReadFile("/proc/loadavg") // "" then
	one, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("%d x %s, %s, %s; load before: %s", runtime.NumCPU(), model, kernel(), runtime.Version(), one)
}

func kernel() string {
	var u syscall.Utsname
	if syscall.Uname(&u) != nil {
		return runtime.GOOS
	}
	var b strings.Builder
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c)) //nolint:gosec // ASCII
	}
	return "Linux " + b.String()
}

// write writes the report as JSON.
func (r *report) write(file string) error {
	if file == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644) //nolint:gosec // nothing secret
}

func benchPeers(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench peers", flag.ContinueOnError)
	file := f.String("json", "", "write the figures to this file too")
	rounds := f.Int("rounds", 5, "how often each peer takes its turn")
	turn := f.Duration("time", 1500*time.Millisecond, "how long a turn is")
	bin := f.String("bin", "bin", "where hsagentd and hsctl are")
	only := f.String("only", "", "these peers alone, by their names with commas")
	conns := f.String("conns", "1,16,64", "numbers of connections")
	if err := f.Parse(args); err != nil {
		return err
	}
	counts, err := numbers(*conns)
	if err != nil {
		return err
	}
	rep := newReport(append([]string{"peers"}, args...)...)
	s, end, err := newStage(ctx, *bin)
	if err != nil {
		return err
	}
	defer end()
	ps, missing, err := s.peers(ctx)
	defer func() {
		for _, p := range ps {
			if p.proc != nil {
				p.proc.stop()
			}
		}
	}()
	if err != nil {
		return err
	}
	rep.Missing = missing
	if *only != "" {
		want := strings.Split(*only, ",")
		ps = slices.DeleteFunc(ps, func(p *peer) bool { return !slices.Contains(want, p.name) && p.proc == nil })
		ps = slices.DeleteFunc(ps, func(p *peer) bool { return !slices.Contains(want, p.name) })
	}
	var syncs []time.Duration
	for n := range *rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", n+1, *rounds)
		d, err := fdatasyncs(filepath.Join(s.dir, "syncs"), 300*time.Millisecond)
		if err != nil {
			return err
		}
		syncs = append(syncs, d...)
		for _, slow := range []bool{false, true} {
			for _, c := range counts {
				for _, p := range turns(ps, n) {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					if !slow || c != 16 {
						rep.add(p, c, slow, *turn)
					}
				}
			}
		}
	}
	slices.Sort(syncs)
	rep.Fdatasync = micros(quantile(syncs, 0.5))
	for _, p := range ps {
		if p.proc != nil {
			rep.RSS[p.name] = p.proc.rss()
		}
	}
	for _, r := range rep.Rows {
		r.Median = median(r.Rounds)
	}
	rep.judgePeers()
	rep.print(os.Stdout)
	return rep.write(*file)
}

// turns is the peers' order in a round: another one each time, so that nobody
// always follows the same.
func turns(ps []*peer, round int) []*peer {
	if len(ps) == 0 {
		return nil
	}
	k := round % len(ps)
	return slices.Concat(ps[k:], ps[:k])
}

// add gives a peer its turn.
func (r *report) add(p *peer, conns int, slow bool, turn time.Duration) {
	path := upstream.Path
	if slow {
		path = upstream.PathDelayed(delay)
	}
	before := time.Duration(0)
	if p.proc != nil {
		before = p.proc.cpu()
	}
	m := load(p.target(path), conns, turn, upstream.Body)
	if p.proc != nil && m.Good > 0 {
		m.CPU = micros(p.proc.cpu()-before) / float64(m.Good+conns)
	}
	x := r.row(p.name, conns, slow)
	if x == nil {
		x = &row{Peer: p.name, Conns: conns, Slow: slow}
		r.Rows = append(r.Rows, x)
	}
	x.Rounds = append(x.Rounds, m)
}

func (r *report) row(name string, conns int, slow bool) *row {
	for _, x := range r.Rows {
		if x.Peer == name && x.Conns == conns && x.Slow == slow {
			return x
		}
	}
	return nil
}

// median takes each figure's median by itself, and all that went wrong.
func median(ms []measure) measure {
	var m measure
	pick := func(get func(measure) float64) float64 {
		v := make([]float64, len(ms))
		for i := range ms {
			v[i] = get(ms[i])
		}
		return middle(v)
	}
	m.RPS = pick(func(m measure) float64 { return m.RPS })
	m.P50 = pick(func(m measure) float64 { return m.P50 })
	m.P99 = pick(func(m measure) float64 { return m.P99 })
	m.CPU = pick(func(m measure) float64 { return m.CPU })
	for _, x := range ms {
		m.Good += x.Good
		m.Bad += x.Bad
		if m.Error == "" {
			m.Error = x.Error
		}
	}
	return m
}

func middle(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// fdatasyncs appends 300 bytes and syncs them, over and over.
func fdatasyncs(path string, d time.Duration) ([]time.Duration, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	line := make([]byte, 300)
	var took []time.Duration
	for began := time.Now(); time.Since(began) < d; {
		t := time.Now()
		if _, err := f.Write(line); err != nil {
			return nil, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return nil, err
		}
		took = append(took, time.Since(t))
	}
	return took, nil
}
