package main

// help is the text of hsagentd --help.
const help = `Examples:
  hsagentd demo -- hsctl portals       try it: no HubSpot, nothing left behind
  hsagentd init                        make identity, store and config
  hsagentd                             serve
  hsagentd check                       look for mistakes, with the agent stopped

hsagentd keeps HubSpot tokens and makes calls for local programs. They connect
to its Unix socket and name a slug; they get HubSpot's answer, never a token.

Usage:
  hsagentd [flags]                     serve until SIGTERM; SIGHUP reloads
  hsagentd init [flags] [--passphrase] [--recipient age1…] [--pq]
  hsagentd check [flags]
  hsagentd accept-loss [flags]
  hsagentd rotate-audit-key [flags]
  hsagentd demo [-- CMD…]
Each verb has its own --help.

Flags:
` + flagHelp + `
Environment:
  HSAGENT_CONFIG           config file
  HSAGENT_SOCK             socket
  HSAGENT_PASSPHRASE_FILE  file, or number of a descriptor, with the
                           identity's passphrase; without it the agent of a
                           protected identity starts locked: hsctl unlock
A flag goes before the environment, which goes before the config file. Paths
are the system's (/etc/hsagent, /var/lib/hsagent, /run/hsagent) for root and
for the system service, else the user's own (XDG base directories).
HTTP_PROXY, HTTPS_PROXY, SSL_CERT_FILE and SSL_CERT_DIR are not read.
` + exitHelp

const flagHelp = `      --config FILE        config file (TOML)
      --socket PATH        Unix socket; one passed by systemd goes before it
      --store FILE         encrypted store
      --identity FILE      age identity that opens the store
      --audit-dir DIR      audit log
      --upstream URL       in place of https://api.hubapi.com; plain http only
                           for a loopback address
      --upstream-ca FILE   PEM file of TLS roots in place of the system's
      --log-level L        debug, info (default), warn or error
      --log-format F       text, json or journal (default: journal where
                           stderr is the journal, else text)
      --version            print the version
  -h, --help               print this
`

const exitHelp = `
EXIT STATUS
  0   stopped as asked, or nothing wrong was found
  1   failed
  2   a flag or an environment variable is wrong
  75  another hsagentd holds the socket, the store or the audit log
  78  config, identity, store or audit log must be mended first, or the
      environment would give secrets away
`

const helpInit = `Examples:
  hsagentd init
  hsagentd init --passphrase
  hsagentd init --recipient age1…      somebody else can read the store too

Makes an age identity, an empty store and a config file that explains every
key, and says what comes next. Nothing is overwritten: if any of the three is
there, nothing is changed.

Flags:
      --passphrase         protect the identity with a passphrase, asked for at
                           the terminal or read from HSAGENT_PASSPHRASE_FILE
      --recipient KEY      a further public key that the store is encrypted to;
                           may be given several times
      --pq                 a post-quantum hybrid identity
` + flagHelp + exitHelp

const helpCheck = `Examples:
  hsagentd check
  hsagentd check --config /etc/hsagent/config.toml

Reads config, identity, store and the whole audit log, offline, and says for
each whether it is sound and, if not, how to mend it. Nothing is changed. The
agent must be stopped: a running one is asked with hsctl audit verify.

Flags:
` + flagHelp + exitHelp

const helpAcceptLoss = `Examples:
  hsagentd accept-loss

Lets an audit log go on that the agent refuses to open because it is shorter
than, or another than, its write-ahead log or a checkpoint knows: after a restore
from an older backup, say. So it does where the write-ahead log cannot be read, and
may have had more. What is there must be sound in itself. The loss is recorded
in the log (audit.gap), signed, and named by every verification from then on.
The agent must be stopped.

Flags:
` + flagHelp + exitHelp

const helpRotateAuditKey = `Examples:
  hsagentd rotate-audit-key

Makes a new key for the audit log and puts it above the old one in the key file.
After a restart both sign, and the log has a record of it; when whoever verifies
has the new verifier key, take the old line out of the file and restart.

Flags:
` + flagHelp + exitHelp

const helpDemo = `Examples:
  hsagentd demo -- hsctl call acme-corp GET /crm/v3/objects/contacts
  hsagentd demo                        prints the line to paste, and serves

Runs a throw-away agent in a temporary directory, on a sandbox HubSpot with
three portals: acme-corp, beta-inc and gamma-gmbh. Then runs CMD with
HSAGENT_SOCK set and exits with its code, or without CMD serves until it is
interrupted. Everything is removed at the end.

CMD is looked for on PATH, then beside hsagentd.

Flags:
      --log-level L        of the agent's log on stderr (default: warn)
  -h, --help               print this

EXIT STATUS
  CMD's own; 1 if the demo itself failed, 2 if a flag is wrong, 127 if CMD was
  not found.
`
