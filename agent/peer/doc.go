// Package peer tells who is on the other end of a Unix socket connection, as
// the kernel says it.
//
// What the kernel recorded when the connection was made (SO_PEERCRED: uid,
// gid, pid; SO_PEERGROUPS: supplementary groups) cannot be forged by the
// caller and may decide what it is allowed. What is read from /proc afterwards
// (executable, systemd unit) names whichever process has that pid *now*: it is
// read while a pidfd (SO_PEERPIDFD, Linux 6.5) shows that the process of the
// connection still lives, else it is left out. Even then it is advisory: a
// process may have executed another program since it connected, and one that
// inherited the connection is not seen.
//
// Where somebody asks for it, the executable's SHA-256 is computed in the
// background from the file that the process runs, not from its name.
//
// On systems without these calls [FromConn] fails, and so does every
// connection.
package peer
