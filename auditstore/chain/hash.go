package chain

import "golang.org/x/mod/sumdb/tlog"

// A Hash is a SHA-256 hash of the tree.
type Hash = tlog.Hash
