package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// keyHead is what a file of keys begins with.
const keyHead = `# The key that signs the checkpoints of hsagentd's audit log. Whoever has it and
# can write the log can rewrite history since the last checkpoint kept elsewhere.
`

// findKey returns the path of the audit log's key: the one that is configured,
// else systemd's credential, else audit.key beside the identity or, where that
// could not be made, beside the store.
func (c *config) findKey() string {
	if c.Audit.Key != "" {
		return c.Audit.Key
	}
	beside := c.keyBeside(c.findIdentity())
	for _, p := range []string{c.paths.handedKey, beside, c.keyBesideStore()} {
		if p == "" {
			continue
		}
		if _, err := os.Lstat(p); err == nil {
			return p
		}
	}
	return beside
}

// keyBesideStore is where the key is made if there is no writing beside the
// identity: the store's directory is the agent's to write in any case.
func (c *config) keyBesideStore() string { return filepath.Join(filepath.Dir(c.Store), "audit.key") }

// keyBeside is where the key is kept with an identity. Beside one that systemd
// hands over nothing can be kept: then it is the config's directory.
func (c *config) keyBeside(identity string) string {
	if identity == c.paths.credential {
		identity = c.paths.plain
	}
	return filepath.Join(filepath.Dir(identity), "audit.key")
}

// loadKeys reads the audit log's keys, and makes one where there is none.
func (c *config) loadKeys(log *slog.Logger) func(origin string) (chain.Keys, error) {
	return func(origin string) (chain.Keys, error) {
		path := c.findKey()
		keys, made, err := c.obtainKeys(path, origin)
		if made && err != nil && c.Audit.Key == "" {
			path = c.keyBesideStore()
			keys, made, err = c.obtainKeys(path, origin)
		}
		if err != nil {
			return nil, fmt.Errorf("the key of the audit log: %w: run hsagentd init, or name another place with audit.key in the config", err)
		}
		if made {
			log.Warn("the audit log had no key, and one was made: keep the verifier key where who can write the log cannot change it",
				"file", path, "verifier", keys[0].Verifier())
		}
		return keys, nil
	}
}

// obtainKeys reads the keys at path or, if there is no such file, makes one for
// the log called origin; "" is a log that has no name yet. made is true with an
// error where one had to be made and could not.
func (c *config) obtainKeys(path, origin string) (keys chain.Keys, made bool, err error) {
	keys, err = c.readKeys(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return keys, false, err
	}
	if origin == "" {
		origin = chain.NewOrigin()
	}
	key, err := chain.GenerateKey(origin)
	if err != nil {
		return nil, false, err
	}
	err = writeSecret(path, keyHead+key.Secret()+"\n")
	if errors.Is(err, fs.ErrExist) { // another agent was quicker
		keys, err = c.readKeys(path)
		return keys, false, err
	}
	return chain.Keys{key}, true, err
}

// rotateAuditKey puts a new key above the old one. The agent takes it when it
// starts again.
func rotateAuditKey(_ context.Context, e *env, args []string) (err error) {
	f := newFlags("hsagentd rotate-audit-key")
	if done, err := f.begin(e, args, helpRotateAuditKey); done {
		return err
	}
	c, err := loadConfig(e, f)
	if err != nil {
		return err
	}
	path := c.findKey()
	keys, err := c.readKeys(path)
	if err != nil {
		return withCode(exitConfig, fmt.Errorf("the key of the audit log: %w", err))
	}
	next, err := chain.GenerateKey(keys[0].Name())
	if err != nil {
		return err
	}
	// The one before may be the only copy: it stays until the new file is there.
	tmp := path + ".new"
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	if err := writeSecret(tmp, keyHead+next.Secret()+"\n"+keys[0].Secret()+"\n"); err != nil {
		return fmt.Errorf("write the new key: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write the new key: %w", err)
	}
	_, err = fmt.Fprintf(e.stdout, "audit key %s\nverifier  %s\nbefore    %s\n\nRestart the agent: both sign then. Take the old line out when the new verifier is known.\n",
		path, next.Verifier(), keys[0].Verifier())
	return err
}

// readKeys reads a file of keys, which only its owner may read.
func (c *config) readKeys(path string) (chain.Keys, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	// systemd lets the service in by an access control list, which shows as
	// the group's right to read.
	handed := path == c.paths.handedKey && info.Mode().Perm()&^0o440 == 0
	if perm := info.Mode().Perm(); perm&0o077 != 0 && !handed {
		return nil, fmt.Errorf("others may read %s (mode %04o): run chmod 600 on it", path, perm)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	keys, err := chain.ParseKeys(string(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// writeSecret writes a file that must not be there: whole, durably, and for
// the user alone.
func writeSecret(path, text string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".audit.key.*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path) // unlike a rename it replaces nothing
}

// A journalSink hands checkpoints to systemd's journal, which cannot be asked
// for the last one at a start.
type journalSink struct{}

// Last knows none.
func (journalSink) Last() (string, error) { return "", nil }

// String names it.
func (journalSink) String() string { return "the journal" }

// Put writes a line that journalctl SYSLOG_IDENTIFIER=hsagentd-checkpoint finds.
func (journalSink) Put(note string) error {
	c, err := chain.ParseCheckpoint(note)
	if err != nil {
		return err
	}
	err = journal.Send(note, journal.PriNotice, map[string]string{
		"SYSLOG_IDENTIFIER": "hsagentd-checkpoint", "HSAGENT_ORIGIN": c.Origin,
		"HSAGENT_SIZE": fmt.Sprint(c.Size), "HSAGENT_ROOT": c.Root.String(),
	})
	if err != nil {
		return fmt.Errorf("send a checkpoint to the journal: %w", err)
	}
	return nil
}
