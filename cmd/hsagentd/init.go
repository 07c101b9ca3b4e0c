package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"golang.org/x/sys/unix"
)

// configTemplate has every key, commented out, with its default.
//
//go:embed config.toml
var configTemplate string

// initialize makes identity, empty store and config. It overwrites nothing,
// and leaves nothing behind where it cannot finish.
func initialize(ctx context.Context, e *env, args []string) (err error) {
	f := newFlags("hsagentd init")
	protect := f.set.Bool("passphrase", false, "")
	recipients := f.set.StringArray("recipient", nil, "")
	pq := f.set.Bool("pq", false, "")
	if done, err := f.begin(e, args, helpInit); done {
		return err
	}
	m, err := plan(e, f, *protect)
	if err != nil {
		return err
	}
	var passphrase []byte
	if *protect {
		if passphrase, err = newPassphrase(e); err != nil {
			return err
		}
		defer clear(passphrase)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.undo())
		}
	}()
	id, err := m.make(ctx, f, passphrase, *pq, *recipients)
	if err != nil {
		return err
	}
	key, err := m.auditKey()
	if err != nil {
		return err
	}
	return m.report(e, id, key, *protect)
}

// A setup is what init makes.
type setup struct {
	cfg      *config
	config   string
	identity string
	key      string   // of the audit log
	made     []string // so far, for undo
}

// plan says where things go, and refuses if any of them is there.
func plan(e *env, f *flags, protect bool) (*setup, error) {
	c := newConfig(e)
	m := &setup{cfg: c}
	m.config, _ = configPath(e, f)
	if !filepath.IsAbs(m.config) {
		return nil, usageError("--config: %s is not an absolute path", m.config)
	}
	if err := c.complete(e, f); err != nil {
		return nil, err
	}
	p, exist := c.paths, []string{m.config}
	exist = append(exist, c.Store)
	switch {
	case c.Identity != "":
		m.identity = c.Identity
		exist = append(exist, c.Identity)
	case protect:
		m.identity = filepath.Join(filepath.Dir(m.config), filepath.Base(p.protected))
	default:
		m.identity = filepath.Join(filepath.Dir(m.config), filepath.Base(p.plain))
	}
	if c.Identity == "" {
		exist = append(exist, filepath.Join(filepath.Dir(m.config), filepath.Base(p.protected)), filepath.Join(filepath.Dir(m.config), filepath.Base(p.plain)))
	}
	if m.identity == m.config || m.config == c.Store || m.identity == c.Store {
		return nil, usageError("config, identity and store must be three files")
	}
	return m, absent(exist)
}

// absent refuses if any of the files is there.
func absent(files []string) error {
	var errs []error
	for _, f := range files {
		switch _, err := os.Lstat(f); {
		case err == nil:
			errs = append(errs, fmt.Errorf("%s is there already", f))
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		errs = append(errs, errors.New("nothing was changed: move those files away, or name others"))
	}
	return withCode(exitConfig, errors.Join(errs...))
}

func (m *setup) make(ctx context.Context, f *flags, passphrase []byte, pq bool, recipients []string) (*credstore.Identity, error) {
	for _, file := range []string{m.config, m.identity, m.cfg.Store} {
		if err := makeDir(filepath.Dir(file), m.cfg.paths.system); err != nil {
			return nil, err
		}
	}
	m.made = append(m.made, m.identity)
	id, err := credstore.GenerateIdentity(m.identity, passphrase, pq)
	if err != nil {
		m.drop(m.identity, err)
		return nil, fmt.Errorf("make the identity: %w", err)
	}
	m.made = append(m.made, m.cfg.Store, m.cfg.Store+".recipients")
	if err := credstore.Create(ctx, m.cfg.Store, id, recipients); err != nil {
		m.drop(m.cfg.Store, err)
		return nil, fmt.Errorf("make the store: %w", err)
	}
	m.made = append(m.made, m.config)
	if err := writeNew(m.config, m.text(f)); err != nil {
		m.drop(m.config, err)
		return nil, fmt.Errorf("write the config: %w", err)
	}
	// Root sets up for the service, which runs as the owner of its directory
	// and must be able to take the lock too.
	for _, suffix := range []string{"", ".recipients", ".lock"} {
		if err := giveToOwner(m.cfg.Store + suffix); err != nil {
			return nil, err
		}
	}
	return id, nil
}

// auditKey makes the key of the audit log. One that is there is kept: the log
// that it signs may be there too.
func (m *setup) auditKey() (*chain.Key, error) {
	m.key = m.cfg.keyBeside(m.identity)
	if err := makeDir(filepath.Dir(m.key), m.cfg.paths.system); err != nil {
		return nil, err
	}
	keys, made, err := m.cfg.obtainKeys(m.key, "")
	if err != nil {
		return nil, fmt.Errorf("make the audit log's key: %w", err)
	}
	if made {
		m.made = append(m.made, m.key)
	}
	return keys[0], nil
}

// drop takes file from what undo removes if it was another's all along.
func (m *setup) drop(file string, err error) {
	if errors.Is(err, fs.ErrExist) {
		for i, f := range m.made {
			if f == file {
				m.made = append(m.made[:i], m.made[i+1:]...)
				return
			}
		}
	}
}

// undo removes what was made.
func (m *setup) undo() error {
	var errs []error
	for _, f := range m.made {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("take back what was made: %w", err))
		}
	}
	return errors.Join(errs...)
}

