package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hsagent/hsagentd/wire"
)

// doctorPatience is how long the doctor waits for the agent.
const doctorPatience = 10 * time.Second

// staleToken is how old a token is when the doctor wants it rotated: HubSpot
// advises to rotate every six months.
const staleToken = 180 * day

func newDoctor(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check everything that usually goes wrong, and say how to mend it",
		Example: `hsctl doctor
hsctl doctor -o json | jq '.checks[] | select(.result == "fail")'`,
		Long: `It looks at the socket, the agent, its store, its audit log and every portal. It
changes nothing and sends nothing to HubSpot. A warning is no failure.`,
		Args: positional(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd.Context(), e) },
	}
}

// What a check found.
const (
	checkOK   = "ok"
	checkWarn = "warn"
	checkFail = "fail"
)

// A check is one thing that the doctor has looked at.
type check struct {
	Check  string `json:"check"`
	Result string `json:"result"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // how to mend what is wrong
}

// A checkup is a list of checks in the making.
type checkup struct{ Checks []check }

func (c *checkup) ok(name, format string, args ...any) { c.add(name, checkOK, "", format, args...) }

func (c *checkup) warn(name, fix, format string, args ...any) {
	c.add(name, checkWarn, fix, format, args...)
}

func (c *checkup) fail(name, fix, format string, args ...any) {
	c.add(name, checkFail, fix, format, args...)
}

func (c *checkup) add(name, result, fix, format string, args ...any) {
	c.Checks = append(c.Checks, check{name, result, wire.MaskTokens(fmt.Sprintf(format, args...)), fix})
}

func runDoctor(ctx context.Context, e *env) error {
	c := &checkup{}
	if c.socket(e) {
		c.agent(ctx, e)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := e.emit(map[string]any{"checks": c.Checks}, func() *table {
		t := &table{header: []string{"check", "result", "detail", "fix"}}
		for _, k := range c.Checks {
			sgr := map[string]string{checkOK: green, checkWarn: yellow, checkFail: red}[k.Result]
			t.rows = append(t.rows, []cell{text(k.Check), {k.Result, sgr}, text(k.Detail), text(k.Fix)})
		}
		return t
	})
	if err != nil {
		return err
	}
	failed := 0
	for _, k := range c.Checks {
		if k.Result == checkFail {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(c.Checks))
	}
	return nil
}

// socket looks at the socket in the file system, and reports whether it is
// worth connecting to it.
func (c *checkup) socket(e *env) bool {
	path, from := e.socket(), "the default"
	switch {
	case e.global.socket != "":
		from = "--socket"
	case e.getenv("HSAGENT_SOCK") != "":
		from = "HSAGENT_SOCK"
	}
	if _, err := e.client(); err != nil {
		c.fail("socket path", `eval "$(hsctl env --socket PATH)"`, "%v", err)
		return false
	}
	if !filepath.IsAbs(path) {
		c.warn("socket path", `eval "$(hsctl env)" from this directory`, "%s (%s) depends on the directory that you are in", path, from)
	} else {
		c.ok("socket path", "%s (%s)", path, from)
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		c.fail("socket file", "ask to join the group that the agent's socket_group names, then log in again", "%v", err)
		return false
	case err != nil:
		c.fail("socket file", oneLine(e.hint(err)), "%v", err)
		return false
	case st.Mode()&fs.ModeSocket == 0:
		c.fail("socket file", "give the agent's own socket: export HSAGENT_SOCK=PATH", "%s is no socket", path)
		return false
	}
	uid, known := ownerOf(st)
	mode := st.Mode().Perm()
	switch {
	case known && uid != e.uid && uid != 0 && path != systemSocket:
		c.fail("socket file", "use an agent of your own or the system's: unset HSAGENT_SOCK",
			"uid %d owns it, and would get the tokens that you onboard", uid)
	case mode&0o002 != 0:
		c.fail("socket file", fmt.Sprintf("restart the agent, which makes it 0600, or 0660 with socket_group: then chmod o= %s if it stays", shellQuote(path)),
			"every user of this machine may connect to it (mode %04o)", mode)
	default:
		c.ok("socket file", "mode %04o, uid %d", mode, uid)
	}
	return true
}

// agent asks the agent how it is.
func (c *checkup) agent(ctx context.Context, e *env) {
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	cl, err := e.client()
	if err != nil {
		return // said already
	}
	defer cl.Close()
	st, err := cl.Status(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		c.fail("agent", "see what it says: journalctl -u hsagentd", "it does not answer within %s", doctorPatience)
		return
	case errors.Is(err, wire.ErrUnreachable):
		c.fail("agent", oneLine(e.hint(err)), "%v", err)
		return
	case err != nil:
		c.fail("agent", "see who may call: socket_group and the policy in the agent's config", "%s", message(err))
		return
	}
	c.ok("agent", "it answers: pid %d, up %s, upstream %s", st.PID, time.Duration(st.UptimeSeconds)*time.Second, st.Upstream)
	if st.Version == wire.Version {
		c.ok("versions", "hsctl and the agent are %s", st.Version)
	} else {
		c.warn("versions", "restart the agent after an update: systemctl restart hsagentd; or update hsctl",
			"the agent is %s, hsctl is %s", st.Version, wire.Version)
	}
	c.store(st)
	c.auditLog(st)
	if st.Locked {
		return // it knows no portals now
	}
	portals, err := cl.Portals(ctx)
	if err != nil {
		c.fail("portals", "see who may call: socket_group and the policy in the agent's config", "%s", message(err))
		return
	}
	c.portals(portals)
}

// oneLine is a hint of several lines as one.
func oneLine(hint string) string { return strings.ReplaceAll(hint, "\n", "; ") }

func (c *checkup) store(st *wire.Status) {
	if st.Locked {
		c.fail("lock", "hsctl unlock", "the agent is locked: it holds no tokens and makes no calls")
	} else {
		c.ok("lock", "the agent is unlocked")
	}
	s := st.Store
	switch {
	case s.LastError != "":
		c.fail("store", "mend the store as hsagentd check says, then hsctl reload", "%s: %s; version %d goes on serving", s.Path, s.LastError, s.Version)
	case s.LoadedAt == nil && !st.Locked:
		c.fail("store", "hsagentd check, then hsctl reload", "%s has not been read", s.Path)
	case s.LoadedAt == nil:
		c.ok("store", "%s", s.Path)
	default:
		c.ok("store", "%s, version %d, read %s ago", s.Path, s.Version, ago(s.LoadedAt.Time))
	}
	if p := st.Policy; p.LastError != "" {
		c.fail("policy", "mend the config as hsagentd check says, then: systemctl reload hsagentd, or SIGHUP", "%s; the %d rules before it decide", p.LastError, p.Rules)
	}
}

func (c *checkup) auditLog(st *wire.Status) {
	a := st.Audit
	if a.LastError != "" {
		c.fail("audit log", "no call is made while it cannot be written: free some disk space, see hsagentd check, restart the agent",
			"%s: %s", a.Path, a.LastError)
		return
	}
	c.ok("audit log", "%s: %d records, %d of them durable", a.Path, a.Size, a.Durable)
	if a.SinkError != "" {
		c.fail("checkpoints", "mend what audit.checkpoint_sink names: until then nothing outside shows that the log is whole", "%s", a.SinkError)
	}
}

// portals has a line for every portal that is not ready.
func (c *checkup) portals(portals []wire.Portal) {
	ready := 0
	for _, p := range portals {
		name, fix := "portal "+p.Slug, ""
		why := string(p.State)
		if p.Reason != "" {
			why += ": " + p.Reason
		}
		switch p.State {
		case wire.StateReady:
			if ready++; p.Warning != "" {
				c.warn(name, "", "%s", p.Warning)
			}
			continue
		case wire.StateUnverified:
			c.warn(name, "hsctl verify "+shellQuote(p.Slug), "%s", why)
			continue
		case wire.StateQuarantined:
			fix = fmt.Sprintf("find out why, give it a good token if it needs one (hsctl rotate %s), then hsctl resume %s", p.Slug, p.Slug)
		case wire.StateRejected:
			fix = "mend its entry in the store, then hsctl reload"
		}
		c.fail(name, fix, "%s", why)
	}
	if len(portals) == 0 {
		c.warn("portals", "hsctl onboard SLUG, or hsctl onboard --csv FILE", "the store has none")
		return
	}
	c.ok("portals", "%d of %d are ready", ready, len(portals))
	if stale, _ := stalePortals(portals, time.Now().Add(-staleToken)); len(stale) > 0 {
		c.warn("token age", "hsctl portals --stale 180d, then hsctl rotate SLUG", "%d tokens are older than 180 days, that of %s among them",
			len(stale), stale[0].Slug)
	} else {
		c.ok("token age", "none is older than 180 days")
	}
}

// ago is how long ago t was, roughly.
func ago(t time.Time) string {
	d := time.Since(t)
	if d >= 2*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.Round(time.Second).String()
}
