package auditstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hsagent/hsagentd/auditstore"
	"github.com/hsagent/hsagentd/auditstore/chain"
)

// failCall makes the kernel answer a system call of this whole process with
// EIO from now on, by a seccomp filter: a disk whose syncs begin to fail.
func failCall(nr uint32) error { return answerCall(nr, unix.EIO) }

// answerCall makes the kernel answer a system call of this whole process from
// now on, without doing it; 0 is a lie about a success.
func answerCall(nr uint32, errno unix.Errno) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, failed := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if failed != 0 {
		return failed
	}
	return nil
}

// lieAboutSyncs makes every sync of this process a success that does nothing.
func lieAboutSyncs() error {
	for _, nr := range []uint32{unix.SYS_MSYNC, unix.SYS_FDATASYNC, unix.SYS_FSYNC, unix.SYS_SYNC_FILE_RANGE, unix.SYS_SYNCFS} {
		if err := answerCall(nr, 0); err != nil {
			return err
		}
	}
	return nil
}

// writeIntoEIO is the program that TestMain becomes for TestThreat21: it makes
// some records durable, breaks the disk, and tries on. It prints how many
// records were acknowledged before, and after.
func writeIntoEIO(dir, what string) error {
	name, n, _ := strings.Cut(what, ":")
	good, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	nr := map[string]uint32{"msync": unix.SYS_MSYNC, "fdatasync": unix.SYS_FDATASYNC}[name]
	ctx := context.Background()
	s, err := auditstore.Open(ctx, auditstore.Config{Dir: dir, Actor: "test", MinFree: 1})
	if err != nil {
		return err
	}
	for range good {
		if _, err := s.Append(ctx, chain.Record{Kind: chain.AgentStarted}); err != nil {
			return err
		}
	}
	if err := failCall(nr); err != nil {
		return fmt.Errorf("break %s: %w", name, err)
	}
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		accepted int
	)
	for range 8 {
		wg.Go(func() {
			for range 25 {
				if _, err := s.Append(ctx, chain.Record{Kind: chain.AgentLocked}); err == nil {
					mu.Lock()
					accepted++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	_, err = s.Usage("a", time.Time{}, time.Time{}) // a reader needs the database
	if name == "msync" != errors.Is(err, auditstore.ErrUnavailable) {
		return fmt.Errorf("a reader got: %w", err)
	}
	_, err = fmt.Printf("%d %d %t\n", good, accepted, s.Status().LastError != "")
	return err
}

// From the first sync of the write-ahead log that fails, no record is acknowledged any
// more. The database's syncs come later, and shut the log as well. What was
// acknowledged is there afterwards.
func TestThreat21SyncErrors(t *testing.T) {
	for _, call := range []string{"msync", "fdatasync"} {
		for _, after := range []int{0, 1, 2, 7, 50} {
			t.Run(fmt.Sprintf("%s after %d", call, after), func(t *testing.T) {
				requireShut(t, call, after)
			})
		}
	}
}

// requireShut breaks a system call under a log, after so many records.
func requireShut(t *testing.T, call string, after int) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "AUDIT_TEST_EIO="+fmt.Sprintf("%s:%d", call, after), "AUDIT_TEST_WRITER="+dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var good, accepted int
	var shut bool
	_, err = fmt.Sscan(string(out), &good, &accepted, &shut)
	require.NoError(t, err, "%s", out)
	require.Equal(t, after, good)
	require.True(t, shut)
	if call == "fdatasync" {
		require.Zero(t, accepted)
	}

	s := open(t, dir)
	recs := all(t, s, chain.Filter{Kind: chain.AgentStarted})
	require.Len(t, recs, after, "what was acknowledged is there")
	require.GreaterOrEqual(t, len(all(t, s, chain.Filter{Kind: chain.AgentLocked})), accepted)
	report, err := s.Verify(t.Context(), func(uint64, uint64) {})
	require.NoError(t, err)
	require.True(t, report.OK(), "%v", report.Damage)
	require.NoError(t, s.Close())
}
