// Package auditstore keeps the audit log on disk: a write-ahead log in which
// records become durable, and Badger, which is filled from it and read.
//
// # What holds
//
// [Store.Append] returns when the record is durable: its batch is a frame in the
// write-ahead log, and that is synced. No call may leave before its intent's
// Append has returned nil. An error means that the record may or may not be in the
// log; the call must not leave.
//
// Records are numbered 0, 1, 2 … without a gap, in the order in which they
// were queued. One goroutine, the sequencer, numbers and writes them. A batch is
// what was queued during the sync before; nobody waits for company. Another one,
// the filler, puts batches into Badger afterwards, many in a transaction, since
// Badger syncs once for each. Badger is not synced later instead: that would leave
// out its log files which were full before. Readers wait for the filler. A file of
// the write-ahead log is used anew once Badger has all of it.
//
// The first error of a write or a sync shuts the log until it is opened anew:
// after a failed sync nobody knows what is on disk, and a second sync that
// succeeds proves nothing. Appends then return [ErrUnavailable] at once.
// Badger does not survive a full disk, so nothing is appended when less than a
// floor is free; that is refused with [ErrUnavailable] too, and ends by itself.
// While the disk does not answer at all, nothing is taken either.
//
// # What opening checks
//
// Badger silently drops what it cannot read of its own files. The write-ahead log
// says what it must have and what the tree's root was; [Open] compares, hashes
// the records since the last seal (after a crash: at least the last 65,536), puts
// in what Badger does not have yet, and refuses a log that differs with
// [ErrDamaged]. [Store.Verify] and [Check] look at every record. Whoever can write
// to the directory can replace database and write-ahead log together: only a
// checkpoint kept elsewhere shows that. So with each seal the tree is signed, and
// the note given to a [Sink]; Open compares the log with the last one of the sink
// and of the file beside the database, and refuses with [ErrLoss] until
// [AcceptLoss] has recorded the gap.
//
// # What can be taken out
//
// [Store.Prune] erases bytes and salts and keeps the hashes. A record that says
// which comes first, so that whatever else is missing is damage. In the place of
// a pruned record stands a stub with what counting needs.
//
// A batch is cut off only if the write-ahead log has no sign that it was acknowledged.
// An intent without an outcome gets a call.interrupted record.
package auditstore
