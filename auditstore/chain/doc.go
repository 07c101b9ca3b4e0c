// Package chain is the audit log's arithmetic, without storage: what a
// [Record] is, its one encoding, its leaf hash, the RFC 6962 tree over all
// leaves, and their verification.
//
// A record is stored as the bytes of [Record.Encode] and hashed with a salt of
// its own: leaf = SHA-256(0x00 ‖ SHA-256(salt ‖ stored bytes)), in the tree of
// golang.org/x/mod/sumdb/tlog. The salt lets a record be erased later (payload
// and salt go, the hash stays and tells nothing), and lets one client's
// records be proved without showing, or allowing to guess, anybody else's.
//
// The package imports no database, so that a verifier can be built from it on
// any machine.
package chain
