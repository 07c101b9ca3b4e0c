package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	stdlog "log"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"time"
	_ "time/tzdata" // portals have their own midnight, also where the system has no zones

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/wire"
	"github.com/hsagent/hsagentd/wire/secret"
)

// closeTimeout bounds what comes after the drain: the record of the stop.
const closeTimeout = 5 * time.Second

// serve runs the agent until it is told to stop.
func serve(ctx context.Context, e *env, args []string) error {
	f := newFlags("hsagentd")
	if done, err := f.begin(e, args, help); done {
		return err
	}
	c, err := loadConfig(e, f)
	if err != nil {
		return err
	}
	from := new(slog.LevelVar)
	from.Set(c.LogLevel.Level)
	log := newLogger(e, c.LogFormat, from)
	warnIgnored(ctx, e, log)
	d := &daemon{
		env: e, cfg: c, log: log, notify: newNotifier(ctx, log),
		// The command line and the environment stay what they are: a reload
		// reads the file anew.
		reread: func() (*config, error) { return loadConfig(e, f) },
		level:  from,
	}
	if d.sock, err = activatedSocket(); err != nil {
		return withCode(exitConfig, err)
	}
	return d.run(ctx, func() {})
}

// A daemon is an agent with all that it needs around it.
type daemon struct {
	env    *env
	cfg    *config
	log    *slog.Logger
	notify *notifier // nil: systemd is told nothing
	reread func() (*config, error)
	level  *slog.LevelVar

	sock     *socket
	readOnly *socket // nil for none
	audit    *auditstore.Store
	agent    *agent.Agent
}

// run opens everything in its order, calls ready, serves until ctx ends, and
// closes everything in the reverse order.
func (d *daemon) run(ctx context.Context, ready func()) (err error) {
	// net/http prints to the standard logger in some cases, with bytes of an
	// answer that nobody has searched for a token.
	stdlog.SetOutput(io.Discard)
	// Signals that come before anybody is served are not lost.
	hup, lock := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	signal.Notify(lock, syscall.SIGUSR1)
	defer signal.Stop(lock)
	socketGroup, adminGroup, readOnlyGroup, err := d.cfg.groups()
	if err != nil {
		return withCode(exitConfig, err)
	}
	up, err := d.cfg.upstream()
	if err != nil {
		return withCode(exitConfig, err)
	}
	path := d.cfg.findIdentity()
	if err := present(path, d.cfg.Store); err != nil {
		return withCode(exitConfig, err)
	}
	given, err := passphraseFile(d.env)
	if err != nil {
		return err
	}

	// A second daemon is refused here, before anything is changed.
	storeLock, err := takeLock(d.cfg.Store + ".agent.lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, storeLock.release()) }()
	if d.sock == nil {
		if d.sock, err = reserveSocket(d.env, d.cfg.Socket, socketGroup); err != nil {
			return err
		}
		d.sock.warnOfGroup(ctx, d.log, socketGroup)
	}
	defer func() { err = errors.Join(err, d.sock.remove()) }()
	if d.cfg.SocketReadOnly != "" {
		if d.readOnly, err = reserveSocket(d.env, d.cfg.SocketReadOnly, readOnlyGroup); err != nil {
			return err
		}
		d.readOnly.warnOfGroup(ctx, d.log, readOnlyGroup)
		defer func() { err = errors.Join(err, d.readOnly.remove()) }()
	}

	audit, err := auditstore.Open(ctx, d.cfg.audit(d.log))
	if err != nil {
		return withCode(auditCode(err), fmt.Errorf("open the audit log: %w", err))
	}
	defer func() {
		if cerr := audit.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close the audit log: %w", cerr))
		}
	}()
	d.audit = audit
	d.agent, err = agent.New(ctx, agent.Config{
		Version:         wire.Version,
		Log:             d.log,
		Audit:           audit,
		Upstream:        up,
		StorePath:       d.cfg.Store,
		LoadIdentity:    identityLoader(path, &passphraseOnce{given}),
		MaxRequestBytes: int64(d.cfg.Upstream.MaxRequestBytes),
		MaxInFlight:     d.cfg.MaxInFlight,
		SocketGroup:     socketGroup,
		AdminGroup:      adminGroup,
		ReadOnlyGroup:   readOnlyGroup,
		WarnBelow:       d.cfg.Quota.WarnBelow,
		Consumers:       d.cfg.consumers(),
		Policy:          d.cfg.policy,
		LockAfter:       d.cfg.LockAfter.Duration,
		ConfirmTimeout:  d.cfg.ConfirmTimeout.Duration,
		SocketActivated: d.sock.activated,
		Retention:       d.cfg.Audit.Retention.Duration,
		StartNotes:      audit.Notes(),
	})
	if err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	defer func() {
		//nolint:contextcheck // ctx has ended: that is why the agent is closed
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if cerr := d.agent.Close(cctx); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close the agent: %w", cerr))
		}
	}()
	if !d.sock.activated {
		if err := d.sock.listen(ctx, d.env, socketGroup); err != nil {
			return err
		}
	}
	if d.readOnly != nil {
		if err := d.readOnly.listen(ctx, d.env, readOnlyGroup); err != nil {
			return err
		}
	}
	d.log.InfoContext(ctx, "serving", "version", wire.Version, "socket", d.sock.path, "activated", d.sock.activated,
		"upstream", up.Base(), "store", d.cfg.Store, "audit", d.cfg.AuditDir)
	if secret.Memory() == secret.Plain {
		d.log.WarnContext(ctx, "tokens are in memory that may be swapped: RLIMIT_MEMLOCK is used up, or the system has no such pages")
	}
	watchCtx, stopWatch := context.WithCancel(ctx)
	var watches sync.WaitGroup
	watches.Go(func() { d.sock.watch(watchCtx, d.env, socketGroup, d.log) })
	if d.readOnly != nil {
		watches.Go(func() { d.readOnly.watch(watchCtx, d.env, readOnlyGroup, d.log) })
	}
	defer func() { stopWatch(); watches.Wait() }()
	return d.serve(ctx, hup, lock, ready)
}

