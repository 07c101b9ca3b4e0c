package chain

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A Checkpoint states how large a log is and what its root is. Signed, it is a
// note as in golang.org/x/mod/sumdb/note, with the text of C2SP's
// tlog-checkpoint: origin, size and root, a line each.
type Checkpoint struct {
	Origin string // names the log; stable for as long as it lives
	Size   uint64
	Root   Hash
}

// errCheckpoint is about text that is no checkpoint.
var errCheckpoint = errors.New("not a checkpoint")

// Text is what is signed.
func (c *Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// Sign returns the checkpoint as a note that all keys have signed.
func (c *Checkpoint) Sign(keys Keys) (string, error) {
	b, err := note.Sign(&note.Note{Text: c.Text()}, keys.signers()...)
	if err != nil {
		return "", fmt.Errorf("sign a checkpoint: %w", err)
	}
	return string(b), nil
}

// ParseCheckpoint reads a signed note without a look at its signatures.
func ParseCheckpoint(msg string) (*Checkpoint, error) {
	text, sigs, ok := strings.Cut(msg, "\n\n")
	if !ok || !strings.HasPrefix(sigs, "— ") || !strings.HasSuffix(sigs, "\n") {
		return nil, fmt.Errorf("%w: it has no signature", errCheckpoint)
	}
	return parseText(text + "\n")
}

// OpenCheckpoint reads a signed note that at least one of the known keys must
// have signed, under the name of the log that it is of. The others' signatures
// are not looked at.
func OpenCheckpoint(msg string, known Verifiers) (*Checkpoint, error) {
	n, err := openNote(msg, known)
	if err != nil {
		return nil, fmt.Errorf("the checkpoint: %w", err)
	}
	c, err := parseText(n.Text)
	if err != nil {
		return nil, err
	}
	if err := signedFor(n, c.Origin); err != nil {
		return nil, fmt.Errorf("the checkpoint: %w", err)
	}
	return c, nil
}

// openNote reads a signed note that one of the known keys must have signed.
func openNote(msg string, known Verifiers) (*note.Note, error) {
	n, err := note.Open([]byte(msg), known.list())
	var unverified *note.UnverifiedNoteError
	switch {
	case errors.As(err, &unverified):
		return nil, errors.New("it is not signed by a key that is known here")
	case err != nil:
		return nil, fmt.Errorf("its signature: %w", err)
	}
	return n, nil
}

// signedFor returns an error unless one of the keys that signed the note is of
// the log called origin: a key speaks for its own log alone.
func signedFor(n *note.Note, origin string) error {
	if !slices.ContainsFunc(n.Sigs, func(s note.Signature) bool { return s.Name == origin }) {
		return fmt.Errorf("it is about the log %.80q, and signed by %.80q", origin, n.Sigs[0].Name)
	}
	return nil
}

// parseText reads the three lines. There is one way to write them: further
// lines, which other logs may have, are refused.
func parseText(text string) (*Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" || lines[0] == "" {
		return nil, fmt.Errorf("%w: want origin, size and root, a line each", errCheckpoint)
	}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil || strconv.FormatUint(size, 10) != lines[1] {
		return nil, fmt.Errorf("%w: its size is %.40q", errCheckpoint, lines[1])
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil || root.String() != lines[2] {
		return nil, fmt.Errorf("%w: its root is %.60q", errCheckpoint, lines[2])
	}
	return &Checkpoint{Origin: lines[0], Size: size, Root: root}, nil
}
