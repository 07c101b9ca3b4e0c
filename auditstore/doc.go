// Package auditstore keeps the audit log on disk: Badger for the records, a
// witness file beside it, and one goroutine that writes both.
//
// # What holds
//
// [Store.Append] returns when the record is durable: Badger's transaction is
// committed with its sync, and the witness is synced. No call may leave before
// its intent's Append has returned nil. An error means that the record may or
// may not be in the log; the call must not leave.
//
// Records are numbered 0, 1, 2 … without a gap, in the order in which they
// were queued. One transaction holds a whole batch: Badger syncs once per
// transaction and groups none by itself, and a sync after the fact can miss a
// log file that has just been rotated. A batch is what was queued during the
// sync before; nobody waits for company.
//
// The first error of a write or a sync shuts the log until it is opened anew:
// after a failed sync nobody knows what is on disk, and a second sync that
// succeeds proves nothing. Appends then return [ErrUnavailable] at once.
// Badger does not survive a full disk, so nothing is appended when less than a
// floor is free; that is refused with [ErrUnavailable] too, and ends by itself.
//
// # What opening checks
//
// Badger silently drops what it cannot read of its own files. The witness says
// how many records there were and what their root was; [Open] compares, hashes
// the records since the last seal (after a crash: at least the last 65,536)
// and refuses a log that differs with [ErrDamaged]. [Store.Verify] and [Check]
// look at every record. Whoever can write to the directory can replace
// database and witness together: only a checkpoint kept elsewhere shows that.
// So with each seal the tree is signed, and the note given to a [Sink]; Open
// compares the log with the last one of the sink and of the file beside the
// database, and refuses with [ErrLoss] until [AcceptLoss] has recorded the gap.
//
// # What can be taken out
//
// [Store.Prune] erases bytes and salts and keeps the hashes. A record that says
// which comes first, so that whatever else is missing is damage. In the place of
// a pruned record stands a stub with what counting needs.
//
// A batch is cut off only if the witness has no sign that it was acknowledged.
// An intent without an outcome gets a call.interrupted record.
package auditstore
