// Package wire is the protocol between hsagentd and its clients: what both
// sides must spell alike, and the client that speaks it.
//
// The protocol is HTTP/1.1 over a Unix socket, with the host name "hsagent".
// A client asks for a call *for a slug*:
//
//	GET /v1/call/acme-corp/crm/v3/objects/contacts?limit=10 HTTP/1.1
//	Host: hsagent
//
// and gets HubSpot's answer as it came, with the header Hsagent-Call-Id.
// There is no request that answers with a token. An error of the agent's own
// is a problem document (RFC 9457) with a stable [Code], and carries the
// header Hsagent-Error; an answer of HubSpot's never does.
//
// The package imports nothing but the standard library, so that hsctl stays
// small and quick to start.
package wire
