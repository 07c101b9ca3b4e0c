package auditstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

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
	for id, t := range m.Tables {
		name := table.NewFilename(id, o.Dir)
		if err := checkTable(name, table.Options{ReadOnly: true, BlockSize: o.BlockSize, Compression: t.Compression}); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
		}
	}
	return nil
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
