// Package agent holds the decrypted tokens and makes calls for slugs.
//
// # Who is trusted
//
// A caller is a local process on the Unix socket, named by the kernel when it
// connected. It may ask for calls; it is never given a token, and nothing that
// it sends chooses the upstream host, the token, or who it is. HubSpot is
// trusted to say which portal a token opens, and with little else: an answer
// is passed on with every occurrence of the token masked. The store is trusted
// for what it says only after HubSpot confirmed it, because age proves that a
// store can be read by us, not who wrote it.
//
// # The life of a call
//
// [Agent.ServeHTTP] refuses what may not come in (a foreign Host, an Origin,
// ambiguous framing, a method that is none) and routes on the raw request
// target. serveCall then goes one way from top to bottom: parse the target; ask
// the policy whether this caller may make this call, and somebody at a terminal
// if the policy wants that; admit it; take the slug's credential from the keyring
// once; wait until HubSpot has confirmed its portal; send; pass the answer on;
// record how it ended. For every wire attempt the intent is durable on disk
// before the connection writes a byte.
//
// # Memory
//
// Tokens stand in secret pages outside Go's heap (see [wire.Token]): a request's
// token is written by itself, and no buffer keeps it. Dropping a keyring (lock,
// reload, rotation) erases its tokens at the next collection, which is asked for
// at once; those that calls in flight hold, when the calls have ended.
package agent
