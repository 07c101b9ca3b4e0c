package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/packaging/bench/upstream"
	"github.com/hsagent/hsagentd/wire"
)

// settle is how long an agent is left alone before its memory is weighed: it
// gives back what it does not use every ten seconds.
const settle = 12 * time.Second

// discard takes everything.
type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func socketTransport(socket string) *http.Transport {
	return &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
}

// logs measures an agent on an empty log, and on each of those given.
func (b *cliBench) logs(ctx context.Context, list string) error {
	dirs := []string{""}
	if list != "" {
		dirs = append(dirs, strings.Split(list, ",")...)
	}
	for k, dir := range dirs {
		if err := b.onLog(ctx, fmt.Sprintf("log-%d", k), dir); err != nil {
			return err
		}
	}
	return nil
}

// onLog measures start, memory, queries and size.
func (b *cliBench) onLog(ctx context.Context, name, dir string) error {
	i, p, err := b.fresh(ctx, name)
	if err != nil {
		return err
	}
	p.stop()
	if dir != "" {
		if dir, err = filepath.Abs(dir); err != nil {
			return err
		}
		i.flags = append(i.flags, "--audit-dir", dir) // the last one counts
	}
	var size, last uint64
	var ours, theirs, stops []time.Duration
	for range min(b.runs, 15) {
		took, p, err := firstAnswer(ctx, i.socket, callPath("/crm/v3/objects/contacts?limit=10"), i.boot)
		if err != nil {
			return err
		}
		began := time.Now()
		p.stop()
		ours, stops = append(ours, took), append(stops, time.Since(began))
		took, err = b.nginxStart(ctx)
		if err != nil {
			return err
		}
		if took > 0 {
			theirs = append(theirs, took)
		}
	}
	if p, err = i.start(ctx); err != nil {
		return err
	}
	defer p.stop()
	c := wire.NewClient(i.socket)
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	size, last = st.Audit.Size, st.Audit.Size
	sleep(ctx, settle)
	of := fmt.Sprintf("a log of %s", count(size))
	want, idle := none(), none()
	if size > 900_000 && size < 2_000_000 {
		want, idle = 2, 32
	}
	if ratio := paired(ours[:len(theirs)], theirs); len(theirs) > 0 {
		b.rep.judge("T11", "exec to first audited answer on "+of+" / nginx", ratio, false, want)
	}
	b.rep.times("exec to first audited answer on "+of, ours)
	b.rep.times("SIGTERM to exit on "+of, stops)
	if len(theirs) > 0 {
		b.rep.times("exec to first answer, nginx", theirs)
	}
	b.rep.judge("T12", "RSS MiB idle after a start on "+of, p.rss(), false, idle)
	b.rep.note("of it in the process's own memory, on "+of, statusKiB(p.cmd.Process.Pid, "RssAnon:")/1024, "MiB")
	if last < 1000 {
		return b.pace(ctx, i, p, of)
	}
	if err := b.queries(ctx, i, of, size); err != nil {
		return err
	}
	return b.pace(ctx, i, p, of)
}

// count writes a number of records.
func count(n uint64) string {
	switch {
	case n < 1000:
		return "a few records"
	case n < 1_000_000:
		return fmt.Sprintf("%d thousand records", (n+500)/1000)
	}
	return fmt.Sprintf("%.1f million records", float64(n)/1e6)
}

// boot starts the agent and does not wait.
func (i *installation) boot(ctx context.Context) (*process, error) {
	return start(ctx, i.dir, i.hsagentd(), i.flags...)
}

// nginxStart is nginx's time to its first answer; 0: there is none.
func (b *cliBench) nginxStart(ctx context.Context) (time.Duration, error) {
	dir := filepath.Join(b.dir, nginx)
	if _, err := lookPath(nginx); err != nil {
		return 0, nil //nolint:nilerr // it is missing, as the report says
	}
	if err := os.RemoveAll(dir); err != nil {
		return 0, err
	}
	var p *peer
	began := time.Now()
	p, err := b.nginx(ctx)
	if err == nil {
		err = once(filepath.Join(dir, "sock"), "/crm/v3/objects/contacts?limit=10")
	}
	took := time.Since(began)
	if p != nil {
		p.proc.stop()
	}
	return took, err
}

// pace makes 100 calls a second for a while.
func (b *cliBench) pace(ctx context.Context, i *installation, p *process, of string) error {
	r, err := connect(viaSocket(i.socket, callPath("/crm/v3/objects/contacts?limit=10")), nil)
	if err != nil {
		return err
	}
	defer r.conn.Close()
	r.want = upstream.Body
	r.got = make([]byte, len(r.want))
	cpu := p.cpu()
	calls := 0
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var took []time.Duration
	for began := time.Now(); time.Since(began) < b.soak && ctx.Err() == nil; calls++ {
		<-tick.C
		t := time.Now()
		if err := r.once(); err != nil {
			return err
		}
		took = append(took, time.Since(t))
	}
	cpu = p.cpu() - cpu
	sleep(ctx, settle)
	b.rep.times("a call at 100 a second on "+of, took)
	b.rep.note("CPU per call at 100 a second on "+of, micros(cpu)/float64(calls), "us")
	b.rep.judge("T12", fmt.Sprintf("RSS MiB after 100 calls a second for %v on %s", b.soak, of), p.rss(), false, 64)
	return nil
}

