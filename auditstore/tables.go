package auditstore

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"golang.org/x/sys/unix"
)

// checkTables opens each table that the manifest names, as Badger is about to
// do. Badger opens them in goroutines of its own, where a damaged table is a
// panic that nobody can contain, and leaves out those whose sum is wrong.
func checkTables(o badger.Options) error {
	m, err := readManifest(o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a new database, or for Badger to refuse
	}
	if err != nil {
		return fmt.Errorf("%w: read %s: %w", ErrDamaged, filepath.Join(o.Dir, badger.ManifestFilename), err)
	}
	ids := slices.Collect(maps.Keys(m.Tables))
	var next atomic.Int64
	errs := make([]error, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for k := range errs {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(ids)) && errs[k] == nil; i = next.Add(1) - 1 {
				name := table.NewFilename(ids[i], o.Dir)
				err := checkTable(name, table.Options{
					ReadOnly: true, BlockSize: o.BlockSize, Compression: m.Tables[ids[i]].Compression, ChkMode: o.ChecksumVerificationMode,
				})
				if err != nil {
					errs[k] = fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// checkTable reads what Badger reads of a table when it opens it.
func checkTable(name string, o table.Options) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return errors.New("it is empty") // which cannot be mapped
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map it: %w", err)
	}
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("it is no table") // what Badger panics with tells nobody more
		}
		err = errors.Join(err, unix.Munmap(data))
	}()
	_, err = table.OpenInMemoryTable(data, 0, &o)
	return err
}
