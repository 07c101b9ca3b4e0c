package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hsagent/hsagentd/wire"
)

// An output is where a call's body goes: stdout, or a file that appears whole
// at commit or not at all.
type output struct {
	io.Writer
	file *os.File // nil for stdout
	path string   // what commit renames file to; "" for a device
}

// openOutput opens FILE before the call is made: an answer that has nowhere to
// go is found out while it costs nothing. "" and "-" are stdout.
func openOutput(e *env, path string) (*output, error) {
	if path == "" || path == "-" {
		return &output{Writer: e.stdout}, nil
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // replace what a link points to, not the link
	}
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		if st.IsDir() {
			return nil, usagef("-O %s: it is a directory", wire.Quote(path))
		}
		// A device or a pipe is written to: it must never be replaced.
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("-O: %w", err)
		}
		return &output{Writer: f, file: f}, nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if failed := (*os.PathError)(nil); errors.As(err, &failed) {
		err = failed.Err // the temporary file's name says nothing to anybody
	}
	if err != nil {
		return nil, fmt.Errorf("-O %s: make a file there: %w", wire.Quote(path), err)
	}
	return &output{Writer: f, file: f, path: path}, nil
}

// commit makes the file appear.
func (o *output) commit() error {
	if o.file == nil {
		return nil
	}
	if o.path != "" {
		if err := o.file.Sync(); err != nil {
			return fmt.Errorf("-O: %w", err)
		}
		if err := os.Rename(o.file.Name(), o.path); err != nil {
			return fmt.Errorf("-O: %w", err)
		}
	}
	err := o.file.Close()
	o.file = nil
	return err
}

// discard takes the file away if it was not committed.
func (o *output) discard() {
	if o.file == nil {
		return
	}
	_ = o.file.Close() // its content is not wanted
	if o.path != "" {
		_ = os.Remove(o.file.Name()) // left behind, it would be a hidden file and no answer
	}
}
