// Package hubspot is what the agent knows about HubSpot's HTTP API: which
// requests may be sent there, what they do, and what the answers mean.
//
// # Security
//
// The client chooses the path of a call, and with it nothing else. [ParseTarget]
// takes the raw request target before any router or URL parser has touched it,
// and refuses whatever a server behind HubSpot's edge could read as another
// path: the check looks at the path decoded as often as it can be, while what
// is sent is the path as it came. Scheme, host and token are never taken from
// a request; [RequestHeaders] builds the headers anew, and
// HubSpot's token endpoints are denied.
//
// Answers are not trusted either. A portal's identity is read strictly
// ([DecodeAccount]), since a wrong one would bind a slug to another client's
// portal; everything else tolerantly ([ParseError], [ParseRateLimit]), since
// an answer that cannot be read must not stop a call.
//
// [Classify] and [RecordPath] decide what the audit log says of a call. They
// keep no personal data: see each for what it leaves out.
package hubspot
