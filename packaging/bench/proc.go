package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is one that the bench started, with what it started in turn.
type process struct {
	cmd *exec.Cmd
	out *os.File
}

// start starts a program whose output goes to a file in dir.
func start(ctx context.Context, dir, name string, args ...string) (*process, error) {
	out, err := os.Create(filepath.Join(dir, filepath.Base(name)+".out"))
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, name, args...), out: out} //nolint:gosec // the peers, ours and the distribution's
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return p, nil
}

// stop ends the process and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = p.cmd.Wait()                          // as a rule the signal's own error
	_ = p.out.Close()                         // only a log
}

// said is what the process printed, for an error.
func (p *process) said() string {
	b, _ := os.ReadFile(p.out.Name()) // nothing then
	return strings.TrimSpace(string(b))
}

// pids are those of the process and of its children.
func (p *process) pids() []int {
	pids := []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pids[i])) // it may have ended
		for _, f := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// tick is the kernel's unit of a process's times on every Linux of today.
const tick = 10 * time.Millisecond

// cpu is the user and system time so far.
func (p *process) cpu() time.Duration {
	var sum time.Duration
	for _, pid := range p.pids() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // it may have ended
		_, rest, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		if len(f) < 13 {
			continue
		}
		for _, v := range f[11:13] {
			n, _ := strconv.Atoi(v) // the kernel's own figure
			sum += time.Duration(n) * tick
		}
	}
	return sum
}

// rss is the resident memory in MiB; pages that processes share count for each.
func (p *process) rss() float64 {
	var kib float64
	for _, pid := range p.pids() {
		kib += statusKiB(pid, "VmRSS:")
	}
	return kib / 1024
}

// statusKiB is a figure of /proc/PID/status.
func statusKiB(pid int, name string) float64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), name); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64) // the kernel's own figure
			return n
		}
	}
	return 0
}

// await waits until a socket takes connections.
func (p *process) await(socket string) error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			return c.Close()
		}
	}
	return fmt.Errorf("%s does not answer: %s", filepath.Base(p.cmd.Path), p.said())
}

// run runs a program to its end.
func run(ctx context.Context, stdin io.Reader, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // as above
	cmd.Stdin = stdin
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