// serve answers clients until ctx ends, and then lets calls in flight end.
// Clients that connected before it was ready wait in the socket's queue.
func (d *daemon) serve(ctx context.Context, hup, lock <-chan os.Signal, ready func()) error {
	d.tell(func(n *notifier) { n.ready(ctx) })
	served := make(chan error, 2)
	sockets := 1
	go func() { served <- d.agent.Serve(d.sock) }()
	if d.readOnly != nil {
		sockets++
		go func() { served <- d.agent.ServeReadOnly(d.readOnly) }()
	}
	ready()

	besideCtx, stopBeside := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { keepSmall(besideCtx, d.env, d.audit.Unmap) })
	beside.Go(func() { d.lockOn(besideCtx, lock) })
	beside.Go(func() {
		client := wire.NewClient(d.sock.path)
		defer client.Close()
		d.tell(func(n *notifier) { n.watch(besideCtx, client.Status) })
	})
	defer func() { stopBeside(); beside.Wait() }()

	for {
		select {
		case err := <-served:
			return fmt.Errorf("serve: %w", err)
		case <-hup:
			d.reload(ctx)
		case <-ctx.Done():
			d.env.release() // a second signal ends the process at once
			stopBeside()
			d.drain(ctx)
			var errs []error
			for range sockets {
				errs = append(errs, <-served)
			}
			return errors.Join(errs...)
		}
	}
}

