package auditstore_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/stretchr/testify/require"
)

// residentTables is how many KiB of a log's tables are in resident memory.
func residentTables(t *testing.T, dir string) (kib int) {
	real, err := filepath.EvalSymlinks(dir)
	require.NoError(t, err)
	b, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	ours := false
	for line := range strings.Lines(string(b)) {
		if regexp.MustCompile(`^[0-9a-f]+-[0-9a-f]+ `).MatchString(line) {
			ours = strings.Contains(line, real) && strings.HasSuffix(strings.TrimSpace(line), ".sst")
		} else if m := regexp.MustCompile(`^Rss: +(\d+) kB`).FindStringSubmatch(line); ours && m != nil {
			n, err := strconv.Atoi(m[1])
			require.NoError(t, err)
			kib += n
		}
	}
	return kib
}

// What is taken out of memory can be read all the same.
func TestUnmap(t *testing.T) {
	dir := written(t)
	s := open(t, dir)
	before := all(t, s, chain.Filter{})
	require.Positive(t, residentTables(t, dir))
	require.NoError(t, s.UnmapNow())
	require.Zero(t, residentTables(t, dir))
	require.Equal(t, before, all(t, s, chain.Filter{}))
	verified(t, s)
	require.NoError(t, s.Unmap())
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Unmap(), auditstore.ErrUnavailable)
}
