package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/wire/secret"
)

func TestBytes(t *testing.T) {
	for _, n := range []int{1, 31, 32, 33, 44, 1024, 4096, 4097, 70_000} {
		s := secret.New(n)
		require.Equal(t, n, s.Len())
		s.Expose(func(b []byte) {
			require.Len(t, b, n)
			require.Equal(t, n, cap(b), "a neighbour's bytes are out of reach")
			require.Zero(t, bytes.Count(b, []byte{0})-n)
			b[0], b[n-1] = 1, 2
		})
	}
	s := secret.Copy([]byte("hush"))
	s.Expose(func(b []byte) { require.Equal(t, "hush", string(b)) })
	used := secret.InUse()
	s.Erase()
	s.Erase()
	require.Equal(t, used-32, secret.InUse())
	s.Expose(func(b []byte) { require.Empty(t, b) })
	for _, none := range []*secret.Bytes{nil, secret.New(0), secret.Copy(nil)} {
		require.Zero(t, none.Len())
		none.Expose(func(b []byte) { require.Empty(t, b) })
	}
}

func TestBytesNeverShow(t *testing.T) {
	s := secret.Copy([]byte("hush"))
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s)
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v %s %x %d", s, s, s, s, s, s), fmt.Sprintf("%+v", struct{ S *secret.Bytes }{s}), log.String()} {
		require.Contains(t, shown, "[secret]")
		require.NotContains(t, shown, "hush")
	}
	_, err := json.Marshal(s)
	require.Error(t, err)
}

// Each holder has its own memory, and it is zero again once the holder is gone
// and another gets its place.
func TestThreat60SecretsAreErased(t *testing.T) {
	mark := []byte("a made-up secret of some length.")
	at := map[uintptr]bool{}
	collect := func(until int) {
		for secret.InUse() > until {
			runtime.GC()
			runtime.Gosched() // cleanups have a goroutine of their own
		}
	}
	collect(0) // what other tests left
	held := make([]*secret.Bytes, 1000)
	for i := range held {
		held[i] = secret.Copy(mark)
		held[i].Expose(func(b []byte) {
			p := uintptr(unsafe.Pointer(&b[0]))
			require.False(t, at[p], "two holders share memory")
			at[p] = true
		})
	}
	kept := held[500]
	clear(held)
	require.Equal(t, 1000*32, secret.InUse())
	collect(32)
	kept.Expose(func(b []byte) { require.Equal(t, mark, b, "what is held stays") })
	for range 999 {
		s := secret.New(32)
		s.Expose(func(b []byte) { require.Equal(t, make([]byte, 32), b) })
		s.Expose(func(b []byte) { require.True(t, at[uintptr(unsafe.Pointer(&b[0]))], "memory is used again") })
		held = append(held, s)
	}
	runtime.KeepAlive(held)
	runtime.KeepAlive(kept)
}

// The pages cannot be read through the kernel, not even by this process itself,
// where the kernel has memfd_secret; else they are locked.
func TestThreat60PagesAreHidden(t *testing.T) {
	s := secret.Copy([]byte("a made-up secret"))
	mem, err := os.Open("/proc/self/mem")
	require.NoError(t, err)
	defer mem.Close()
	read := func(b []byte) ([]byte, error) {
		got := make([]byte, len(b))
		_, err := mem.ReadAt(got, int64(uintptr(unsafe.Pointer(&b[0]))))
		return got, err
	}
	control := []byte("a control in the heap")
	got, err := read(control)
	require.NoError(t, err)
	require.Equal(t, control, got, "the way to read memory works")

	s.Expose(func(b []byte) {
		flags := vmFlags(t, uintptr(unsafe.Pointer(&b[0])))
		require.Contains(t, flags, "dd", "it is in core files")
		require.Contains(t, flags, "lo", "it is not locked")
		_, err := read(b)
		if secret.Memory() == secret.Hidden {
			require.ErrorIs(t, err, syscall.EIO, "it can be read")
		} else {
			require.Equal(t, secret.Locked, secret.Memory())
			require.NoError(t, err)
		}
	})
}

// vmFlags returns what the kernel says of the mapping that has addr.
func vmFlags(t *testing.T, addr uintptr) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	inside := false
	for line := range strings.Lines(string(b)) {
		from, rest, ok := strings.Cut(line, "-")
		to, _, _ := strings.Cut(rest, " ")
		if lo, err := strconv.ParseUint(from, 16, 64); ok && err == nil {
			hi, err := strconv.ParseUint(to, 16, 64)
			inside = err == nil && uint64(addr) >= lo && uint64(addr) < hi
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	require.Fail(t, "no such mapping")
	return nil
}