// queries measures one slug's month, beside jq over the same records as JSONL.
func (b *cliBench) queries(ctx context.Context, i *installation, of string, size uint64) error {
	api := &http.Client{Transport: socketTransport(i.socket)}
	jsonl := filepath.Join(b.dir, "records.jsonl")
	f, err := os.Create(jsonl)
	if err != nil {
		return err
	}
	defer os.Remove(jsonl)
	w := bufio.NewWriterSize(f, 1<<20)
	m := &months{w: w, seen: map[string]int{}}
	bytes, err := get(ctx, api, "/v1/audit/records?limit=0", m)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return err
	}
	dir := i.flags[len(i.flags)-1]
	b.rep.judge("T9", "disk / JSONL, "+of, float64(diskOf(dir))/float64(bytes), false, 0.5)
	b.rep.note("JSONL per record, "+of, float64(bytes)/float64(size), "bytes")

	name, n := m.nearest(822)
	from, to := monthOf, "2026-06-30"
	query := fmt.Sprintf("/v1/audit/records?slug=%s&from=%s-01&to=%s&limit=0", name, from, to)
	var took, whole []time.Duration
	for k := range 21 {
		t := time.Now()
		if _, err := get(ctx, api, query, discard{}); err != nil {
			return err
		}
		if k > 0 {
			took = append(took, time.Since(t))
		}
		t = time.Now()
		if err := run(ctx, nil, i.hsctl(), "--socket", i.socket, "audit", "query", "--slug", name, "--from", from+"-01", "--to", to, "--limit", "0", "-o", "json"); err != nil {
			return err
		}
		whole = append(whole, time.Since(t))
	}
	want := none()
	if size < 2_000_000 && size > 900_000 {
		want = 4
	}
	p50 := b.rep.times(fmt.Sprintf("a slug's month, %d records, over the socket, %s", n, of), took)
	b.rep.judge("T8", fmt.Sprintf("a slug's month, ms, %s", of), p50, false, want)
	b.rep.judge("T8", "us per record returned, "+of, p50*1000/float64(max(n, 1)), false, none())
	p50 = b.rep.times("hsctl audit query of it, whole process", whole)
	jq, err := exec.LookPath("jq")
	if err != nil || size > 2_000_000 {
		return nil // without it there is nothing to compare
	}
	began := time.Now()
	expr := fmt.Sprintf(`select(.clientSlug == %q and (.ts | startswith(%q)))`, name, from)
	if err := run(ctx, nil, jq, "-c", expr, jsonl); err != nil {
		return err
	}
	jqTook := time.Since(began)
	b.rep.note("jq over the JSONL of it", jqTook.Seconds()*1000, "ms")
	b.rep.judge("T8", "jq / hsctl audit query, whole processes, "+of, jqTook.Seconds()*1000/p50, true, 150)
	return nil
}

// monthOf is the month that is asked for.
const monthOf = "2026-06"

// months passes JSONL on and counts each slug's records of the month.
type months struct {
	w    *bufio.Writer
	rest []byte
	seen map[string]int
}

func (m *months) Write(b []byte) (int, error) {
	m.rest = append(m.rest, b...)
	for {
		line, rest, ok := bytes.Cut(m.rest, []byte("\n"))
		if !ok {
			break
		}
		if bytes.Contains(line, []byte(`"ts":"`+monthOf)) {
			var r struct {
				ClientSlug string `json:"clientSlug"`
			}
			if err := json.Unmarshal(line, &r); err != nil {
				return 0, err
			}
			m.seen[r.ClientSlug]++
		}
		m.rest = rest
	}
	m.rest = append([]byte(nil), m.rest...)
	return m.w.Write(b)
}

// nearest is the slug whose month has about n records.
func (m *months) nearest(n int) (string, int) {
	best, have := "", 0
	for s, k := range m.seen {
		if s != "" && (best == "" || abs(k-n) < abs(have-n)) {
			best, have = s, k
		}
	}
	return best, have
}

func abs(n int) int { return max(n, -n) }

func diskOf(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // what cannot be read is not counted
		if err == nil && d.Type().IsRegular() && !strings.HasSuffix(d.Name(), ".mem") { // sparse, and replaced at the next close
			if fi, err := d.Info(); err == nil {
				sum += fi.Size()
			}
		}
		return nil
	})
	return sum
}