// lockOn locks the agent at each signal, also while a reload waits for the store.
func (d *daemon) lockOn(ctx context.Context, lock <-chan os.Signal) {
	for {
		select {
		case <-lock:
			if err := d.agent.LockNow(ctx, "SIGUSR1"); err != nil {
				d.log.ErrorContext(ctx, "locked, but that was not recorded", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// drain lets calls in flight end. One that takes too long is broken off, and
// its outcome recorded: no failure of the daemon.
func (d *daemon) drain(ctx context.Context) {
	d.tell(func(n *notifier) { n.stopping(ctx) })
	d.log.InfoContext(ctx, "draining", "timeout", d.cfg.DrainTimeout.Duration)
	//nolint:contextcheck // ctx has ended: that is why the agent is drained
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.DrainTimeout.Duration)
	defer cancel()
	if err := d.agent.Drain(ctx); err != nil {
		d.log.WarnContext(ctx, "calls were broken off: they took longer than drain_timeout", "error", err)
	}
}

// reload takes what has changed in the config file and in the store. What
// cannot be taken stays as it was.
func (d *daemon) reload(ctx context.Context) {
	if d.reread == nil {
		return
	}
	d.tell(func(n *notifier) { n.reloading(ctx) })
	defer d.tell(func(n *notifier) { n.ready(ctx) })
	next, err := d.reread()
	if err != nil {
		d.log.ErrorContext(ctx, "config not reloaded: the values before it stay", "error", err)
		d.agent.RefusePolicy(ctx, err)
	} else {
		d.agent.SetPolicy(ctx, next.policy)
		d.level.Set(next.LogLevel.Level)
		if keys := d.cfg.needRestart(next); len(keys) > 0 {
			d.log.WarnContext(ctx, "these keys of the config changed and take effect after a restart", "keys", keys)
		}
	}
	if err := d.agent.Reload(ctx, false); err != nil {
		d.log.ErrorContext(ctx, "store not reloaded", "error", err)
		return
	}
	d.log.InfoContext(ctx, "reloaded")
}

func (d *daemon) tell(say func(*notifier)) {
	if d.notify != nil {
		say(d.notify)
	}
}

// present refuses to start where nothing was set up yet. Files that are there
// and bad are the agent's to judge: it serves, and says so in status.
func present(files ...string) error {
	var errs []error
	for _, f := range files {
		if _, err := os.Stat(f); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s does not exist", f))
		}
	}
	switch len(errs) {
	case 0:
	case len(files):
		errs = append(errs, errors.New("nothing is set up here yet: run hsagentd init (with the same flags), or name the files"))
	default:
		errs = append(errs, errors.New("the rest of the set-up is there: bring back the copy that you kept, or name the file"))
	}
	return errors.Join(errs...)
}

// audit is what the audit log is opened with.
func (c *config) audit(log *slog.Logger) auditstore.Config {
	a := auditstore.Config{Dir: c.AuditDir, Actor: "hsagentd/" + wire.Version, Log: log, Keys: c.loadKeys(log), Hold: c.Audit.LegalHold}
	switch c.Audit.CheckpointSink {
	case "":
	case sinkJournal:
		a.Sink = journalSink{}
	default:
		a.Sink = auditstore.FileSink(c.Audit.CheckpointSink)
	}
	return a
}

func auditCode(err error) int {
	if errors.Is(err, auditstore.ErrInUse) {
		return exitInUse
	}
	return exitConfig
}

// groups are the IDs of the groups in the config, -1 for none.
func (c *config) groups() (socket, admin, readOnly int, err error) {
	socket, err = groupID("socket_group", c.SocketGroup)
	admin, err2 := groupID("admin_group", c.AdminGroup)
	readOnly, err3 := groupID("socket_readonly_group", c.SocketReadOnlyGroup)
	return socket, admin, readOnly, errors.Join(err, err2, err3)
}

// groupID returns the gid of a group given by name or number, -1 for none.
func groupID(key, name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	gid, err := lookupGroup(name)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", key, err)
	}
	return gid, nil
}

func lookupGroup(name string) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, fmt.Errorf("no such group %s: make it with groupadd, or name another", wire.Quote(name))
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1, fmt.Errorf("group %s: %w", wire.Quote(name), err)
	}
	return gid, nil
}
