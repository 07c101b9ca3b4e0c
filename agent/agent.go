package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/peer"
	"github.com/hsagent/hsagentd/agent/policy"
	"github.com/hsagent/hsagentd/agent/quota"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// An auditLog keeps the records. Append returns when the record is durable;
// AppendLazy queues one that may wait a little.
type auditLog interface {
	Append(ctx context.Context, rec chain.Record) (chain.Receipt, error)
	AppendLazy(rec chain.Record) error
	Flush(ctx context.Context) error
	Status() wire.AuditStatus
	Records(ctx context.Context, f chain.Filter, fn func(raw []byte, r *chain.Record) error) error
	Lines(ctx context.Context, f chain.Filter, fn func(seq uint64, raw []byte) error) error
	Wait(ctx context.Context, after uint64) error
	Usage(slug string, from, to time.Time) (int64, error)
	Verify(ctx context.Context, progress func(done, total uint64)) (chain.Report, error)
	Checkpoint(ctx context.Context) (string, error)
	Key() string
	Prove(ctx context.Context, seq uint64) (*chain.Proof, error)
	Export(ctx context.Context, slug wire.Slug, from, to time.Time, w io.Writer) error
	Prune(ctx context.Context, slug string, before time.Time, caller *chain.Caller) (uint64, error)
}

// Defaults of [Config].
const (
	DefaultMaxRequestBytes = 2 << 30
	DefaultMaxInFlight     = 1024
	DefaultWarnBelow       = quota.DefaultWarnBelow
	DefaultDrainTimeout    = 10 * time.Second
)

// A Config is what an [Agent] needs. Log, Audit, Upstream, StorePath and
// LoadIdentity must be set; other zero fields take the defaults above.
type Config struct {
	Version  string
	Log      *slog.Logger
	Audit    auditLog
	Upstream *hubspot.Upstream

	StorePath string
	// LoadIdentity reads the store's identity. passphrase is nil where nobody
	// gave one; the error wraps [credstore.ErrPassphrase] if it needs another.
	LoadIdentity func(passphrase []byte) (*credstore.Identity, error)

	Reverify        time.Duration // how often a confirmed token is asked about again
	RetireEvery     time.Duration // how often tokens before a rotation are asked about
	WarnBelow       int64         // calls left of a portal's day that are worth a warning; 0: none
	MaxRequestBytes int64         // of one call's body
	MaxInFlight     int           // calls at once, over all portals

	SocketGroup     int  // gid whose members may call; -1 for none
	AdminGroup      int  // gid whose members may manage; -1 for none
	ReadOnlyGroup   int  // gid whose members may use the read-only socket; -1 for none
	SocketActivated bool // for status

	LockAfter      time.Duration  // lock when no call was made for so long; 0: never
	ConfirmTimeout time.Duration  // how long a call waits for somebody's yes
	Policy         *policy.Policy // who may call what; nil for no rules

	Consumers []Consumer // who else holds tokens, for the checklists of rotations

	Retention time.Duration // after which the log's records are pruned; 0: never

	StartNotes []string // what opening the audit log found, for the record of the start
}

// An Agent holds the keyring and serves callers.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	audit   auditLog
	up      *hubspot.Upstream
	guard   *credstore.Guard
	started time.Time
	actor   string
	uid     int

	selfCaller *chain.Caller // of the agent's own requests

	keys     atomic.Pointer[keyring] // nil while locked
	locks    atomic.Int64            // how often somebody locked it
	inFlight atomic.Int64
	lastUse  atomic.Int64 // when a call was admitted or the agent unlocked last, in Unix nanoseconds
	refused  refusals
	doors    *doors

	tracing   sync.Mutex   // held while /proc is read: one caller at a time, since it takes descriptors
	lingering atomic.Int64 // connections that were turned away and are not closed yet

	policy    atomic.Pointer[loadedPolicy]
	badPolicy atomic.Pointer[refusal] // why a newer policy was refused, or nil
	digests   *peer.Digests
	denials   denials
	approvals approvals

	// loads serialises everything that reads or writes the store. It is held
	// over disk and the store's lock, so nothing that must answer takes it.
	loads     sync.Mutex
	file      *credstore.File  // nil while locked
	store     *credstore.Store // that keys was made of
	locked    identities       // of the keyring that was locked away
	stopWatch context.CancelFunc
	unlocks   throttle

	refusal atomic.Pointer[refusal] // why a newer store was refused, or nil

	journal *credstore.Journal
	kept    chan struct{} // has one when a store with a previous token was loaded
	unused  chan struct{} // has one when there may be tokens to erase

	ctx    context.Context // ends when Close is called: of background work
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // background work

	draining context.Context // ends when Drain or Close is called: of answers that have no end
	drain    context.CancelFunc

	spawning sync.Mutex // no background work starts once Close waits for it
	server   *http.Server
}

