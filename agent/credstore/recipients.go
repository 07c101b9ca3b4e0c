package credstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

const maxRecipients = 1 << 20 // bytes of the sidecar

// recipientsPath is the sidecar that lists who else may read the store. An age
// file does not name its recipients, so a writer must know them from elsewhere.
func recipientsPath(store string) string { return store + ".recipients" }

// recipients returns whom a new version of the store is encrypted to: our own
// identity, and those of the sidecar. ciphertext is the version before.
//
// Without a sidecar, a store that was encrypted to more than one recipient is
// refused: to write it to ourselves alone would lock the others out unasked.
func (f *File) recipients(ctx context.Context, ciphertext []byte) ([]age.Recipient, error) {
	path := recipientsPath(f.path)
	b, _, err := readStable(ctx, path, maxRecipients)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if n := countRecipients(ciphertext); n > 1 {
			return nil, fmt.Errorf("the store is encrypted to %d recipients, and %s does not list them: write them there, one a line (only comments for none but this agent)", n, path)
		}
		return f.id.with(nil)
	case err != nil:
		return nil, fmt.Errorf("read the recipients: %w", err)
	}
	var extra []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			extra = append(extra, line)
		}
	}
	to, err := f.id.with(extra)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return to, nil
}

// with returns the identity's own recipient and those that extra spells.
func (id *Identity) with(extra []string) ([]age.Recipient, error) {
	_, pq := id.recipient.(*age.HybridRecipient)
	to := []age.Recipient{id.recipient}
	seen := map[string]bool{id.Recipient(): true}
	for i, s := range extra {
		var r age.Recipient
		var err error
		theirs := strings.HasPrefix(s, "age1pq1")
		switch {
		case strings.HasPrefix(strings.ToUpper(s), "AGE-"):
			return nil, fmt.Errorf("recipient %d is a private key: give its public key, age1…", i+1)
		case theirs:
			r, err = age.ParseHybridRecipient(s)
		default:
			r, err = age.ParseX25519Recipient(s)
		}
		if err != nil {
			return nil, fmt.Errorf("recipient %d is neither age1… nor age1pq1…: SSH keys and plug-ins are not taken", i+1)
		}
		if theirs != pq {
			return nil, fmt.Errorf("recipient %d is %s and the agent's identity %s: the two kinds cannot be mixed, for the store would be only as strong as the weaker", i+1, kindName(theirs), kindName(pq))
		}
		if !seen[s] {
			seen[s] = true
			to = append(to, r)
		}
	}
	return to, nil
}

func kindName(pq bool) string {
	if pq {
		return "post-quantum (age1pq1…)"
	}
	return "classic (age1…)"
}

// countRecipients counts the recipients in an age file's header, less those
// that are there only to keep parsers honest.
func countRecipients(ciphertext []byte) int {
	var src io.Reader = bytes.NewReader(ciphertext)
	if isArmored(ciphertext) {
		src = armor.NewReader(src)
	}
	header, err := age.ExtractHeader(src)
	if err != nil {
		return 0
	}
	n := 0
	for line := range bytes.Lines(header) {
		kind, ok := bytes.CutPrefix(line, []byte("-> "))
		kind, _, _ = bytes.Cut(bytes.TrimSpace(kind), []byte(" "))
		if ok && !bytes.HasSuffix(kind, []byte("-grease")) {
			n++
		}
	}
	return n
}
