package chain_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/wire"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
)

func newKeys(t testing.TB) chain.Keys {
	t.Helper()
	k, err := chain.GenerateKey("hsagentd/0123456789abcdef")
	require.NoError(t, err)
	return chain.Keys{k}
}

func TestCheckpoint(t *testing.T) {
	ks := newKeys(t)
	c := &chain.Checkpoint{Origin: ks[0].Name(), Size: 7, Root: chain.Leaf(nil, nil)}
	msg, err := c.Sign(ks)
	require.NoError(t, err)
	got, err := chain.OpenCheckpoint(msg, ks.Verifiers())
	require.NoError(t, err)
	require.Equal(t, c, got)
	got, err = chain.ParseCheckpoint(msg)
	require.NoError(t, err)
	require.Equal(t, c, got)

	// Anybody's program for signed notes can verify it.
	v, err := note.NewVerifier(ks[0].Verifier())
	require.NoError(t, err)
	n, err := note.Open([]byte(msg), note.VerifierList(v))
	require.NoError(t, err)
	require.Equal(t, c.Text(), n.Text)

	_, err = chain.OpenCheckpoint(msg, newKeys(t).Verifiers())
	require.ErrorContains(t, err, "not signed by a key that is known here")
	_, err = chain.OpenCheckpoint(strings.Replace(msg, "\n7\n", "\n8\n", 1), ks.Verifiers())
	require.Error(t, err)
	for name, text := range map[string]string{
		"nothing": "", "no root": "o\n7\n", "another line": c.Text() + "x\n", "no origin": "\n7\n" + c.Root.String() + "\n",
		"a sign": "o\n+7\n" + c.Root.String() + "\n", "a zero": "o\n07\n" + c.Root.String() + "\n", "a short root": "o\n7\nAAAA\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := chain.ParseCheckpoint(text + "\n— o AAAA\n")
			require.Error(t, err)
		})
	}
	_, err = chain.ParseCheckpoint(c.Text())
	require.Error(t, err, "it has no signature")
}

// A key speaks for the log whose name it has, and for no other whose key is known
// beside it.
func TestThreat22CheckpointOfAnotherLog(t *testing.T) {
	ks := newKeys(t)
	other, err := chain.GenerateKey("hsagentd/fedcba9876543210")
	require.NoError(t, err)
	c := &chain.Checkpoint{Origin: ks[0].Name(), Size: 7, Root: chain.Leaf(nil, nil)}
	msg, err := c.Sign(chain.Keys{other})
	require.NoError(t, err)
	_, err = chain.OpenCheckpoint(msg, append(ks.Verifiers(), other.Verifier()))
	require.ErrorContains(t, err, "fedcba9876543210")
	msg, err = c.Sign(chain.Keys{ks[0], other})
	require.NoError(t, err)
	_, err = chain.OpenCheckpoint(msg, append(ks.Verifiers(), other.Verifier()))
	require.NoError(t, err, "the log's own key has signed it as well")
}

func TestParseKeys(t *testing.T) {
	ks := newKeys(t)
	text := "# a comment\n\n" + ks[0].Secret() + "\n"
	got, err := chain.ParseKeys(text)
	require.NoError(t, err)
	require.Equal(t, ks.Verifiers(), got.Verifiers())
	require.NotContains(t, fmt.Sprintf("%v %+v %s %#v", got[0], got[0], got[0], got), ks[0].Secret()[30:], "a key does not print its secret half")
	for name, text := range map[string]string{"nothing": "", "a comment": "# x\n", "nonsense": "secret-nonsense\n", "a public key": ks[0].Verifier()} {
		t.Run(name, func(t *testing.T) {
			_, err := chain.ParseKeys(text)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "nonsense")
		})
	}
	_, err = chain.ParseVerifiers("no key here")
	require.Error(t, err)
	_, err = chain.ParseVerifiers("x+00000000+" + strings.Repeat("A", 44))
	require.Error(t, err)
}