// New starts an agent: it records its start and loads the store if the
// identity can be had without a passphrase. A store that cannot be used leaves
// the agent running, with the reason in status.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	if cfg.MaxRequestBytes == 0 {
		cfg.MaxRequestBytes = DefaultMaxRequestBytes
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = DefaultMaxInFlight
	}
	if err := CheckConsumers(cfg.Consumers); err != nil {
		return nil, fmt.Errorf("the config: %w", err)
	}
	a := &Agent{
		cfg:     cfg,
		log:     cfg.Log,
		audit:   cfg.Audit,
		up:      cfg.Upstream,
		guard:   credstore.NewGuard(cfg.StorePath, cfg.Log),
		journal: credstore.OpenJournal(cfg.StorePath),
		kept:    make(chan struct{}, 1),
		doors:   newDoors(),
		unused:  make(chan struct{}, 1),
		digests: peer.NewDigests(),
		started: time.Now(),
		actor:   "hsagentd/" + cfg.Version,
		uid:     os.Geteuid(),
	}
	a.selfCaller = &chain.Caller{UID: a.uid, GID: os.Getegid(), PID: os.Getpid(), Agent: true}
	a.ctx, a.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	a.draining, a.drain = context.WithCancel(a.ctx)
	a.server = a.newServer()
	if cfg.Reverify == 0 {
		a.cfg.Reverify = DefaultReverify
	}
	if cfg.ConfirmTimeout == 0 {
		a.cfg.ConfirmTimeout = DefaultConfirmTimeout
	}
	if cfg.RetireEvery == 0 {
		a.cfg.RetireEvery = DefaultRetireEvery
	}
	if err := a.recordStart(ctx); err != nil {
		return nil, err
	}
	if cfg.Policy != nil {
		a.SetPolicy(ctx, cfg.Policy)
	}
	a.spawn(a.sumDenials)
	if cfg.LockAfter > 0 {
		a.spawn(a.lockWhenIdle)
	}
	a.spawn(a.reverify)
	a.spawn(a.retireAll)
	a.spawn(a.eraser)
	if cfg.Retention > 0 {
		a.spawn(a.retain)
	}
	err := a.unlock(ctx, nil, nil)
	switch {
	case errors.Is(err, credstore.ErrPassphrase):
		a.log.InfoContext(ctx, "locked: the identity needs a passphrase; unlock with: hsctl unlock")
	case err != nil:
		a.refuseStore(ctx, err)
	}
	return a, nil
}

func (a *Agent) recordStart(ctx context.Context) error {
	rec := a.event(chain.AgentStarted)
	for i, note := range a.cfg.StartNotes {
		if i > 0 {
			rec.Reason += "; "
		}
		rec.Reason += note
	}
	if _, err := a.audit.Append(ctx, rec); err != nil {
		return fmt.Errorf("record the start: %w", err)
	}
	return nil
}

// event returns the record of something that happens now.
func (a *Agent) event(kind chain.Kind) chain.Record {
	return chain.Record{Kind: kind, TS: wire.At(time.Now()), Actor: a.actor}
}

// eventOf is event for something that concerns a credential.
func (a *Agent) eventOf(kind chain.Kind, c *credential) chain.Record {
	rec := a.event(kind)
	rec.ClientSlug, rec.PortalID, rec.TokenFingerprint, rec.StoreVersion = c.Slug.String(), c.PortalID, c.fingerprint, c.version
	return rec
}

// record queues a record of something that is no call. An error is logged: the
// audit log shuts itself then, and every call is refused.
func (a *Agent) record(ctx context.Context, rec chain.Record) {
	if err := a.audit.AppendLazy(rec); err != nil {
		a.log.ErrorContext(ctx, "not recorded", "kind", string(rec.Kind), "slug", rec.ClientSlug, "error", err)
	}
}

// Serve answers callers on l until [Agent.Drain] or [Agent.Close] is called;
// then it returns nil. It closes l.
func (a *Agent) Serve(l net.Listener) error { return a.serve(l, false) }

// ServeReadOnly is Serve for a socket on which nothing but reads is possible,
// whoever asks: calls that change nothing at HubSpot, and what the agent tells
// of status, portals and quota. Members of the ReadOnlyGroup may use it too.
func (a *Agent) ServeReadOnly(l net.Listener) error { return a.serve(l, true) }

func (a *Agent) serve(l net.Listener, readOnly bool) error {
	err := a.server.Serve(&peerListener{Listener: l, agent: a, readOnly: readOnly})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Drain takes no new calls and waits until those in flight have ended. When
// ctx ends first, it breaks them off; their outcomes are recorded all the
// same.
func (a *Agent) Drain(ctx context.Context) error {
	a.approvals.stop()
	a.drain()
	err := a.server.Shutdown(ctx)
	if err == nil {
		return nil
	}
	a.cancel(errShutdown)
	//nolint:contextcheck // the caller's context has just ended
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	return errors.Join(err, a.server.Shutdown(grace))
}

var errShutdown = errors.New("the agent stops")

// Close ends background work, breaks off what is left of calls, records the
// stop and forgets the tokens. The audit log stays open: it is the caller's.
func (a *Agent) Close(ctx context.Context) error {
	a.spawning.Lock()
	a.cancel(errShutdown)
	a.spawning.Unlock()
	err := a.server.Close()
	a.loads.Lock()
	if a.stopWatch != nil {
		a.stopWatch()
	}
	a.loads.Unlock()
	a.wg.Wait()
	if k := a.keys.Swap(nil); k != nil {
		for _, c := range k.creds {
			c.lane.pool.Close()
		}
	}
	a.recordSums(ctx)
	a.record(ctx, a.event(chain.AgentStopped))
	return errors.Join(err, a.audit.Flush(ctx))
}
