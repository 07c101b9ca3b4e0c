package auditstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
)

// A keep is a copy of the database as it was before Badger opened it. Opening,
// Badger deletes the tables that its manifest does not name and moves its
// write-ahead logs into new ones: over a damaged manifest it would throw away
// what only the rest of that manifest leads to. The copy goes back in place
// when the log turns out to be damaged, so that a refusal has changed nothing.
type keep struct {
	badger string
	path   string // "": nothing was at stake
}

// newKeep returns the keep of a database, of which there may be a copy.
func newKeep(badger string) *keep { return &keep{badger: badger, path: badger + ".before"} }

// careful are the options with which the database is opened as long as the copy
// may have to go back: the tables in it are the database's own, and Badger
// empties a table that it deletes, under whatever name. So it may delete none.
func (k *keep) careful(o badger.Options) badger.Options {
	if k.path == "" {
		return o
	}
	return o.WithNumCompactors(0).WithNumLevelZeroTablesStall(math.MaxInt32)
}

// partial is the copy's name while it may lack files: before it is whole, and
// when it is being removed.
func (k *keep) partial() string { return k.badger + ".before.new" }

// putBack restores the copy of a start that was broken off: it is the truth.
func putBack(badger string) error {
	k := newKeep(badger)
	broken, err := exists(k.path)
	if err != nil {
		return fmt.Errorf("look for a copy of the database: %w", err)
	}
	if !broken {
		return nil
	}
	return k.restore()
}

// keepBefore makes a copy if opening would change more than it adds, or, with
// always, of whatever is there.
func keepBefore(f *found, always bool) (*keep, error) {
	k := newKeep(f.badger)
	tmp := k.partial()
	if err := os.RemoveAll(tmp); err != nil {
		return nil, fmt.Errorf("remove an unfinished copy: %w", err)
	}
	loose, err := looseTables(f.badger)
	if err != nil {
		return nil, err
	}
	if always {
		if always, err = exists(f.badger); err != nil {
			return nil, fmt.Errorf("look for the database: %w", err)
		}
	}
	if !f.crashed && !loose && !always {
		k.path = ""
		return k, nil
	}
	err = copyDatabase(f.badger, tmp)
	if err == nil {
		err = os.Rename(tmp, k.path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(k.path))
	}
	if err != nil {
		return nil, fmt.Errorf("copy the database before it is opened: %w", err)
	}
	return k, nil
}

// looseTables reports whether there are tables that the manifest does not
// name. A manifest that cannot be read names none.
func looseTables(dir string) (bool, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(names) == 0 {
		return false, err
	}
	m, err := readManifest(dir)
	if err != nil {
		return true, nil //nolint:nilerr // Badger will say what is wrong with it
	}
	for _, name := range names {
		id, ok := table.ParseFileID(filepath.Base(name))
		if _, named := m.Tables[id]; ok && !named {
			return true, nil
		}
	}
	return false, nil
}

func readManifest(dir string) (badger.Manifest, error) {
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if err != nil {
		return badger.Manifest{}, err
	}
	defer f.Close()
	m, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir).WithLogger(nil))
	return m, err
}

// copyDatabase makes a durable copy. Tables do not change until they are deleted
// (see careful): they are linked.
func copyDatabase(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.IsDir():
			continue
		case strings.HasSuffix(e.Name(), ".sst"):
			err = os.Link(src, dst)
		default:
			err = copyFile(src, dst)
		}
		if err != nil {
			return err
		}
	}
	return syncDir(to)
}

func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = copySparse(dst, src)
	if err == nil {
		err = dst.Sync()
	}
	return errors.Join(err, dst.Close())
}

// copySparse leaves out blocks of zeros, of which write-ahead logs are mostly
// made.
func copySparse(dst, src *os.File) error {
	zeros, buf := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := io.ReadFull(src, buf)
		if n > 0 && !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := dst.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return dst.Truncate(at)
		}
		if err != nil {
			return err
		}
	}
}

// drop removes the copy: the log is sound, and nothing is put back from here
// on. The copy loses its name before its first file: one that lacks a file must
// never be taken for the truth.
func (k *keep) drop() error {
	if k.path == "" {
		return nil
	}
	path, tmp := k.path, k.partial()
	k.path = ""
	err := os.Rename(path, tmp)
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err == nil {
		err = os.RemoveAll(tmp)
	}
	if err != nil {
		return fmt.Errorf("remove the copy of the database: %w", err)
	}
	return nil
}

// restore puts the copy back in the database's place. Badger must be closed.
func (k *keep) restore() error {
	if k.path == "" {
		return nil
	}
	tried := k.badger + ".tried"
	err := os.RemoveAll(tried)
	if err == nil {
		err = os.Rename(k.badger, tried)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.Rename(k.path, k.badger)
	}
	if err == nil {
		err = errors.Join(syncDir(filepath.Dir(k.badger)), os.RemoveAll(tried))
	}
	if err != nil {
		return fmt.Errorf("put back %s, the database before it was opened: %w", k.path, err)
	}
	k.path = ""
	return nil
}
