package wire

// Version is the version of hsagentd and hsctl. A release sets it with
// -ldflags "-X github.com/hsagent/hsagentd/wire.Version=1.2.3".
var Version = "0.1.0-dev"
