package auditstore_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
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
	s, err := auditstore.Open(ctx, auditstore.Config{Dir: dir, MinFree: 1})
	if err != nil {
		return err
	}
	fmt.Println("open")
	var mu sync.Mutex
	failed := make(chan error)
	for w := range 8 {
		go func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
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
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "AUDIT_TEST_WRITER="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	in := bufio.NewReader(out)
	line, err := in.ReadString('\n')
	require.NoError(t, err)
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
			require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
		}
	}
	require.Error(t, cmd.Wait())
	return acked
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
		open := map[string]int{}
		next := uint64(0)
		slugSeq := map[string]uint64{}
		for _, rec := range all(t, s, chain.Filter{}) {
			require.Equal(t, next, rec.Seq, "a gap")
			next++
			require.Equal(t, slugSeq[rec.ClientSlug], *rec.SlugSeq)
			slugSeq[rec.ClientSlug]++
			if rec.Kind == chain.CallIntent {
				open[rec.CallID]++
			} else {
				open[rec.CallID]--
			}
		}
		for id, n := range open {
			require.Zero(t, n, "call %s has no end", id)
		}
		verified(t, s)
		require.NoError(t, s.Close())
	}
	s := open(t, dir)
	leaves := map[uint64]bool{}
	require.NoError(t, s.Records(t.Context(), chain.Filter{Kind: chain.CallIntent}, func(_ []byte, rec *chain.Record) error {
		leaves[rec.Seq] = true
		return nil
	}))
	for seq := range acked {
		require.True(t, leaves[seq], "record %d was acknowledged and is lost", seq)
	}
}
