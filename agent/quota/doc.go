// Package quota keeps the calls for one portal within HubSpot's limits, so
// that HubSpot need not refuse any, and shares them out among the callers.
//
// HubSpot has three limits, and a [Governor] keeps each of them apart:
//
//   - burst: so many calls of the token's app in a rolling interval. Both
//     numbers come with HubSpot's answers and are never assumed;
//   - day: so many calls of all apps of the account between two midnights of
//     the portal's own time zone. Answers tell what is left;
//   - searches: five a second of the account, by HubSpot's documentation.
//     Answers to searches tell nothing.
//
// # Why nothing of ours is refused
//
// HubSpot counts a call when it arrives, which is some time between its being
// sent and its answer's coming. A place in a window is therefore taken before
// a call is sent, and is free again one interval after its answer came. The
// call that takes it next arrives after it was sent, hence more than one
// interval after the arrival of the call before it: any interval has at most
// as many arrivals as there are places. What this costs is one round trip in
// each interval.
//
// No more than that: a place is given out 50 ms before it gets free, and
// [Grant.Sent] waits for the rest. Meanwhile the attempt gets its connection
// and its record, which would otherwise take as much of each interval as the
// disk is slow.
//
// # Others
//
// Programs outside the agent may use the same token. HubSpot's answers count
// their calls with ours, and which of ours they count is uncertain while these
// are on their way. Others are therefore believed in only if an answer counts
// more calls than all of ours that it can possibly include: a Governor alone
// never sees a phantom that takes places from it. Where there certainly are
// others, a middle of the possible numbers is taken, with some room for what
// they do next.
//
// # Security
//
// One portal's trouble is its own: a Governor shares nothing with any other,
// holds no goroutine, and its timers run only while somebody waits. Figures
// from outside that make no sense are not believed, and none of them can keep
// a portal shut for longer than to its next midnight, or HubSpot's own
// Retry-After.
package quota
