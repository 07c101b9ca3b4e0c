package auditstore_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
	"github.com/hsagent/hsagentd/packaging/standing"
	"github.com/stretchr/testify/require"
)

// TestMain turns the test binary into a program that writes to a log until it
// is killed, if the environment says so.
func TestMain(m *testing.M) {
	if dir := os.Getenv("AUDIT_TEST_WRITER"); dir != "" {
		write := writeUntilKilled
		if what := os.Getenv("AUDIT_TEST_EIO"); what != "" {
			write = func(dir string) error { return writeIntoEIO(dir, what) }
		}
		if err := write(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// writeUntilKilled makes calls from eight goroutines, and prints each
// acknowledged intent as "<seq> <leaf>".
func writeUntilKilled(dir string) error {
	ctx := context.Background()
	floor, err := strconv.ParseUint(cmp.Or(os.Getenv("AUDIT_TEST_FLOOR"), "1"), 10, 64)
	if err != nil {
		return err
	}
	s, err := auditstore.Open(ctx, auditstore.Config{Dir: dir, MinFree: floor})
	if err != nil {
		return err
	}
	if os.Getenv("AUDIT_TEST_LIE") != "" {
		if err := lieAboutSyncs(); err != nil {
			return err
		}
	}
	fmt.Println("open")
	var mu sync.Mutex
	failed := make(chan error)
	if os.Getenv("AUDIT_TEST_PRUNE") != "" {
		go func() {
			for {
				if _, err := s.Prune(ctx, "", time.Now().Add(-20*time.Millisecond), nil); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	for w := range 8 {
		go func() {
			r := rand.New(rand.NewPCG(uint64(w), uint64(time.Now().UnixNano())))
			for {
				in := intent(fmt.Sprintf("slug-%d", w%5), r)
				in.Reason = string(make([]byte, r.IntN(600))) // six times as long when encoded
				rc, err := s.Append(ctx, in)
				if err == nil {
					mu.Lock()
					fmt.Println(rc.Seq, rc.Leaf)
					mu.Unlock()
					err = s.AppendLazy(outcome(in, r))
				}
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// kill runs the writer and kills it after at least n acknowledged records. It
// returns all that were acknowledged.
func kill(t testing.TB, dir string, n int) map[uint64]string {
	t.Helper()
	acked, _ := writeUntil(t, dir, n, func(cmd *exec.Cmd) { require.NoError(t, cmd.Process.Signal(syscall.SIGKILL)) })
	return acked
}

// writeUntil runs the writer, with more in its environment, and calls end after
// n acknowledged records, unless the writer has ended before. It returns all
// that were acknowledged and what the writer said when it ended.
func writeUntil(t testing.TB, dir string, n int, end func(cmd *exec.Cmd), env ...string) (map[uint64]string, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "AUDIT_TEST_WRITER="+dir), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	in := bufio.NewReader(out)
	line, err := in.ReadString('\n')
	if err != nil {
		_ = cmd.Wait() // said is whole then
		require.NoError(t, err, "%s", said.String())
	}
	require.Equal(t, "open\n", line)
	acked := map[uint64]string{}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
		var seq uint64
		var leaf string
		_, err = fmt.Sscan(line, &seq, &leaf)
		require.NoError(t, err, "%q", line)
		acked[seq] = leaf
		if len(acked) == n {
			end(cmd)
		}
	}
	require.Error(t, cmd.Wait())
	return acked, said.String()
}

// killed is the directory of a log whose writer was killed.
func killed(t testing.TB) string {
	dir := t.TempDir()
	kill(t, dir, 40)
	return dir
}

// AUDIT_TEST_KILLS sets the number of rounds.
func rounds() int {
	if n, err := strconv.Atoi(os.Getenv("AUDIT_TEST_KILLS")); err == nil {
		return n
	}
	return 10
}

// A kill may come when Badger has made a file and not yet given it a size.
func TestThreat03KilledAtAFilesBirth(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "badger", "00099.mem"), nil, 0o600))
	r, err := auditstore.Check(t.Context(), dir, nil)
	require.NoError(t, err)
	require.True(t, r.OK())
	s = open(t, dir)
	require.NoError(t, s.Close())
}

func TestThreat03Killed(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	acked := map[uint64]string{}
	for range rounds() {
		for seq, leaf := range kill(t, dir, 1+r.IntN(200)) {
			require.NotContains(t, acked, seq, "given twice")
			acked[seq] = leaf
		}
		s := open(t, dir)
		requireStanding(t, s)
		require.NoError(t, s.Close())
	}
	requireAcked(t, open(t, dir), acked)
}

// Killed at any moment, of a start too, while records are being pruned, the log
// opens and is the one that it was, without what was pruned.
func TestKilledWhilePruning(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	require.NoError(t, open(t, dir).Close())
	for i := range rounds() {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "AUDIT_TEST_WRITER="+dir, "AUDIT_TEST_PRUNE=1")
		var said bytes.Buffer
		cmd.Stderr = &said
		require.NoError(t, cmd.Start())
		time.Sleep(rand.N(time.Duration(i%4+1) * 100 * time.Millisecond))
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		require.Empty(t, said.String())
		if i%3 > 0 {
			continue // a start behind a start that was killed
		}
		r, err := auditstore.Check(t.Context(), dir, nil)
		require.NoError(t, err)
		require.True(t, r.OK(), "%v", r.Damage)
		s := open(t, dir)
		verified(t, s)
		require.NoError(t, s.Close())
	}
}

// requireStanding checks what holds of every log that was opened.
func requireStanding(t testing.TB, s *auditstore.Store) {
	t.Helper()
	standing.Walk(t, s, nil, nil).Ended(t)
	standing.Verified(t, s)
}

// requireAcked checks that no intent is lost that was acknowledged.
func requireAcked(t testing.TB, s *auditstore.Store, acked map[uint64]string) {
	t.Helper()
	require.Empty(t, lost(t, s, acked), "acknowledged and lost")
}

// lost returns the acknowledged intents that the log lacks.
func lost(t testing.TB, s *auditstore.Store, acked map[uint64]string) []uint64 {
	t.Helper()
	there, first := map[uint64]bool{}, uint64(math.MaxUint64)
	for seq := range acked {
		first = min(first, seq)
	}
	f := chain.Filter{Kind: chain.CallIntent}
	if first > 0 && len(acked) > 0 {
		before := first - 1
		f.After = &before
	}
	require.NoError(t, s.Records(t.Context(), f, func(_ []byte, rec *chain.Record) error {
		there[rec.Seq] = true
		return nil
	}))
	var out []uint64
	for seq := range acked {
		if !there[seq] {
			out = append(out, seq)
		}
	}
	slices.Sort(out)
	return out
}
