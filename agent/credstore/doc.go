// Package credstore keeps the store: the one age-encrypted file with every
// portal's token. It reads, checks, edits and watches it; who may use what is
// in it is none of its business.
//
// # What it promises
//
// A store is taken whole or not at all. age authenticates each chunk and the
// end of the file, so that a file written by half, cut short or changed in any
// bit fails to decrypt; it is also read only while inode, size and time stand
// still. [Parse] then refuses whatever two programs could read in two ways:
// keys that stand twice, keys in another case, numbers beyond 2^53.
//
// One bad entry costs no other portal its service. It is listed in
// [Store.Rejected] with its reason. Where two slugs claim one token or one
// portal ID, both are rejected: nothing here can tell whose it is, and a call
// with the wrong client's token is worse than no call.
//
// A write loses nobody's work. [File.Update] holds the lock that outside
// writers share, reads afresh, keeps every key that it does not know, and
// replaces the file in one durable step, never leaving plaintext on disk. A
// writer that ignores the lock is noticed until right before that step.
//
// # What it cannot promise
//
// age does not say who encrypted a file: anybody who knows the public
// recipient can make a store that decrypts well. That a token belongs to its
// slug's portal is only known once HubSpot has said so, which is the agent's
// part. The file's owner and mode are checked for the same reason, and so are
// those of the list of recipients beside it: who could add a line there would
// read the next version.
//
// A [Guard] refuses a version lower than one seen before, also after a
// restart. It helps against mistakes, not against somebody who can write the
// store's directory and removes its note.
//
// Plaintext stands in buffers of this package's own, from the decryption of the
// payload on, and is erased when the store has been read or written; tokens go
// from there straight into secret memory (package secret). Strings are made of
// what is no secret. The identity's keys are age's, in the heap, for as long as
// the agent is unlocked, and a passphrase passes through a string: keeping those
// out of core files, swap and other processes' reach is the daemon's part.
//
// No plug-in is ever run: identities and recipients are age's native ones.
package credstore