func TestStatements(t *testing.T) {
	p := chain.Pruning{Before: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), Seqs: []chain.Range{{First: 0, Last: 3}, {First: 7, Last: 7}}}
	require.Equal(t, "records before 2026-01-02T00:00:00.000Z: 0-3,7", p.Reason())
	got, err := chain.ParsePruning(&chain.Record{Seq: 8, Kind: chain.AuditPruned, Reason: p.Reason()})
	require.NoError(t, err)
	require.Equal(t, &p, got)
	g := chain.Gap{Seq: 5, Kept: 5, Lost: 9, Root: chain.Leaf(nil, nil)}
	gap, err := chain.ParseGap(&chain.Record{Seq: 5, Kind: chain.AuditGap, Reason: g.Reason()})
	require.NoError(t, err)
	require.Equal(t, &g, gap)
	for _, reason := range []string{
		"", "records before", "records before x: 1", "records before 2026-01-02T00:00:00.000Z: ", "records before 2026-01-02T00:00:00.000Z: 3-1",
		"records before 2026-01-02T00:00:00.000Z: 1,1", "records before 2026-01-02T00:00:00.000Z: 2-3,1", "records before 2026-01-02T00:00:00.000Z: 8",
		"records before 2026-01-02T00:00:00.000Z: 01", "records before 2026-01-02T00:00:00.000Z: 1-1", g.Reason() + " ",
	} {
		_, err := chain.ParsePruning(&chain.Record{Seq: 8, Kind: chain.AuditPruned, Reason: reason})
		require.Error(t, err, reason)
		_, err = chain.ParseGap(&chain.Record{Seq: 8, Kind: chain.AuditGap, Reason: reason})
		require.Error(t, err, reason)
	}
}

// export makes an export of n records of acme, with others in between.
func export(t testing.TB, ks chain.Keys, n uint64) []byte {
	t.Helper()
	var leaves []chain.Hash
	var stored, salts [][]byte
	for i := range 2 * n {
		slug, slugSeq := []string{"acme", "other"}[i%2], i/2
		b, err := (&chain.Record{Seq: i, Kind: chain.CallDenied, ClientSlug: slug, SlugSeq: &slugSeq, Actor: "<a&b>", TS: wire.At(time.UnixMilli(int64(i)))}).Encode()
		require.NoError(t, err)
		salt := bytes.Repeat([]byte{byte(i)}, chain.SaltSize)
		leaves, stored, salts = append(leaves, chain.Leaf(salt, b)), append(stored, b), append(salts, salt)
	}
	var tree chain.Tree
	for _, l := range leaves {
		tree.Add(l, nil)
	}
	msg, err := (&chain.Checkpoint{Origin: ks[0].Name(), Size: 2 * n, Root: tree.Root()}).Sign(ks)
	require.NoError(t, err)
	first, last := uint64(0), n-1
	m := chain.Manifest{Format: chain.ExportFormat, Slug: "acme", FirstSlugSeq: &first, LastSlugSeq: &last, Count: n, Checkpoint: msg}
	head, err := m.Line(ks)
	require.NoError(t, err)
	out := append(head, '\n')
	for i := uint64(0); i < 2*n; i += 2 {
		line, err := (&chain.ProvedRecord{Seq: i, Record: stored[i], Salt: salts[i], Proof: path(leaves, int(i))}).Line()
		require.NoError(t, err)
		out = append(append(out, line...), '\n')
	}
	return out
}

