package auditstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Sink keeps copies of checkpoints somewhere else than the log.
type Sink interface {
	// Last returns the last checkpoint that it was given, or "" if there was
	// none or it cannot tell.
	Last() (string, error)
	// Put adds a checkpoint.
	Put(note string) error
	// String names it in messages.
	String() string
}

// A FileSink is the path of a file that checkpoints are appended to, with an
// empty line after each. A FIFO is written to if somebody reads it.
type FileSink string

// String is the path.
func (f FileSink) String() string { return string(f) }

// tailBytes are what is read of a file of checkpoints to find the last one.
const tailBytes = 64 << 10

// Last returns the last whole checkpoint in the file. One that a crash has cut
// off is not whole.
func (f FileSink) Last() (_ string, err error) {
	file, err := os.OpenFile(string(f), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the last checkpoint: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return "", err
	}
	b := make([]byte, min(info.Size(), tailBytes))
	if _, err := file.ReadAt(b, info.Size()-int64(len(b))); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the last checkpoint: %w", err)
	}
	last := ""
	for note := range notes(string(b)) {
		last = note
	}
	return last, nil
}

// Put appends a checkpoint and syncs the file.
func (f FileSink) Put(note string) error { return f.put(note, true) }

func (f FileSink) put(note string, sync bool) (err error) {
	file, err := os.OpenFile(string(f), os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("keep a checkpoint: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	text := note + "\n"
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("keep a checkpoint: %w", err)
	}
	if n := info.Size(); info.Mode().IsRegular() && n > 0 {
		end := make([]byte, 2)
		if _, err := file.ReadAt(end[:min(n, 2)], max(0, n-2)); err != nil {
			return fmt.Errorf("keep a checkpoint: %w", err)
		}
		if string(end) != "\n\n" { // the one before was cut off
			text = "\n\n" + text
		}
	}
	if _, err := file.WriteString(text); err != nil {
		return fmt.Errorf("keep a checkpoint: %w", err)
	}
	if sync && info.Mode().IsRegular() {
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			return fmt.Errorf("keep a checkpoint: sync %s: %w", f, err)
		}
	}
	return nil
}

// usable returns an error if the file cannot be made or written.
func (f FileSink) usable() error {
	file, err := os.OpenFile(string(f), os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("open the checkpoint sink: %w", err)
	}
	return file.Close()
}

// notes cuts a text into signed notes. What is none is left out.
func notes(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		rest := text
		for rest != "" {
			// A note is text, an empty line, and signatures up to the next one.
			body, after, ok := strings.Cut(rest, "\n\n— ")
			if !ok {
				return
			}
			if i := strings.LastIndex(body, "\n\n"); i >= 0 {
				body = body[i+2:] // something was cut off before it
			}
			sigs, next, ok := strings.Cut("— "+after, "\n\n")
			if !ok {
				// The end of the text: whole if its last line is.
				end := strings.LastIndexByte(sigs, '\n')
				if end >= 0 && strings.HasPrefix(sigs, "— ") {
					yield(strings.TrimLeft(body, "\n") + "\n\n" + sigs[:end+1])
				}
				return
			}
			if !yield(strings.TrimLeft(body, "\n") + "\n\n" + sigs + "\n") {
				return
			}
			rest = next
		}
	}
}
