package auditstore

import (
	"bufio"
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
const tailBytes = 8 << 10

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
	end, err := tailOf(file, info.Size())
	if err != nil {
		return "", err
	}
	last := ""
	err = eachNote(strings.NewReader(end), func(piece string) error {
		if isWhole(piece) {
			last = piece
		}
		return nil
	})
	return last, err
}

// tailOf reads the end of a file.
func tailOf(file *os.File, size int64) (string, error) {
	b := make([]byte, min(size, tailBytes))
	if _, err := file.ReadAt(b, size-int64(len(b))); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the last checkpoint: %w", err)
	}
	return string(b), nil
}

// Put appends a checkpoint and syncs the file.
func (f FileSink) Put(note string) error { return f.put(note, true) }

func (f FileSink) put(note string, sync bool) (err error) {
	flag := os.O_RDWR | os.O_APPEND | os.O_CREATE
	if info, err := os.Stat(string(f)); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
		flag = os.O_WRONLY // fails if nobody reads
	}
	file, err := os.OpenFile(string(f), flag|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("keep a checkpoint: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	text := note + "\n"
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("keep a checkpoint: %w", err)
	}
	if info.Mode().IsRegular() {
		end, err := tailOf(file, info.Size())
		if err != nil {
			return err
		}
		text = separator(end) + text
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

// eachNote calls fn with every piece of text that ends in signatures, and with
// what stands behind the last one. What a crash has cut off, and [FileSink.Put]
// has marked, is left out.
func eachNote(r io.Reader, fn func(piece string) error) error {
	lines := bufio.NewReader(r)
	var piece strings.Builder
	signed := false
	for {
		line, err := lines.ReadString('\n')
		sig := strings.HasPrefix(line, signature)
		if signed && !sig {
			if err := fn(piece.String()); err != nil {
				return err
			}
			piece.Reset()
		}
		switch {
		case line == cutOff:
			piece.Reset()
		case line == "\n" && piece.Len() == 0: // between two
		default:
			piece.WriteString(line)
		}
		if piece.Len() > maxNote {
			return fmt.Errorf("a checkpoint has more than %d bytes", maxNote)
		}
		signed = sig
		if errors.Is(err, io.EOF) {
			if piece.Len() > 0 {
				return fn(piece.String())
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

const (
	signature = "— "                     // starts the lines behind a note's text
	cutOff    = "(cut off by a crash)\n" // stands behind what is no note
	maxNote   = 4 << 10                  // bytes; more than any checkpoint has
)

// isWhole reports whether a piece can be a note.
func isWhole(piece string) bool {
	text, _, ok := strings.Cut(piece, "\n\n"+signature)
	return ok && strings.HasSuffix(piece, "\n") && !strings.Contains(text, "\n\n")
}

// separator is what must come between the end of a file and the next note.
func separator(end string) string {
	if end == "" || strings.HasSuffix(end, "\n\n") && strings.HasPrefix(lastLine(strings.TrimSuffix(end, "\n")), signature) {
		return ""
	}
	if strings.HasSuffix(end, "\n") && strings.HasPrefix(lastLine(end), signature) {
		return "\n"
	}
	return "\n" + cutOff + "\n"
}

// lastLine is the last line of a text that ends in a newline.
func lastLine(text string) string {
	text = strings.TrimSuffix(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}
