package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// Unlocking: how fast wrong passphrases may follow each other.
const (
	firstUnlockWait = 500 * time.Millisecond
	maxUnlockWait   = time.Minute
)

// A throttle makes repeated wrong passphrases cost growing time.
type throttle struct {
	mu   sync.Mutex // held while a passphrase is tried: tries queue up
	wait time.Duration
}

// Unlock reads the identity with the passphrase and loads the store. It is a
// no-op where the agent is not locked. Each wrong passphrase doubles the time
// until the next is tried.
func (a *Agent) Unlock(ctx context.Context, by *chain.Caller, passphrase []byte) error {
	a.unlocks.mu.Lock()
	defer a.unlocks.mu.Unlock()
	if a.keys.Load() != nil {
		return nil
	}
	if a.unlocks.wait > 0 {
		select {
		case <-time.After(a.unlocks.wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err := a.unlock(ctx, by, passphrase)
	switch {
	case errors.Is(err, errLockedMeanwhile):
		return wire.Errorf(wire.CodeLocked, "the agent stays locked: %v", err)
	case errors.Is(err, credstore.ErrPassphrase):
		if len(passphrase) > 0 { // else it is no guess
			a.unlocks.wait = min(max(2*a.unlocks.wait, firstUnlockWait), maxUnlockWait)
		}
		return wire.Errorf(wire.CodeBadPassphrase, "the agent stays locked: %v", err)
	case err != nil:
		a.refuseStore(ctx, err)
		return wire.Errorf(wire.CodeInternal, "the agent stays locked: %v", err)
	}
	a.unlocks.wait = 0
	return nil
}

// errLockedMeanwhile means that somebody locked the agent while it was being
// unlocked: reading an identity with a passphrase takes a second.
var errLockedMeanwhile = errors.New("it was locked meanwhile")

// unlock reads the identity and loads the store.
func (a *Agent) unlock(ctx context.Context, by *chain.Caller, passphrase []byte) error {
	locks := a.locks.Load()
	id, err := a.cfg.LoadIdentity(passphrase)
	if err != nil {
		return err
	}
	file := credstore.Open(a.cfg.StorePath, id)
	a.loads.Lock()
	defer a.loads.Unlock()
	if a.locks.Load() != locks {
		return errLockedMeanwhile
	}
	a.file = file
	a.watchLocked()
	if err := a.loadLocked(ctx, false); err != nil {
		return err
	}
	a.lastUse.Store(time.Now().UnixNano())
	if by != nil { // nobody did it at the start
		rec := a.event(chain.AgentUnlocked)
		rec.Caller = by
		a.record(ctx, rec)
	}
	return nil
}

// Lock forgets all tokens. Calls in flight end; later ones are refused until
// Unlock.
func (a *Agent) Lock(ctx context.Context, by *chain.Caller) error { return a.lock(ctx, by, "") }

// LockNow is Lock without a caller who asked for it; reason says why.
func (a *Agent) LockNow(ctx context.Context, reason string) error {
	return a.lock(ctx, a.selfCaller, reason)
}

func (a *Agent) lock(ctx context.Context, by *chain.Caller, reason string) error {
	a.locks.Add(1)
	k := a.keys.Swap(nil) // at once: loads may be waiting for the store's lock
	a.loads.Lock()
	defer a.loads.Unlock()
	if a.stopWatch != nil {
		a.stopWatch()
		a.stopWatch = nil
	}
	a.file, a.store = nil, nil
	if late := a.keys.Swap(nil); late != nil { // of a load that was under way
		k = late
	}
	if k == nil {
		return nil
	}
	for _, c := range k.creds {
		c.lane.pool.Close()
	}
	a.locked = k.identities()
	a.eraseSoon()
	rec := a.event(chain.AgentLocked)
	rec.Caller, rec.Reason = by, reason
	a.log.InfoContext(ctx, "locked: unlock with: hsctl unlock", "reason", reason)
	_, err := a.audit.Append(ctx, rec)
	return err
}

// Reload reads the store again. With force it takes a store whose version went
// back or that lost many portals. On an error the store loaded before serves
// on.
func (a *Agent) Reload(ctx context.Context, force bool) error {
	a.loads.Lock()
	if a.file == nil {
		a.loads.Unlock()
		// Locked, or the identity could not be read at the start: try again,
		// which succeeds for an identity without a passphrase.
		err := a.Unlock(ctx, a.selfCaller, nil)
		var p *wire.Problem
		if errors.As(err, &p) && p.Code == wire.CodeBadPassphrase {
			return wire.Errorf(wire.CodeLocked, "the agent is locked: unlock it with: hsctl unlock")
		}
		return err
	}
	err := a.loadLocked(ctx, force)
	a.loads.Unlock()
	if err != nil {
		a.refuseStore(ctx, err)
		return wire.Errorf(wire.CodeConflict, "the store was not loaded, the one before it serves on: %v", err)
	}
	return nil
}

// loadLocked reads the store and swaps the keyring. a.loads is held.
func (a *Agent) loadLocked(ctx context.Context, force bool) error {
	store, err := a.file.Load(ctx)
	if err != nil {
		return err
	}
	if err := a.guard.Admit(a.store, store, force); err != nil {
		return err
	}
	return a.swapLocked(ctx, store)
}

// swapLocked makes store the one that serves, with what is already known of
// fresh credentials in it. a.loads is held.
func (a *Agent) swapLocked(ctx context.Context, store *credstore.Store, fresh ...*credential) error {
	prev := a.keys.Load()
	var next *keyring
	unchanged := prev != nil && a.store == store && len(fresh) == 0
	if unchanged {
		next = prev.again(time.Now())
	} else {
		var err error
		if next, err = newKeyring(store, prev, fresh, a.newLane, time.Now()); err != nil {
			return err
		}
	}
	if prev == nil { // what was quarantined before a lock stays so
		next.keepStopped(a.locked)
		a.locked = nil
	}
	a.keys.Store(next)
	a.store = store
	a.refusal.Store(nil)
	if prev != nil && !unchanged {
		for slug, c := range prev.creds {
			if n := next.credential(slug); n == nil || n.lane != c.lane {
				c.lane.pool.Close()
			}
		}
	}
	if prev == nil || prev.version != next.version {
		a.noteLoad(ctx, prev, next)
	}
	if prev == nil {
		a.settleRotations(ctx, next)
	}
	if next.keepsPrevious() {
		select {
		case a.kept <- struct{}{}:
		default: // said already
		}
	}
	a.confirmAll(next)
	a.eraseSoon()
	return nil
}

// noteLoad tells the logs what the new store brought.
func (a *Agent) noteLoad(ctx context.Context, prev, next *keyring) {
	a.log.InfoContext(ctx, "store loaded", "version", next.version, "portals", len(next.creds), "rejected", len(next.rejected))
	rec := a.event(chain.StoreLoaded)
	rec.StoreVersion = next.version
	rec.Reason = fmt.Sprintf("%d portals, %d rejected", len(next.creds), len(next.rejected))
	a.record(ctx, rec)
	for slug, r := range next.rejected {
		if prev != nil && prev.rejected[slug] == r {
			continue
		}
		a.log.WarnContext(ctx, "store entry rejected", "slug", slug, "reason", r.Reason)
		rec := a.event(chain.PortalRejected)
		rec.ClientSlug, rec.PortalID, rec.StoreVersion = slug, r.PortalID, next.version
		rec.Reason, rec.Error = r.Reason, string(wire.CodePortalRejected)
		a.record(ctx, rec)
	}
}

// A refusal is why a store was not taken.
type refusal struct {
	err error
	at  time.Time
}

// refuseStore notes why a store was not taken.
func (a *Agent) refuseStore(ctx context.Context, err error) {
	last := a.refusal.Swap(&refusal{err: err, at: time.Now()})
	if last != nil && last.err.Error() == err.Error() {
		return // said once: a watcher sees the same bad file many times
	}
	a.log.ErrorContext(ctx, "store refused", "path", a.cfg.StorePath, "error", err)
	rec := a.event(chain.StoreRefused)
	rec.Reason = wire.MaskTokens(err.Error())
	rec.Error = "store_refused"
	a.record(ctx, rec)
}

// watchLocked follows the store's file. a.loads is held.
func (a *Agent) watchLocked() {
	if a.stopWatch != nil {
		a.stopWatch()
	}
	ctx, stop := context.WithCancel(a.ctx)
	a.stopWatch = stop
	file := a.file
	a.spawn(func() {
		err := file.Watch(ctx, a.log, func() { a.storeChanged(ctx, file) })
		if err != nil && ctx.Err() == nil {
			a.log.ErrorContext(ctx, "the store is not watched any more: reload by hand with: hsctl reload", "error", err)
		}
	})
}

// storeChanged loads a store that changed on disk.
func (a *Agent) storeChanged(ctx context.Context, file *credstore.File) {
	a.loads.Lock()
	if a.file != file || ctx.Err() != nil {
		a.loads.Unlock()
		return
	}
	err := a.loadLocked(ctx, false)
	a.loads.Unlock()
	if err != nil && ctx.Err() == nil {
		a.refuseStore(ctx, err)
	}
}

func errLocked() *wire.Problem {
	return wire.Errorf(wire.CodeLocked, "the agent is locked and holds no tokens: unlock it with: hsctl unlock")
}

// sameToken reports whether two tokens are one. It takes the same time whatever
// they have alike: see [wire.Token].
func sameToken(a, b wire.Token) bool { return a == b }
