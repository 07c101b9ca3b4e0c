package wire_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire"
)

const madeUpToken = "pat-na1-00000000-0000-4000-8000-00000000000a"

func TestParseSlug(t *testing.T) {
	tests := []struct {
		name, in string
		ok       bool
	}{
		{"one word", "acme", true},
		{"two words", "acme-corp", true},
		{"digits", "4-you-2", true},
		{"one letter", "a", true},
		{"longest", strings.Repeat("a", wire.MaxSlug), true},
		{"too long", strings.Repeat("a", wire.MaxSlug+1), false},
		{"empty", "", false},
		{"upper case", "Acme", false},
		{"leading hyphen", "-acme", false},
		{"trailing hyphen", "acme-", false},
		{"double hyphen", "acme--corp", false},
		{"underscore", "acme_corp", false},
		{"dot", "acme.corp", false},
		{"slash", "acme/corp", false},
		{"newline at the end", "acme\n", false},
		{"look-alike letter", "аcme", false},
		{"a token", madeUpToken, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := wire.ParseSlug(tt.in)
			if tt.ok {
				require.NoError(t, err)
				require.Equal(t, tt.in, s.String())
				return
			}
			require.ErrorIs(t, err, wire.ErrBadSlug)
			require.True(t, s.IsZero())
		})
	}
}

func TestParseSlugMasksToken(t *testing.T) {
	_, err := wire.ParseSlug(madeUpToken)
	require.ErrorContains(t, err, "pat-na1-***")
	require.ErrorContains(t, err, "a token stands where the slug belongs")
	require.NotContains(t, err.Error(), madeUpToken)
}

func TestSlugJSON(t *testing.T) {
	var in struct{ Slug wire.Slug }
	require.NoError(t, json.Unmarshal([]byte(`{"Slug":"acme-corp"}`), &in))
	require.Equal(t, "acme-corp", in.Slug.String())
	out, err := json.Marshal(in)
	require.NoError(t, err)
	require.JSONEq(t, `{"Slug":"acme-corp"}`, string(out))
	require.ErrorIs(t, json.Unmarshal([]byte(`{"Slug":"Acme"}`), &in), wire.ErrBadSlug)
}

func FuzzParseSlug(f *testing.F) {
	for _, s := range []string{"acme-corp", "", "-", "a--b", "A", "a\x00", "é", madeUpToken, strings.Repeat("a-", 40)} {
		f.Add(s)
	}
	form := regexp.MustCompile(`\A[a-z0-9]+(-[a-z0-9]+)*\z`)
	f.Fuzz(func(t *testing.T, in string) {
		s, err := wire.ParseSlug(in)
		if err != nil {
			require.True(t, s.IsZero(), "an error comes without a slug")
			require.NotContains(t, err.Error(), "\n")
			return
		}
		require.Regexp(t, form, in)
		require.LessOrEqual(t, len(in), wire.MaxSlug)
		require.Equal(t, in, s.String())
		require.Equal(t, in, wire.MaskTokens(in), "no slug looks like a token")
	})
}
