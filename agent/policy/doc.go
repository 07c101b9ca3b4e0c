// Package policy decides which caller may make which call. It is pure: names
// are looked up, executables are hashed, and paths are brought into one form
// by who uses it.
//
// A rule matches if each of its keys does. Among the rules that match, deny
// goes before confirm, and confirm before allow; if none matches, the answer is
// no. There is one function that decides, [Policy.Decide], for every way in.
//
// What is in doubt counts against the caller. An allow matches only what is
// known and spelled as the rule spells it. A deny or confirm also matches an
// executable or unit that the kernel would not tell, and a path that differs
// from the rule's in case alone, which HubSpot may not tell apart.
//
// What cannot be promised: a program that runs under a user's uid can connect
// and then become, or be traced by, another program of the same user. Rules
// about users and groups are boundaries. Rules about executables and a user's
// own units keep honest programs to their task; they stop no attacker who
// already runs as that user.
package policy
