//go:build faults

package auditstore_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/packaging/faults"
)

// Whenever the power goes, nothing is lost that was acknowledged. The control
// is a disk that lies about its syncs: if it loses nothing, this test sees
// nothing.
func TestFaultPowerCut(t *testing.T) {
	const controls = 3
	cuts := 40 // the rest at night
	if n, err := strconv.Atoi(os.Getenv("HSAGENT_CUTS")); err == nil {
		cuts = n
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	d := faults.NewDisk(t, 512)
	dir := filepath.Join(d.Path, "log")
	acked := map[uint64]string{}
	for i := range cuts {
		n := 1 + r.IntN(200)
		if i%20 == 0 {
			n = 2500 // Badger starts new files meanwhile
		}
		more, _ := writeUntil(t, dir, n, func(*exec.Cmd) { d.Cut(t) })
		d.Restart(t)
		s := open(t, dir)
		requireAcked(t, s, more)
		require.NoError(t, s.Close())
		for seq, leaf := range more {
			require.NotContains(t, acked, seq, "given twice")
			acked[seq] = leaf
		}
	}
	s := open(t, dir)
	requireStanding(t, s)
	requireAcked(t, s, acked)
	require.NoError(t, s.Close())
	t.Logf("%d cuts, %d acknowledged intents, 0 lost", cuts, len(acked))

	gone, refused := 0, 0
	for i := range controls {
		dir := filepath.Join(d.Path, fmt.Sprintf("control-%d", i))
		acked, _ := writeUntil(t, dir, 500, func(*exec.Cmd) { d.Cut(t) }, "AUDIT_TEST_LIE=1")
		d.Restart(t)
		s, err := auditstore.Open(t.Context(), auditstore.Config{Dir: dir, MinFree: 1})
		if err != nil {
			require.ErrorIs(t, err, auditstore.ErrDamaged)
			refused++
			continue
		}
		gone += len(lost(t, s, acked))
		require.NoError(t, s.Close())
	}
	t.Logf("control, a disk that lies about syncs, %d cuts: %d acknowledged intents lost, %d logs refused as damaged", controls, gone, refused)
	require.Positive(t, gone+refused, "a disk that does not sync lost nothing: the rig is blind")
}

// A disk that we fill, down to the floor, and one that a neighbour fills
// altogether.
func TestFaultFullDisk(t *testing.T) {
	const mib = 1 << 20
	for _, size := range []int{64, 256} {
		t.Run(fmt.Sprintf("by us, %d MiB", size), func(t *testing.T) {
			d := faults.NewTmpfs(t, size)
			dir := filepath.Join(d.Path, "log")
			floor := uint64(208 * mib)
			if size == 64 {
				_, err := auditstore.Open(t.Context(), auditstore.Config{Dir: dir})
				require.ErrorIs(t, err, auditstore.ErrUnavailable, "the usual floor is above all of this disk")
				require.ErrorContains(t, err, dir)
				floor = 40 * mib
			}
			acked, said := writeUntil(t, dir, -1, nil, fmt.Sprintf("AUDIT_TEST_FLOOR=%d", floor))
			require.NotEmpty(t, acked)
			require.Contains(t, said, "MiB free and needs", "it stops in order, and says why")
			_, err := auditstore.Open(t.Context(), auditstore.Config{Dir: dir, MinFree: floor})
			require.ErrorIs(t, err, auditstore.ErrUnavailable)
			d.Resize(t, 2*size)
			s := open(t, dir)
			requireStanding(t, s)
			requireAcked(t, s, acked)
			require.NoError(t, s.Close())
			t.Logf("%d intents acknowledged, 0 lost", len(acked))
		})
	}
	t.Run("by a neighbour", func(t *testing.T) { filledByNeighbour(t, faults.NewTmpfs(t, 256)) })
}

// The same on ext4.
func TestFaultFullExt4(t *testing.T) {
	const mib = 1 << 20
	t.Run("by us", func(t *testing.T) {
		d := faults.NewDisk(t, 64)
		dir, other := filepath.Join(d.Path, "log"), filepath.Join(d.Path, "other")
		require.NoError(t, os.WriteFile(other, make([]byte, 8*mib), 0o600))
		floor := fmt.Sprintf("AUDIT_TEST_FLOOR=%d", 32*mib)
		acked, said := writeUntil(t, dir, -1, nil, floor)
		require.NotEmpty(t, acked)
		require.Contains(t, said, "MiB free and needs", "it stops in order, and says why")
		require.NoError(t, os.Remove(other))
		more, _ := writeUntil(t, dir, 10, func(*exec.Cmd) {}, floor)
		s := open(t, dir)
		requireStanding(t, s)
		requireAcked(t, s, acked)
		requireAcked(t, s, more)
		require.NoError(t, s.Close())
		t.Logf("%d intents acknowledged, 0 lost", len(acked))
	})
	t.Run("by a neighbour", func(t *testing.T) { filledByNeighbour(t, faults.NewDisk(t, 256)) })
}

// filledByNeighbour fills all the space at any moment, and gives it back.
func filledByNeighbour(t *testing.T, d *faults.Disk) {
	const rounds = 10
	dir := filepath.Join(d.Path, "log")
	acked := map[uint64]string{}
	ends := map[string]int{}
	for range rounds {
		var free func()
		more, said := writeUntil(t, dir, 1+rand.IntN(1000), func(*exec.Cmd) { free = d.Fill(t) }, fmt.Sprintf("AUDIT_TEST_FLOOR=%d", 112<<20))
		for seq, leaf := range more {
			acked[seq] = leaf
		}
		ends[howEnded(said)]++
		_, err := auditstore.Open(t.Context(), auditstore.Config{Dir: dir})
		require.ErrorIs(t, err, auditstore.ErrUnavailable)
		free()
		s := open(t, dir)
		requireStanding(t, s)
		requireAcked(t, s, acked)
		require.NoError(t, s.Close())
	}
	t.Logf("%d times full, %d intents acknowledged, 0 lost; the writer ended: %v", rounds, len(acked), ends)
}

// howEnded sorts the last words of a writer.
func howEnded(said string) string {
	switch {
	case strings.Contains(said, "MiB free and needs"):
		return "in order"
	case strings.Contains(said, "SIGBUS"):
		return "by SIGBUS"
	}
	return said
}

// Each file of the log is damaged in each way. Either the log is refused, and
// the refusal leads to the file or the records, or nothing is missing. Nothing
// is made anew, and with the file put back the log is the one it was.
func TestFaultFiles(t *testing.T) {
	harms := []struct {
		name string
		do   func(name string, whole []byte) error
	}{
		{"deleted", func(name string, _ []byte) error { return os.Remove(name) }},
		{"emptied", func(name string, _ []byte) error { return os.Truncate(name, 0) }},
		{"cut in half", func(name string, whole []byte) error { return os.Truncate(name, int64(len(whole)/2)) }},
		{"cut at half of what is used", func(name string, whole []byte) error {
			return os.Truncate(name, int64(len(bytes.TrimRight(whole, "\x00"))/2))
		}},
		{"of zeros", func(name string, whole []byte) error { return os.WriteFile(name, make([]byte, len(whole)), 0o600) }},
		{"of nonsense", func(name string, whole []byte) error {
			junk := make([]byte, len(whole))
			rand.NewChaCha8([32]byte{1}).Read(junk)
			return os.WriteFile(name, junk, 0o600)
		}},
	}
	for _, crashed := range []bool{false, true} {
		source, n := t.TempDir(), 300
		if crashed {
			n = 2500 // more than a memtable
		}
		acked := kill(t, source, n)
		if !crashed {
			require.NoError(t, open(t, source).Close())
		}
		good, err := auditstore.Check(t.Context(), copyDir(t, source), nil)
		require.NoError(t, err)
		require.Empty(t, good.Damage)
		files := logFiles(t, source)
		t.Logf("crashed=%v: %v", crashed, files)
		refused := 0
		for _, file := range files {
			for _, harm := range harms {
				t.Run(fmt.Sprintf("crashed=%v/%s %s", crashed, file, harm.name), func(t *testing.T) {
					dir := copyDir(t, source)
					name := filepath.Join(dir, file)
					whole, err := os.ReadFile(name)
					require.NoError(t, err)
					require.NoError(t, harm.do(name, whole))
					_, checked := auditstore.Check(t.Context(), dir, nil)
					s, err := auditstore.Open(t.Context(), auditstore.Config{Dir: dir, MinFree: 1})
					if err != nil {
						refused++
						require.ErrorIs(t, err, auditstore.ErrDamaged)
						require.ErrorContains(t, err, "hsagentd check")
						require.ErrorContains(t, err, dir, "the refusal says where")
						require.NoError(t, os.WriteFile(name, whole, 0o600))
						s = open(t, dir)
					} else {
						require.NoError(t, checked)
					}
					requireAcked(t, s, acked)
					require.NoError(t, s.Close())
				})
			}
		}
		t.Logf("crashed=%v: %d files, %d harms each, refused %d times, 0 lost in silence", crashed, len(files), len(harms), refused)
		require.Positive(t, refused)
	}
}

// logFiles are the files with bytes in them, but for the locks.
func logFiles(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.EqualFold(e.Name(), "lock") {
			return err
		}
		info, err := e.Info()
		if err != nil || info.Size() == 0 {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		out = append(out, rel)
		return err
	}))
	require.NotEmpty(t, out)
	return out
}
