// Hsctl asks hsagentd, the agent for HubSpot tokens, to do things: make a call
// for a slug, show the fleet, read the audit log.
//
// # What it may touch
//
// Hsctl holds no secret and needs none. It speaks to the agent's Unix socket
// and to nothing else: no HubSpot, no store, no audit database. Only exec listens, on
// the loopback and for as long as its program runs, to requests that carry the
// token that was made up for that program. It links none
// of the code that handles them, and a test holds it to that. Only four verbs
// carry a secret at all, from the user to the agent: onboard, rotate and verify
// a token, unlock a passphrase. They read it from a terminal without echo, from
// stdin or from a file; no flag and no argument takes one, because arguments show
// in the process list and stay in the shell's history. A list of clients with
// their tokens is checked here, row by row, and no message about it repeats a
// cell that could be a token. What hsctl says on stderr goes through
// [wire.MaskTokens], so that a token pasted in the wrong place does not spread
// any further.
//
// # What it prints
//
// Data goes to stdout and everything else to stderr, each line with "hsctl: "
// before it. A HubSpot answer passes through byte by byte. What hsctl formats
// itself (tables, CSV, messages) has control bytes and bidirectional characters
// escaped, and CSV cells cannot start a formula, since names and paths come from
// outside. The exit code tells what happened: see the EXIT STATUS of any --help.
package main
