package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

// formulas are cells that a spreadsheet would run.
var formulas = []string{
	"=1+1", "+1+1", "-1+1", "@SUM(A1)", "=cmd|'/C calc'!A0", "=HYPERLINK(\"http://x\")", "＝1+1", "＋1", "－1", "＠SUM(A1)",
	"=", "+", "-", "@", "=A1", "-2+3+cmd|'/C calc'!A0", "+cmd|'/C calc'!A0", "@cmd", "=WEBSERVICE(\"http://x/?\"&A1)", "=IMPORTXML(A1,\"//a\")", "=DDE(\"a\";\"b\";\"c\")",
	"＝cmd|'/C calc'!A0", "＋cmd", "\t\t=1", "\r\n=1", "\x0b=1", "\x0c=1", "\u2028=1", "\u2066=1", "\u061c=1", "\U000e0041=1",
	"\t=1+1", "\r=1+1", "\n=1+1", "\x00=1+1", "\x1b=1", "\u200b=1+1", "\ufeff=1+1", "\u202e=1+1", "\xff=1",
}

func TestThreat49CSVFormula(t *testing.T) {
	require.GreaterOrEqual(t, len(formulas), 40)
	for _, payload := range formulas {
		for column := range portalTable(nil).header {
			tab := portalTable([]wire.Portal{{Slug: "acme-corp", State: wire.StateReady}})
			tab.rows[0][column] = text(payload)
			var b bytes.Buffer
			require.NoError(t, tab.writeCSV(&b))
			rows, err := csv.NewReader(&b).ReadAll()
			require.NoError(t, err)
			require.Len(t, rows, 2)
			first, _ := utf8.DecodeRuneInString(rows[1][column])
			require.NotContains(t, "=+-@＝＋－＠\t\r\n\x00\x1b\u200b\ufeff", string(first), "%q", payload)
		}
	}
}

func FuzzGuardCSV(f *testing.F) {
	for _, s := range formulas {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := guardCSV(s)
		require.True(t, utf8.ValidString(got))
		if r, _ := utf8.DecodeRuneInString(got); got != "" {
			require.False(t, r < ' ' || strings.ContainsRune("=+-@＝＋－＠", r), "%q", got)
		}
	})
}

func FuzzEscapeJSON(f *testing.F) {
	f.Add("plain")
	f.Add("\u009b31m\u202e\U000e0041\x7f")
	f.Fuzz(func(t *testing.T, s string) {
		in, err := json.Marshal(s)
		require.NoError(t, err)
		out := escapeJSON(in)
		for _, r := range string(out) {
			require.False(t, r < 0x20 || r >= 0x7f && r < 0xa0, "%q", out)
		}
		var want, got string
		require.NoError(t, json.Unmarshal(in, &want))
		require.NoError(t, json.Unmarshal(out, &got))
		require.Equal(t, want, got, "it means the same")
	})
}

func TestTableAlignsByLetters(t *testing.T) {
	tab := &table{header: []string{"name", "portalId"}, rows: [][]cell{{text("Müller"), text(1)}, {{"x", red}, text(22)}}}
	var b bytes.Buffer
	require.NoError(t, tab.write(&b, false))
	require.Equal(t, "NAME    PORTAL-ID\nMüller  1\nx       22\n", b.String())
	b.Reset()
	require.NoError(t, tab.write(&b, true))
	require.Contains(t, b.String(), "\x1b[31mx\x1b[0m       22\n")
}
