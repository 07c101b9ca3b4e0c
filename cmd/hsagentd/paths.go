package main

import (
	"path/filepath"
	"strconv"
)

// systemState is the state directory of the system service. systemd names it
// in STATE_DIRECTORY: that is how the service, which does not run as root,
// knows that the system's paths are its own.
const systemState = "/var/lib/hsagent"

// paths are where things are by default.
type paths struct {
	system     bool
	config     string
	socket     string
	store      string
	audit      string
	credential string // the identity that systemd hands over; "" for none
	protected  string // identity with a passphrase, first choice
	plain      string // identity without one
	handedKey  string // the audit log's key that systemd hands over; "" for none
}

// defaultPaths returns the paths of the system service for root and for the
// service itself, else those of the user.
func defaultPaths(e *env) paths {
	p := paths{}
	if dir := e.getenv("CREDENTIALS_DIRECTORY"); filepath.IsAbs(dir) {
		p.credential = filepath.Join(dir, "identity")
		p.handedKey = filepath.Join(dir, "audit-key")
	}
	if e.uid == 0 || e.getenv("STATE_DIRECTORY") == systemState {
		p.system = true
		p.config = "/etc/hsagent/config.toml"
		p.socket = "/run/hsagent/agent.sock"
		p.store = systemState + "/store.age"
		p.audit = systemState + "/audit"
	} else {
		p.config = filepath.Join(xdg(e, "XDG_CONFIG_HOME", ".config"), "hsagent", "config.toml")
		p.socket = filepath.Join(runtimeDir(e), "hsagent", "agent.sock")
		p.store = filepath.Join(xdg(e, "XDG_DATA_HOME", ".local/share"), "hsagent", "store.age")
		p.audit = filepath.Join(xdg(e, "XDG_STATE_HOME", ".local/state"), "hsagent", "audit")
	}
	p.protected = filepath.Join(filepath.Dir(p.config), "identity.age")
	p.plain = filepath.Join(filepath.Dir(p.config), "identity.txt")
	return p
}

// xdg is the directory that the variable names, else the one below $HOME: a
// relative value is to be ignored, says the XDG base directory specification.
func xdg(e *env, variable, below string) string {
	if dir := e.getenv(variable); filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join(e.getenv("HOME"), below)
}

func runtimeDir(e *env) string {
	if dir := e.getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join("/run/user", strconv.Itoa(e.uid))
}
