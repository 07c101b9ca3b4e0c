package sandbox

import (
	"crypto/rand"
	"encoding/hex"

	"github.com/hsagent/hsagentd/wire"
)

// Demo returns the three portals of `hsagentd demo`. Their data is the same in
// every run; their tokens are new ones in each.
func Demo() Config {
	return Config{Portals: []Portal{
		{
			ID: 12345678, Slug: "acme-corp", Token: NewToken("na1"), DataHosting: "na1",
			TimeZone: "US/Eastern", Currency: "USD",
			Contacts: 240, Companies: 40, Deals: 60, Tickets: 30,
		},
		{
			ID: 87654321, Slug: "beta-inc", Token: NewToken("na1"), DataHosting: "na1",
			TimeZone: "US/Pacific", Currency: "USD",
			Contacts: 75, Companies: 20, Deals: 25, Tickets: 12,
		},
		{
			ID: 13579246, Slug: "gamma-gmbh", Token: NewToken("eu1"), DataHosting: "eu1",
			TimeZone: "Europe/Berlin", Currency: "EUR",
			Contacts: 120, Companies: 30, Deals: 35, Tickets: 18,
		},
	}}
}

// NewToken makes a token of the form in use, "pat-<datacenter>-<uuid>", from
// the system's random source. It opens nothing until it is given to a Server.
func NewToken(datacenter string) wire.Token {
	return wire.NewToken("pat-" + datacenter + "-" + newUUID())
}

// newUUID returns a random (version 4) UUID.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // documented never to fail
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
