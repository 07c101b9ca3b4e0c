// Package faults makes file systems that tests break. The tests with the build
// tag faults use it, as root; run.sh runs them.
package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A Disk is a file system of the test's own. It needs root.
type Disk struct {
	Path string
	dev  string // "" for a tmpfs
}

// NewDisk makes an ext4 of so many MiB on a loop device whose bytes are in
// memory, and mounts it.
func NewDisk(t *testing.T, mib int) *Disk {
	t.Helper()
	image := filepath.Join("/dev/shm", fmt.Sprintf("hsagent-faults-%d", os.Getpid()))
	f, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.Remove(image)) })
	require.NoError(t, f.Truncate(int64(mib)<<20))
	out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput() //nolint:gosec // a file of our own
	require.NoError(t, err, "%s", out)

	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	require.NoError(t, err)
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	require.NoError(t, err)
	d := &Disk{dev: fmt.Sprintf("/dev/loop%d", n), Path: t.TempDir()}
	loop, err := os.OpenFile(d.dev, os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(f.Fd())))
	t.Cleanup(func() { require.NoError(t, unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0)) })
	d.mount(t)
	t.Cleanup(func() { d.unmount(t) })
	return d
}

// Abort makes the file system read-only at once, whoever writes, as ext4 does
// by itself when it finds an error.
func (d *Disk) Abort(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.Mount(d.dev, d.Path, "ext4", unix.MS_REMOUNT, "abort"))
}

func (d *Disk) mount(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.Mount(d.dev, d.Path, "ext4", 0, ""), "mount %s", d.dev)
}

func (d *Disk) unmount(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.Unmount(d.Path, 0))
}

// Freeze has whoever writes wait, without an error, until thaw, which comes by
// itself after two minutes.
func (d *Disk) Freeze(t *testing.T) (thaw func()) {
	t.Helper()
	const freeze, unfreeze = 0xc0045877, 0xc0045878 // FIFREEZE and FITHAW
	f, err := os.Open(d.Path)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetInt(int(f.Fd()), freeze, 0))
	once := sync.OnceValue(func() error {
		return errors.Join(unix.IoctlSetInt(int(f.Fd()), unfreeze, 0), f.Close())
	})
	late := time.AfterFunc(2*time.Minute, func() { _ = once() }) // who waits for the disk does not clean up
	thaw = func() {
		late.Stop()
		require.NoError(t, once())
	}
	t.Cleanup(thaw) // a frozen file system cannot be unmounted
	return thaw
}

// Cut takes the power away: from now on nothing reaches the device, and what
// is in the file system's memory and journal is lost.
func (d *Disk) Cut(t *testing.T) {
	t.Helper()
	const (
		shutdown   = 0x8004587d // EXT4_IOC_SHUTDOWN
		noLogFlush = 2
	)
	f, err := os.Open(d.Path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush))
}

// Restart gives the power back.
func (d *Disk) Restart(t *testing.T) {
	t.Helper()
	d.unmount(t)
	d.mount(t)
}

// NewTmpfs mounts a tmpfs of so many MiB.
func NewTmpfs(t *testing.T, mib int) *Disk {
	t.Helper()
	d := &Disk{Path: t.TempDir()}
	require.NoError(t, unix.Mount("tmpfs", d.Path, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)))
	t.Cleanup(func() { d.unmount(t) })
	return d
}

// NewInodes mounts a tmpfs that has room for so many files.
func NewInodes(t *testing.T, files int) *Disk {
	t.Helper()
	d := &Disk{Path: t.TempDir()}
	require.NoError(t, unix.Mount("tmpfs", d.Path, "tmpfs", 0, fmt.Sprintf("size=1g,nr_inodes=%d", files)))
	t.Cleanup(func() { d.unmount(t) })
	return d
}

// FillInodes makes files until there is room for none.
func (d *Disk) FillInodes(t *testing.T) (free func()) {
	t.Helper()
	dir := filepath.Join(d.Path, "files")
	require.NoError(t, os.Mkdir(dir, 0o700))
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			require.True(t, errors.Is(err, unix.ENOSPC), "%v", err)
			break
		}
		require.NoError(t, f.Close())
	}
	return func() { require.NoError(t, os.RemoveAll(dir)) }
}

// Resize changes the size of a tmpfs.
func (d *Disk) Resize(t *testing.T, mib int) {
	t.Helper()
	require.NoError(t, unix.Mount("tmpfs", d.Path, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%dm", mib)))
}

// Fill takes all the space there is, as a neighbour's file does.
func (d *Disk) Fill(t *testing.T) (free func()) {
	t.Helper()
	name := filepath.Join(d.Path, "ballast")
	f, err := os.Create(name)
	require.NoError(t, err)
	defer f.Close()
	block := make([]byte, 1<<20)
	for size := len(block); size >= 4096; {
		if _, err := f.Write(block[:size]); err != nil {
			require.True(t, errors.Is(err, unix.ENOSPC), "%v", err)
			size /= 2
		}
	}
	return func() { require.NoError(t, os.Remove(name)) }
}
