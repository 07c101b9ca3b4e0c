// Package sandbox is a believable HubSpot for the demo and for tests: an
// [net/http.Handler] with portals, tokens, CRM objects, quotas that are really
// enforced, HubSpot's headers and error bodies, and faults that can be switched
// on and off.
//
// It is a stand-in written from HubSpot's public documentation. It holds none
// of HubSpot's code, text or data, is not tested against the real service, and
// knows only the small part of the API that the agent and its tests need. Where
// the documentation is silent the sandbox takes the stricter reading, and the
// comment beside it says so.
//
// A request is known by its bearer token alone: each token opens exactly one
// portal, and no object of one portal can be reached with another's token. That
// makes the sandbox a witness for the agent's promises, since what arrived here
// with which token is what really left the agent: see [Server.Requests] and
// [Server.Count]. Arrivals are noted before anything else is done with them, so
// a request that was dropped, hung or refused is counted too.
//
// The sandbox keeps tokens in plain memory and echoes them when a fault asks
// for that. It must never be given a real one.
package sandbox
