package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

func newConfirm(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "confirm",
		Short:   "Answer for calls that a rule wants confirmed, as they come",
		Example: `hsctl confirm`,
		Long: `Each call that a rule with the effect confirm matches waits until somebody
answers here, or until the agent's confirm_timeout is over, which means no. Other
calls go on. Your user stands in the call's record. Only managers may answer.`,
		Args:        positional(0, 0),
		Annotations: exits(8),
		RunE:        func(cmd *cobra.Command, _ []string) error { return runConfirm(cmd.Context(), e) },
	}
}

func runConfirm(ctx context.Context, e *env) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	resp, err := c.Stream(ctx, http.MethodGet, "/v1/confirmations", url.Values{"follow": {"true"}}, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	events, ended := make(chan wire.Confirmation), make(chan error, 1)
	go func() {
		dec := json.NewDecoder(resp.Body)
		for {
			var q wire.Confirmation
			if err := dec.Decode(&q); err != nil {
				ended <- err
				return
			}
			select {
			case events <- q:
			case <-ctx.Done():
				return
			}
		}
	}()
	d := &desk{env: e, client: c, ask: make(chan struct{}), lines: make(chan typed)}
	go d.read(ctx)
	e.note("waiting for calls to confirm; end with Ctrl-C")
	for {
		if err := d.show(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				err = errors.New("the agent ended the connection: it stops, or too much was waiting")
			}
			return err
		case q := <-events:
			d.take(q)
		case l := <-d.lines:
			if err := d.answer(ctx, l); err != nil {
				return err
			}
		}
	}
}

// A desk is where somebody answers: one question at a time, the oldest first.
type desk struct {
	env    *env
	client *wire.Client
	queue  []wire.Confirmation
	open   string // the call whose question is on the screen, or ""

	ask    chan struct{} // wants a line
	lines  chan typed
	asking bool // a line is wanted and has not come
}

// A typed is a line that was typed, or why there is none.
type typed struct {
	text string
	err  error
}

// read reads a line whenever one is wanted.
func (d *desk) read(ctx context.Context) {
	r := bufio.NewReader(d.env.stdin)
	for range d.ask {
		if _, ok := terminal(d.env.stdin); ok {
			r.Reset(d.env.stdin)
		}
		text, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) && text != "" {
			err = nil
		}
		select {
		case d.lines <- typed{text, err}:
		case <-ctx.Done():
			return
		}
	}
}

// take notes a call that waits, or that no longer does.
func (d *desk) take(q wire.Confirmation) {
	if q.State == wire.ConfirmWaiting {
		d.queue = append(d.queue, q)
		return
	}
	i := slices.IndexFunc(d.queue, func(w wire.Confirmation) bool { return w.ID == q.ID })
	if i < 0 {
		return // answered here
	}
	d.queue = slices.Delete(d.queue, i, i+1)
	by := ""
	if q.By != "" {
		by = " by " + q.By
	}
	if d.open != q.ID {
		d.env.note("call %s for %s: %s%s", q.ID, q.Slug, q.State, by)
		return
	}
	d.open = ""
	_, _ = io.WriteString(d.env.stderr, "\n") // the end of the question's line
	d.env.complain(fmt.Sprintf("call %s for %s: %s%s; press Enter to go on", q.ID, q.Slug, q.State, by))
}

// show puts the oldest question on the screen, if none is there.
func (d *desk) show(ctx context.Context) error {
	if d.open != "" || d.asking || len(d.queue) == 0 {
		return nil
	}
	q := d.queue[0]
	d.open, d.asking = q.ID, true
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-8s%s\n", name, wire.Printable(wire.MaskTokens(value)))
		}
	}
	who := fmt.Sprintf("%s (uid %d, pid %d)", q.User, q.UID, q.PID)
	b.WriteString("\n")
	line("client", q.Slug)
	line("call", q.Method+" "+q.Path)
	line("caller", who)
	line("program", q.Exe)
	line("unit", q.Unit)
	line("reason", q.Reason)
	line("rule", q.Rule)
	line("until", q.ExpiresAt.String())
	b.WriteString("confirm? [y/n] ")
	if fd, ok := terminal(d.env.stdin); ok {
		flushInput(fd) // what was typed before the question shows is no answer to it
	}
	select {
	case d.ask <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := io.WriteString(d.env.stderr, b.String())
	return err
}

// answer takes a line as the answer to the open question.
func (d *desk) answer(ctx context.Context, l typed) error {
	d.asking = false
	if l.err != nil {
		return fmt.Errorf("no more answers: %w", l.err)
	}
	if d.open == "" {
		return nil // to a question that is no longer open
	}
	in := wire.ConfirmationAnswer{ID: d.open}
	d.open = ""
	switch strings.ToLower(strings.TrimSpace(l.text)) {
	case "y", "yes":
		in.Allow = true
	case "n", "no":
	default:
		d.env.complain("answer y or n")
		return nil // it is shown again
	}
	d.queue = d.queue[1:]
	var q wire.Confirmation
	err := d.client.Do(ctx, http.MethodPost, "/v1/confirmations", nil, in, &q)
	var p *wire.Problem
	if errors.As(err, &p) && p.Code == wire.CodeNotFound {
		d.env.complain(p.Detail)
		return nil
	}
	if err == nil {
		d.env.note("call %s for %s: %s", q.ID, q.Slug, q.State)
	}
	return err
}