// makeDir makes a directory: the user's own for the user alone, the system's
// with the rights that the packages give.
func makeDir(dir string, system bool) error {
	mode := fs.FileMode(0o700)
	if system && dir == "/etc/hsagent" {
		mode = 0o755
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // narrowed by the umask
		return fmt.Errorf("make a directory: %w", err)
	}
	if err := os.Mkdir(dir, mode); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	return nil
}

// giveToOwner gives a file that root made to the owner of its directory.
func giveToOwner(file string) error { return giveTo(filepath.Dir(file), file) }

// giveTo gives a file to the owner of dir.
func giveTo(dir, file string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the owner's directory: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	err = os.Lchown(file, int(owner.Uid), int(owner.Gid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("give %s to the service: %w", file, err)
	}
	return nil
}

// writeNew writes a file that must not be there, durably.
func writeNew(path, text string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	if strings.HasPrefix(path, "/etc/") {
		// It holds no secret, and the service is not root.
		if err := f.Chmod(0o644); err != nil {
			return err
		}
	}
	return f.Sync()
}

// text is the config file: the template, with the values that flags gave.
func (m *setup) text(f *flags) string {
	p, text := m.cfg.paths, configTemplate
	identity := p.plain
	if m.identity != p.plain && m.identity != p.protected {
		identity = m.identity
	}
	for _, v := range []struct {
		key, value, standard string
	}{
		{"socket", m.cfg.Socket, p.socket},
		{"store", m.cfg.Store, p.store},
		{"identity", identity, p.plain},
		{"audit_dir", m.cfg.AuditDir, p.audit},
		{"base_url", m.cfg.Upstream.BaseURL, ""},
		{"ca_file", m.cfg.Upstream.CAFile, ""},
		{"log_level", f.logLevel, ""},
		{"log_format", f.logFormat, ""},
	} {
		before, after, _ := strings.Cut(text, "\n#"+v.key+" =")
		old, rest, _ := strings.Cut(after, "\n")
		switch {
		case v.value != v.standard:
			text = before + "\n" + v.key + " = " + strconv.Quote(v.value) + "\n" + rest
		case v.standard != "":
			text = before + "\n#" + v.key + " = " + strconv.Quote(v.standard) + "\n" + rest
		default:
			text = before + "\n#" + v.key + " =" + old + "\n" + rest
		}
	}
	return text
}

// report says what was made and what comes next.
func (m *setup) report(e *env, id *credstore.Identity, key *chain.Key, protected bool) error {
	start, sock := "hsagentd", ""
	if m.cfg.paths.system && m.config == m.cfg.paths.config {
		start = "systemctl enable --now hsagentd.socket"
	} else if m.config != m.cfg.paths.config {
		start += " --config " + m.config
	}
	if m.cfg.Socket != m.cfg.paths.socket {
		sock = "HSAGENT_SOCK=" + m.cfg.Socket + " "
	}
	next := start
	if protected {
		next += "\n  " + sock + "hsctl unlock"
	}
	_, err := fmt.Fprintf(e.stdout, `identity  %s
store     %s
config    %s
audit key %s
recipient %s
verifier  %s

Keep a copy of the identity in a safe place: without it the store is lost.
Keep the verifier elsewhere: it tells whether the audit log was rewritten.
Next:
  %s
  %shsctl onboard SLUG
`, m.identity, m.cfg.Store, m.config, m.key, id.Recipient(), key.Verifier(), next, sock)
	return err
}
