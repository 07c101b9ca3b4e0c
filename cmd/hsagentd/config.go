package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/hsagent/hsagentd/agent"
	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/agent/policy"
	"github.com/hsagent/hsagentd/wire"
	"github.com/pelletier/go-toml/v2"
)

// A config is everything that can be set. The tags are the keys of the file.
type config struct {
	File string `toml:"-"` // that was read; "" for none

	Socket              string         `toml:"socket"`
	SocketGroup         string         `toml:"socket_group"`
	SocketReadOnly      string         `toml:"socket_readonly"` // "" for none
	SocketReadOnlyGroup string         `toml:"socket_readonly_group"`
	AdminGroup          string         `toml:"admin_group"`
	Store               string         `toml:"store"`
	Identity            string         `toml:"identity"` // "" looks at the default places
	AuditDir            string         `toml:"audit_dir"`
	LogLevel            level          `toml:"log_level"`
	LogFormat           string         `toml:"log_format"` // "" is journal where stderr is the journal, else text
	DrainTimeout        duration       `toml:"drain_timeout"`
	ConfirmTimeout      duration       `toml:"confirm_timeout"`
	LockAfter           duration       `toml:"lock_after"` // 0: never
	MaxInFlight         int            `toml:"max_in_flight"`
	Upstream            upstreamConfig `toml:"upstream"`
	Quota               quotaConfig    `toml:"quota"`
	Audit               auditConfig    `toml:"audit"`
	Consumers           []consumer     `toml:"consumer"`

	Rules []wire.PolicyRule `toml:"rule"`

	paths     paths             // the defaults, and where an identity may be
	origins   map[string]string // what set a key, if not the file
	ruleLines []int             // where each rule stands in the file
	policy    *policy.Policy    // that the rules make, once they were checked
}

type upstreamConfig struct {
	BaseURL         string `toml:"base_url"`
	CAFile          string `toml:"ca_file"`
	Proxy           string `toml:"proxy"`
	MaxRequestBytes size   `toml:"max_request_bytes"`
}

type quotaConfig struct {
	WarnBelow int64 `toml:"warn_below"`
}

// An auditConfig is about the audit log's evidence.
type auditConfig struct {
	Key            string `toml:"key"`             // "" looks at the default places
	CheckpointSink string `toml:"checkpoint_sink"` // "": none; journal; a path

	Retention age      `toml:"retention"`  // 0: for ever
	LegalHold []string `toml:"legal_hold"` // slugs whose records are not pruned
}

// sinkJournal as a sink means systemd's journal.
const sinkJournal = "journal"

// A consumer is an [agent.Consumer] as the file writes it.
type consumer struct {
	Name    string   `toml:"name"`
	Portals []string `toml:"portals"`
	HowTo   string   `toml:"how_to"`
	Check   string   `toml:"check"`
}

// Limits of what a config may ask for.
const (
	maxConfigFile     = 1 << 20
	maxSocketPath     = 107 // sockaddr_un has 108 bytes, the last of which is NUL
	maxDrainTimeout   = 10 * time.Minute
	maxConfirmTimeout = 10 * time.Minute
	maxLockAfter      = 7 * 24 * time.Hour
	maxInFlight       = 1 << 20
	maxRequestBytes   = 1 << 40
	minRetention      = 24 * time.Hour
)

// loadConfig puts together flags, environment, the config file and defaults,
// in this order of precedence, and checks the whole. The error lists every
// problem found and has the exit code: 2 if a flag or variable is at fault,
// else 78.
func loadConfig(e *env, f *flags) (*config, error) {
	c := newConfig(e)
	path, named := configPath(e, f)
	if err := c.readFile(e, path, named); err != nil {
		return nil, withCode(exitConfig, err)
	}
	if err := c.complete(e, f); err != nil {
		return nil, err
	}
	return c, nil
}

// newConfig returns the defaults.
func newConfig(e *env) *config {
	p := defaultPaths(e)
	return &config{
		Socket: p.socket, Store: p.store, AuditDir: p.audit,
		DrainTimeout:   duration{agent.DefaultDrainTimeout},
		ConfirmTimeout: duration{agent.DefaultConfirmTimeout},
		MaxInFlight:    agent.DefaultMaxInFlight,
		Quota:          quotaConfig{WarnBelow: agent.DefaultWarnBelow},
		Upstream:       upstreamConfig{MaxRequestBytes: agent.DefaultMaxRequestBytes},
		paths:          p,
		origins:        map[string]string{},
	}
}

// configPath returns the path of the config file, and whether somebody named
// it.
func configPath(e *env, f *flags) (path string, named bool) {
	if f.config != "" {
		return absolute(f.config), true
	}
	if v := e.getenv("HSAGENT_CONFIG"); v != "" {
		return v, true
	}
	return defaultPaths(e).config, false
}

