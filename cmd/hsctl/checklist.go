package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// stepTexts say in words what the agent ticks.
var stepTexts = map[string]string{
	wire.StepStoreWritten:     "the new token is in the store",
	wire.StepNewTokenVerified: "HubSpot names the same portal for it",
	wire.StepCRMReadAnswered:  "a read of CRM data with it was answered",
	wire.StepSeenInRecords:    "the audit log shows calls with it",
	wire.StepOldTokenRefused:  "HubSpot refuses the old token",
}

// A box is one line of a checklist.
type box struct {
	consumer bool // somebody has to tick it
	name     string
	done     bool
	at       *wire.Time
	detail   string
	check    string // a command to look with
}

// boxes are what a rotation takes, in the order in which it is done: every
// consumer has the new token before the old one ends.
func boxes(r *wire.Rotation) []box {
	var first, last []box
	for _, s := range r.Steps {
		b := box{name: s.Name, done: s.Done, at: s.At, detail: s.Detail}
		if s.Name == wire.StepOldTokenRefused {
			last = append(last, b)
		} else {
			first = append(first, b)
		}
	}
	for _, c := range r.Consumers {
		first = append(first, box{consumer: true, name: c.Name, done: c.Done, at: c.At, detail: c.HowTo, check: c.Check})
	}
	return append(first, last...)
}

// unconfirmed are the names of the consumers that have not confirmed.
func unconfirmed(r *wire.Rotation) []string {
	var names []string
	for _, c := range r.Consumers {
		if !c.Done {
			names = append(names, c.Name)
		}
	}
	return names
}

// emitRotation shows one rotation: a checklist instead of a table.
func (e *env) emitRotation(r *wire.Rotation) error {
	if e.format() == formatTable {
		return writeChecklist(e.stdout, r, e.colors())
	}
	return e.emit(r, func() *table {
		t := &table{header: []string{"slug", "kind", "name", "done", "at", "detail"}}
		for _, b := range boxes(r) {
			kind := "step"
			if b.consumer {
				kind = "consumer"
			}
			t.rows = append(t.rows, []cell{text(r.Slug), text(kind), text(b.name), text(b.done), moment(b.at), text(b.detail)})
		}
		return t
	})
}

// writeChecklist writes a rotation for people.
func writeChecklist(w io.Writer, r *wire.Rotation, colors bool) error {
	paint := func(c cell) string {
		s := wire.Printable(wire.MaskTokens(c.text))
		if colors && c.sgr != "" {
			return "\x1b[" + c.sgr + "m" + s + "\x1b[0m"
		}
		return s
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, portal %d: %s\n", paint(text(r.Slug)), r.PortalID, paint(rotationCell(r.State)))
	fmt.Fprintf(&b, "new token %s since %s, old token %s", paint(text(r.NewFingerprint)), paint(moment(&r.StartedAt)), paint(text(r.OldFingerprint)))
	if !r.GraceEndsAt.IsZero() && r.State == wire.RotationSwitched {
		fmt.Fprintf(&b, " until %s", paint(moment(&r.GraceEndsAt)))
	}
	b.WriteString("\n\n")
	for _, x := range boxes(r) {
		mark, what := "[ ]", x.name
		if s, ok := stepTexts[x.name]; ok && !x.consumer {
			what = s
		}
		if x.consumer {
			what += " has it"
		}
		if x.done {
			mark = paint(cell{"[x]", green})
		}
		if x.at != nil && x.done {
			what += " (" + x.at.UTC().Format(time.RFC3339) + ")"
		}
		if x.detail != "" && (!x.consumer || !x.done) {
			what += ": " + x.detail
		}
		fmt.Fprintf(&b, "%s %s\n", mark, paint(text(what)))
		if x.check != "" && !x.done {
			fmt.Fprintf(&b, "    check: %s\n", paint(text(x.check)))
		}
		if x.consumer && !x.done {
			fmt.Fprintf(&b, "    then: hsctl rotate done %s %s\n", paint(text(r.Slug)), paint(text(shellQuote(x.name))))
		}
	}
	if r.Next != "" {
		fmt.Fprintf(&b, "\nnext: %s\n", paint(text(r.Next)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// rotationTable is one row a rotation.
func rotationTable(all []wire.Rotation) *table {
	t := &table{header: []string{"slug", "portalId", "state", "startedAt", "graceEndsAt", "steps", "waitingFor"}}
	for _, r := range all {
		list, done := boxes(&r), 0
		for _, b := range list {
			if b.done {
				done++
			}
		}
		t.rows = append(t.rows, []cell{
			text(r.Slug), text(positive(r.PortalID)), rotationCell(r.State), moment(&r.StartedAt), moment(&r.GraceEndsAt),
			text(fmt.Sprintf("%d of %d", done, len(list))), text(strings.Join(unconfirmed(&r), ", ")),
		})
	}
	return t
}

// rotationCell makes a cell of a rotation's state.
func rotationCell(s wire.RotationState) cell {
	c := text(strings.ReplaceAll(string(s), "_", " "))
	switch s {
	case wire.RotationSwitched:
		c.sgr = yellow
	case wire.RotationConfirmed:
		c.sgr = green
	case wire.RotationFellBack:
		c.sgr = red
	}
	return c
}