// path computes a leaf's path as RFC 6962 defines it.
func path(leaves []chain.Hash, i int) []chain.Hash {
	if len(leaves) <= 1 {
		return nil
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	root := func(l []chain.Hash) chain.Hash {
		var t chain.Tree
		for _, h := range l {
			t.Add(h, nil)
		}
		return t.Root()
	}
	if i < k {
		return append(path(leaves[:k], i), root(leaves[k:]))
	}
	return append(path(leaves[k:], i-k), root(leaves[:k]))
}

func TestVerifyExport(t *testing.T) {
	ks := newKeys(t)
	good := export(t, ks, 6)
	var got []uint64
	rep, err := chain.VerifyExport(bytes.NewReader(good), ks.Verifiers(), func(_ []byte, r *chain.Record) error { got = append(got, r.Seq); return nil })
	require.NoError(t, err)
	require.Empty(t, rep.Damage)
	require.Equal(t, []uint64{0, 2, 4, 6, 8, 10}, got)
	lines := strings.SplitAfter(strings.TrimSuffix(string(good), "\n"), "\n")
	lines[6] += "\n"
	join := func(order ...int) string {
		var b strings.Builder
		for _, i := range order {
			b.WriteString(lines[i])
		}
		return b.String()
	}
	tests := []struct {
		name, text string
		kind       chain.DamageKind
		seq        uint64
	}{
		{"the first is missing", join(0, 2, 3, 4, 5, 6), chain.Missing, 2},
		{"one in the middle", join(0, 1, 2, 4, 5, 6), chain.Missing, 6},
		{"the last", join(0, 1, 2, 3, 4, 5), chain.Missing, 8},
		{"all", join(0), chain.Missing, 0},
		{"one twice", join(0, 1, 2, 2, 3, 4, 5, 6), chain.BadOrder, 2},
		{"two swapped", join(0, 1, 3, 2, 4, 5, 6), chain.Missing, 4},
		{"no manifest", join(1, 2, 3), chain.BadNote, 0},
		{"nothing", "", chain.BadNote, 0},
		{"a space", strings.Replace(string(good), `{"seq":4,`, `{"seq": 4,`, 1), chain.BadForm, 2},
		{"another member", strings.Replace(string(good), `{"seq":4,`, `{"seq":4,"x":1,`, 1), chain.BadForm, 2},
		{"a member twice", strings.Replace(string(good), `{"seq":4,`, `{"seq":3,"seq":4,`, 1), chain.BadForm, 2},
		{"another number", strings.Replace(string(good), `{"seq":4,`, `{"seq":5,`, 1), chain.Changed, 5},
		{"an empty line", strings.Replace(string(good), "\n", "\n\n", 1), chain.BadForm, 0},
		{"another slug", strings.Replace(string(good), `"slug":"acme"`, `"slug":"acne"`, 1), chain.BadNote, 0},
		{"an unsigned member", strings.Replace(string(good), `"count":6`, `"count":6,"note":""`, 1), chain.BadNote, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rep, err := chain.VerifyExport(strings.NewReader(tt.text), ks.Verifiers(), nil)
			require.NoError(t, err)
			require.NotEmpty(t, rep.Damage)
			require.Equal(t, tt.kind, rep.Damage[0].Kind, "%v", rep.Damage)
			require.Equal(t, tt.seq, rep.Damage[0].Seq, "%v", rep.Damage)
			require.LessOrEqual(t, len(rep.Damage), 3, "one damage must not look like many: %v", rep.Damage)
		})
	}
	_, err = chain.VerifyExport(strings.NewReader(strings.Repeat("x", 1<<20)), ks.Verifiers(), nil)
	require.Error(t, err, "a line without end is not read to memory")
}

// Another client's record does not get into an export, were it ever so well
// proved.
func TestVerifyExportOfAnother(t *testing.T) {
	ks := newKeys(t)
	good := string(export(t, ks, 2))
	head, rest, _ := strings.Cut(good, "\n")
	var m chain.Manifest
	require.NoError(t, json.Unmarshal([]byte(head), &m))
	m.Slug = "other"
	line, err := m.Line(ks)
	require.NoError(t, err)
	rep, err := chain.VerifyExport(strings.NewReader(string(line)+"\n"+rest), ks.Verifiers(), nil)
	require.NoError(t, err)
	require.Equal(t, chain.Unknown, rep.Damage[0].Kind)
}