// complete puts environment and flags over what is there, and checks the
// whole.
func (c *config) complete(e *env, f *flags) error {
	if v := e.getenv("HSAGENT_SOCK"); v != "" {
		c.Socket, c.origins["socket"] = v, "HSAGENT_SOCK"
	}
	problems := append(f.apply(c), c.validate()...)
	if len(problems) == 0 {
		return nil
	}
	code := exitConfig
	for _, err := range problems {
		var p *problem
		if errors.As(err, &p) && c.origins[p.key] != "" {
			code = exitUsage
		}
	}
	return &codeError{code, errors.Join(problems...)}
}

// readFile reads the config file over the defaults. A missing one is an error
// only if it was named.
func (c *config) readFile(e *env, path string, named bool) error {
	b, err := readOwned(e, path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the config: %w", err)
	}
	d := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields()
	err = d.Decode(c)
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		var all []error
		for _, u := range unknown.Errors {
			row, _ := u.Position()
			all = append(all, fmt.Errorf("%s:%d: unknown key %s", path, row, wire.Quote(strings.Join(u.Key(), "."))))
		}
		return errors.Join(all...)
	case errors.As(err, &bad):
		row, column := bad.Position()
		text := strings.TrimPrefix(bad.Error(), "toml: ")
		if kind, ok := strings.CutPrefix(text, "cannot decode TOML "); ok {
			kind, _, _ = strings.Cut(strings.TrimPrefix(kind, "local "), " ") // the rest names types of this program
			text = strings.Join(bad.Key(), ".") + ": this key takes no " + kind
		} else if _, key := culprit(b); key != "" {
			text = wire.Printable(key) + ": " + text
		}
		return fmt.Errorf("%s:%d:%d: %s", path, row, column, text)
	case err != nil:
		if line, key := culprit(b); line > 0 {
			return fmt.Errorf("%s:%d: %s: %w", path, line, wire.Printable(key), err)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	c.File, c.ruleLines = path, ruleLines(b)
	return errors.Join(capitalKeys(path, b)...)
}

// readOwned reads a file that only its owner can change, and whose owner is
// this user or root: the config says where tokens are sent.
func readOwned(e *env, path string) (_ []byte, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s can be changed by others (mode %04o): run chmod go-w on it", path, info.Mode().Perm())
	}
	if owner := int(info.Sys().(*syscall.Stat_t).Uid); owner != 0 && owner != e.uid {
		return nil, fmt.Errorf("%s belongs to uid %d, neither to root nor to this user (uid %d)", path, owner, e.uid)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err == nil && len(b) > maxConfigFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxConfigFile)
	}
	return b, err
}

// A problem is a value that cannot be used.
type problem struct {
	key  string
	text string
}

func (p *problem) Error() string { return p.text }

// validate returns everything that is wrong with the values. It opens nothing
// but the bundle of TLS roots, and looks up the rules' users and groups.
func (c *config) validate() []error {
	var problems []error
	add := func(key, format string, args ...any) {
		where := key
		if o := c.origins[key]; o != "" {
			where = o
		} else if c.File != "" {
			where = c.File + ": " + key
		}
		problems = append(problems, &problem{key, where + ": " + fmt.Sprintf(format, args...)})
	}
	for key, path := range map[string]string{"socket": c.Socket, "socket_readonly": c.SocketReadOnly} {
		switch {
		case strings.HasPrefix(path, "@"):
			add(key, "%s is an abstract socket, which has no owner and no permissions: name a path", wire.Quote(path))
		case len(path) > maxSocketPath:
			add(key, "the path has %d bytes, and a socket's can have %d: use a shorter one", len(path), maxSocketPath)
		}
	}
	if c.SocketReadOnlyGroup != "" && c.SocketReadOnly == "" {
		add("socket_readonly_group", "there is no socket_readonly for the group to use")
	}
	for _, p := range c.named() {
		switch {
		case p.path == "" && p.optional:
		case strings.HasPrefix(p.key, "socket") && strings.HasPrefix(p.path, "@"): // said above
		case strings.ContainsRune(p.path, 0):
			add(p.key, "%s has a NUL byte", wire.Quote(p.path))
		case !filepath.IsAbs(p.path):
			add(p.key, "%s is not an absolute path", wire.Quote(p.path))
		case filepath.Clean(p.path) == "/" || strings.HasSuffix(p.path, "/") && p.key != "audit_dir":
			add(p.key, "%s is a directory", wire.Quote(p.path))
		}
	}
	c.validateDistinct(add)
	if c.LogFormat != "" && c.LogFormat != formatText && c.LogFormat != formatJSON && c.LogFormat != formatJournal {
		add("log_format", "%s is no log format: want text, json or journal", wire.Quote(c.LogFormat))
	}
	if d := c.DrainTimeout.Duration; d <= 0 || d > maxDrainTimeout {
		add("drain_timeout", "%v: want more than 0s and at most %v", d, maxDrainTimeout)
	}
	if d := c.ConfirmTimeout.Duration; d < time.Second || d > maxConfirmTimeout {
		add("confirm_timeout", "%v: want 1s to %v", d, maxConfirmTimeout)
	}
	if d := c.LockAfter.Duration; d != 0 && (d < time.Second || d > maxLockAfter) {
		add("lock_after", "%v: want 1s to %v, or 0s for never", d, maxLockAfter)
	}
	if c.MaxInFlight < 1 || c.MaxInFlight > maxInFlight {
		add("max_in_flight", "%d: want 1 to %d", c.MaxInFlight, maxInFlight)
	}
	if n := c.Upstream.MaxRequestBytes; n < 1 || n > maxRequestBytes {
		add("upstream.max_request_bytes", "%d: want 1 to %d", n, int64(maxRequestBytes))
	}
	if c.Quota.WarnBelow < 0 {
		add("quota.warn_below", "%d: want 0 (never warn) or more", c.Quota.WarnBelow)
	}
	if d := c.Audit.Retention.Duration; d != 0 && d < minRetention {
		add("audit.retention", "%v: want at least %v, or nothing to keep records for ever", d, minRetention)
	}
	for _, slug := range c.Audit.LegalHold {
		if _, err := wire.ParseSlug(slug); err != nil {
			add("audit.legal_hold", "%v", err)
		}
	}
	if err := agent.CheckConsumers(c.consumers()); err != nil {
		add("consumer", "%v", err)
	}
	problems = append(problems, c.compileRules()...)
	// hubspot says which of the upstream keys is wrong, and how.
	if _, err := c.upstream(); err != nil {
		add("upstream", "%v", err)
	}
	return problems
}

