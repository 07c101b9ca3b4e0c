package credstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
)

// MaxFile is the largest store file in bytes that is read. The plaintext of an
// age file is never longer than the file.
const MaxFile = 16 << 20

// A File is the store's file. It is safe for concurrent use, and several
// processes may use the same file.
type File struct {
	path string
	id   *Identity

	turn chan struct{} // holds the one Update of this process that may try the lock

	mu     sync.Mutex
	last   signature // of what was read last
	loaded loaded

	hooks hooks
}

// loaded is what Load or Update returned last: what of it stands in the file
// unchanged is not read again.
type loaded struct {
	store *Store               // nil: nothing
	plain sum                  // of the plaintext
	known map[string]*standing // by slug
}

// hooks are what the package's tests replace.
type hooks struct {
	debounce, poll time.Duration
	watchErrors    chan error // errors of a watcher, as if they came from it
	noEvents       bool       // as where inotify is not to be had
	beforeRename   func()
}

// Open returns the store at path, which id decrypts. It reads nothing yet.
func Open(path string, id *Identity) *File {
	return &File{
		path:  path,
		id:    id,
		turn:  make(chan struct{}, 1),
		hooks: hooks{debounce: 100 * time.Millisecond, poll: 5 * time.Second, beforeRename: func() {}},
	}
}

// Path returns the path that the file was opened with.
func (f *File) Path() string { return f.path }

// Create writes an empty store of version 1 to path, and beside it the list of
// extraRecipients ("age1…") if there are any, who will be able to read every
// later version too. It does not overwrite: then the error wraps
// [fs.ErrExist].
func Create(ctx context.Context, path string, id *Identity, extraRecipients []string) error {
	to, err := id.with(extraRecipients)
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, path)
	if err != nil {
		return err
	}
	defer unlock()
	e := &Edit{doc: &document{store: &Store{}}}
	defer e.doc.erase()
	plain, err := e.bytes(time.Now())
	if err != nil {
		return err
	}
	b, err := encrypt(plain, to...)
	if err != nil {
		return fmt.Errorf("encrypt the store: %w", err)
	}
	// The list first: a store without it would refuse to be written.
	if len(extraRecipients) > 0 {
		list := "# Who else can read the store, one age recipient a line. Read at every write of it.\n" +
			strings.Join(extraRecipients, "\n") + "\n"
		if err := writeNew(recipientsPath(path), []byte(list)); err != nil {
			return fmt.Errorf("write the recipients: %w", err)
		}
	}
	if err := writeNew(path, b); err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	return nil
}

// Load reads, decrypts and checks the store. It takes no lock: a half-written
// file fails to decrypt, whole. Where the file says what it said before, the
// store is the same one.
func (f *File) Load(ctx context.Context) (*Store, error) {
	_, _, plain, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	before, now := f.before(), sumOf(plain)
	if before.store != nil && before.plain == now {
		clear(plain)
		return before.store, nil
	}
	d, err := f.parse(plain)
	if err != nil {
		return nil, err
	}
	f.keep(d, now)
	d.erase()
	return d.store, nil
}

func (f *File) before() loaded {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loaded
}

// keep notes what a document is that nobody edits any more.
func (f *File) keep(d *document, plain sum) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loaded = loaded{d.store, plain, d.fleet.bySlug}
}

// parse takes the plaintext apart, which it erases where that fails.
func (f *File) parse(plain []byte) (*document, error) {
	d, err := parseDocument(plain, f.before().known)
	if err != nil {
		clear(plain)
		return nil, fmt.Errorf("read the store: %s: %w", f.path, err)
	}
	return d, nil
}

// read returns the file's bytes, its state and its plaintext, which the caller
// erases.
func (f *File) read(ctx context.Context) (b []byte, sig signature, plain []byte, err error) {
	fail := func(err error) ([]byte, signature, []byte, error) {
		return nil, signature{}, nil, fmt.Errorf("read the store: %w", err)
	}
	b, info, err := readStable(ctx, f.path, MaxFile)
	if err != nil {
		return fail(err)
	}
	sig = signatureOf(info)
	f.mu.Lock()
	f.last = sig
	f.mu.Unlock()

	plain, err = decrypt(b, f.id.ids...)
	if err != nil {
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) {
			return fail(fmt.Errorf("%s is not encrypted to this agent's identity (%s)", f.path, f.id.Recipient()))
		}
		return fail(fmt.Errorf("%s cannot be decrypted: no age file, damaged, or written by half: %w", f.path, err))
	}
	return b, sig, plain, nil
}

// Update changes the store: under the lock it reads the file afresh, lets fn
// edit it, and replaces it in one step with the next version, which it
// returns. If fn changed nothing, nothing is written, and the store returned
// is the one that was read. If fn returns an error, that error comes back and
// nothing is written.
//
// fn may run again, on newer contents, where a writer that does not heed the
// lock came in between; it must not call Update or Load.
func (f *File) Update(ctx context.Context, fn func(*Edit) error) (*Store, error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to write the store: %w", ctx.Err())
	}
	unlock, err := lock(ctx, f.path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	const attempts = 5
	for range attempts {
		s, err := f.update(ctx, fn)
		if !errors.Is(err, errUnstable) {
			return s, err
		}
	}
	return nil, fmt.Errorf("write the store: %s: another program writes it without taking the lock %s.lock", f.path, f.path)
}

func (f *File) update(ctx context.Context, fn func(*Edit) error) (*Store, error) {
	before, sig, old, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	d, err := f.parse(old)
	if err != nil {
		return nil, err
	}
	defer d.erase()
	e := &Edit{doc: d}
	if err := fn(e); err != nil {
		return nil, err
	}
	if !e.changed {
		return d.store, nil
	}
	to, err := f.recipients(ctx, before)
	if err != nil {
		return nil, fmt.Errorf("write the store: %w", err)
	}
	plain, err := e.bytes(time.Now())
	if err != nil {
		return nil, fmt.Errorf("write the store: %w", err)
	}
	next, err := parseDocument(plain, d.fleet.bySlug)
	if err != nil {
		return nil, fmt.Errorf("write the store: %w", err)
	}
	b, err := encrypt(plain, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt the store: %w", err)
	}
	if len(b) > MaxFile {
		return nil, fmt.Errorf("write the store: it would have %d bytes, and more than %d are not read", len(b), MaxFile)
	}
	// The file behind a symbolic link is replaced, not the link.
	target, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return nil, fmt.Errorf("write the store: %w", err)
	}
	sweep(target, time.Now())
	err = replace(target, b, func() error {
		f.hooks.beforeRename()
		if signatureAt(f.path) != sig {
			return errUnstable
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("write the store: %w", err)
	}
	f.keep(next, sumOf(plain))
	return next.store, nil
}
