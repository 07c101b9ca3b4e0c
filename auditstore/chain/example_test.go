package chain_test

import (
	"fmt"
	"strings"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
)

// An agency exports the only record of acme-corp; acme-corp verifies it with
// nothing but the key.
func ExampleVerifyExport() {
	key, err := chain.GenerateKey("hsagentd/0123456789abcdef")
	if err != nil {
		panic(err)
	}
	slugSeq := uint64(0)
	record, err := (&chain.Record{Kind: chain.CallDenied, ClientSlug: "acme-corp", SlugSeq: &slugSeq, Actor: "hsagentd/1.0", TS: wire.Time{}}).Encode()
	if err != nil {
		panic(err)
	}
	salt := make([]byte, chain.SaltSize)
	var tree chain.Tree
	tree.Add(chain.Leaf(salt, record), nil)
	note, err := (&chain.Checkpoint{Origin: key.Name(), Size: 1, Root: tree.Root()}).Sign(chain.Keys{key})
	if err != nil {
		panic(err)
	}
	m := chain.Manifest{Format: chain.ExportFormat, Slug: "acme-corp", FirstSlugSeq: &slugSeq, LastSlugSeq: &slugSeq, Count: 1, Checkpoint: note}
	head, err := m.Line(chain.Keys{key})
	if err != nil {
		panic(err)
	}
	line, err := (&chain.ProvedRecord{Record: record, Salt: salt, Proof: []chain.Hash{}}).Line()
	if err != nil {
		panic(err)
	}
	export := string(head) + "\n" + string(line) + "\n"

	known, err := chain.ParseVerifiers(key.Verifier())
	if err != nil {
		panic(err)
	}
	rep, err := chain.VerifyExport(strings.NewReader(export), known, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(rep.OK(), rep.Records, "record of", rep.Manifest.Slug)

	rep, err = chain.VerifyExport(strings.NewReader(string(head)+"\n"), known, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(rep.OK(), rep.Damage[0])
	// Output:
	// true 1 record of acme-corp
	// false record 0: missing: the records with the slugSeqs 0 are not there
}