// upstream makes what reaches HubSpot. It reads the TLS roots.
func (c *config) upstream() (*hubspot.Upstream, error) {
	return hubspot.NewUpstream(hubspot.UpstreamConfig{
		BaseURL: c.Upstream.BaseURL, CAFile: c.Upstream.CAFile, Proxy: c.Upstream.Proxy,
	})
}

// consumers are those of the file, as the agent takes them.
func (c *config) consumers() []agent.Consumer {
	out := make([]agent.Consumer, len(c.Consumers))
	for i, v := range c.Consumers {
		out[i] = agent.Consumer(v)
	}
	return out
}

type namedPath struct {
	key, path string
	optional  bool
}

func (c *config) named() []namedPath {
	return []namedPath{
		{"socket", c.Socket, false}, {"socket_readonly", c.SocketReadOnly, true}, {"store", c.Store, false}, {"audit_dir", c.AuditDir, false},
		{"identity", c.Identity, true}, {"upstream.ca_file", c.Upstream.CAFile, true},
		{"audit.key", c.Audit.Key, true}, {"audit.checkpoint_sink", c.sinkPath(), true},
	}
}

// sinkPath is the file that checkpoints are copied to, or "".
func (c *config) sinkPath() string {
	if c.Audit.CheckpointSink == sinkJournal {
		return ""
	}
	return c.Audit.CheckpointSink
}

// validateDistinct refuses two things in one place, and anything in the audit
// log's directory, which is the log's alone.
func (c *config) validateDistinct(add func(key, format string, args ...any)) {
	seen := map[string]string{filepath.Clean(c.File): "the config file"}
	for _, p := range c.named() {
		if p.path == "" || p.key == "upstream.ca_file" {
			continue
		}
		clean := filepath.Clean(p.path)
		if other, ok := seen[clean]; ok {
			add(p.key, "%s is %s already", wire.Quote(p.path), other)
		}
		seen[clean] = p.key
		if p.key != "audit_dir" && strings.HasPrefix(clean, filepath.Clean(c.AuditDir)+"/") {
			add(p.key, "%s is inside audit_dir: that directory is the audit log's alone", wire.Quote(p.path))
		}
	}
}

// needRestart lists the keys whose values differ between c, which serves, and
// next, and take effect only after a restart.
func (c *config) needRestart(next *config) []string {
	var keys []string
	for _, d := range []struct {
		key     string
		differs bool
	}{
		{"socket", c.Socket != next.Socket},
		{"socket_group", c.SocketGroup != next.SocketGroup},
		{"socket_readonly", c.SocketReadOnly != next.SocketReadOnly},
		{"socket_readonly_group", c.SocketReadOnlyGroup != next.SocketReadOnlyGroup},
		{"admin_group", c.AdminGroup != next.AdminGroup},
		{"store", c.Store != next.Store},
		{"identity", c.Identity != next.Identity},
		{"audit_dir", c.AuditDir != next.AuditDir},
		{"log_format", c.LogFormat != next.LogFormat},
		{"drain_timeout", c.DrainTimeout != next.DrainTimeout},
		{"lock_after", c.LockAfter != next.LockAfter},
		{"confirm_timeout", c.ConfirmTimeout != next.ConfirmTimeout},
		{"max_in_flight", c.MaxInFlight != next.MaxInFlight},
		{"upstream", c.Upstream != next.Upstream},
		{"quota", c.Quota != next.Quota},
		{"audit", !reflect.DeepEqual(c.Audit, next.Audit)},
		{"consumer", !reflect.DeepEqual(c.Consumers, next.Consumers)},
	} {
		if d.differs {
			keys = append(keys, d.key)
		}
	}
	return keys
}