// What is signed is the manifest, and not a longer text that begins like it.
func TestThreat22LongerTextIsSigned(t *testing.T) {
	ks := newKeys(t)
	line, rest, _ := bytes.Cut(export(t, ks, 3), []byte("\n"))
	text, _, _ := strings.Cut(string(line), `,"signature":`)
	text += "}"
	signer, err := note.NewSigner(ks[0].Secret())
	require.NoError(t, err)
	more := "— and more\n"
	msg, err := note.Sign(&note.Note{Text: text + "\n\n" + more}, signer)
	require.NoError(t, err)
	sig, err := json.Marshal(strings.TrimSuffix(strings.TrimPrefix(string(msg), text+"\n\n"), "\n"))
	require.NoError(t, err)
	forged := strings.TrimSuffix(text, "}") + `,"signature":` + string(sig) + "}\n" + string(rest)
	rep, err := chain.VerifyExport(strings.NewReader(forged), ks.Verifiers(), nil)
	require.NoError(t, err)
	require.NotEmpty(t, rep.Damage)
}

// An export that asks for all records begins with the first one.
func TestThreat22ExportWithoutItsBeginning(t *testing.T) {
	ks := newKeys(t)
	line, rest, _ := bytes.Cut(export(t, ks, 3), []byte("\n"))
	_, rest, _ = bytes.Cut(rest, []byte("\n"))
	var m chain.Manifest
	require.NoError(t, json.Unmarshal(line, &m))
	first := uint64(1)
	m.Count, m.FirstSlugSeq = 2, &first
	for _, from := range []*wire.Time{nil, {Time: time.UnixMilli(1)}} {
		m.From = from
		line, err := m.Line(ks)
		require.NoError(t, err)
		rep, err := chain.VerifyExport(strings.NewReader(string(line)+"\n"+string(rest)), ks.Verifiers(), nil)
		require.NoError(t, err)
		require.Equal(t, from != nil, rep.OK(), "%v", rep.Damage)
	}
}

// The key of another log cannot say which records of this one there are.
func TestThreat22ManifestOfAnotherLog(t *testing.T) {
	ks := newKeys(t)
	other, err := chain.GenerateKey("hsagentd/fedcba9876543210")
	require.NoError(t, err)
	line, rest, _ := bytes.Cut(export(t, ks, 3), []byte("\n"))
	first, _, _ := bytes.Cut(rest, []byte("\n"))
	var m chain.Manifest
	require.NoError(t, json.Unmarshal(line, &m))
	m.Count, m.LastSlugSeq = 1, m.FirstSlugSeq // as if there were no others
	for _, tt := range []struct {
		key *chain.Key
		ok  bool
	}{{ks[0], true}, {other, false}} {
		line, err := m.Line(chain.Keys{tt.key})
		require.NoError(t, err)
		rep, err := chain.VerifyExport(strings.NewReader(fmt.Sprintf("%s\n%s\n", line, first)), append(ks.Verifiers(), other.Verifier()), nil)
		require.NoError(t, err)
		require.Equal(t, tt.ok, rep.OK(), "%v", rep.Damage)
	}
}

func FuzzVerifyExport(f *testing.F) {
	ks := newKeys(f)
	good := export(f, ks, 3)
	f.Add(good)
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rep, err := chain.VerifyExport(bytes.NewReader(b), ks.Verifiers(), nil)
		if err == nil && rep.OK() {
			require.Equal(t, string(good), string(b), "only what was signed verifies")
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	ks := newKeys(f)
	msg, err := (&chain.Checkpoint{Origin: ks[0].Name(), Size: 3}).Sign(ks)
	require.NoError(f, err)
	f.Add(msg)
	f.Fuzz(func(t *testing.T, msg string) {
		c, err := chain.ParseCheckpoint(msg)
		if err != nil {
			require.Nil(t, c)
			return
		}
		require.True(t, strings.HasPrefix(msg, c.Text()), "one text for one checkpoint")
	})
}
