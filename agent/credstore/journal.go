package credstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// A Journal keeps how far each slug's latest rotation has come, beside the
// store in <store>.rotations. It holds fingerprints and times, never a token:
// which token serves is the store's to say, and what the journal says is
// settled by it.
type Journal struct {
	path string
	mu   sync.Mutex // held over an update
}

// A Rotation is what the journal says of one slug's change of token. Times are
// zero for what has not happened.
type Rotation struct {
	State          wire.RotationState `json:"state"`
	PortalID       int64              `json:"portalId"`
	OldFingerprint string             `json:"oldFingerprint"`
	NewFingerprint string             `json:"newFingerprint"`
	OldRotatedAt   wire.Time          `json:"oldRotatedAt,omitzero"` // lastRotatedAt of the old token
	StartedAt      wire.Time          `json:"startedAt"`             // when the new token was verified
	GraceEndsAt    wire.Time          `json:"graceEndsAt"`
	SwitchedAt     wire.Time          `json:"switchedAt,omitzero"`
	CRMReadAt      wire.Time          `json:"crmReadAt,omitzero"`
	SeenAt         wire.Time          `json:"seenAt,omitzero"`
	RefusedAt      wire.Time          `json:"refusedAt,omitzero"`  // HubSpot refused the old token
	FellBackAt     wire.Time          `json:"fellBackAt,omitzero"` // the old token was taken again
	Note           string             `json:"note,omitempty"`      // what of the new token could not be checked

	// Confirmed are the consumers that have the new token, and since when.
	Confirmed map[string]wire.Time `json:"confirmed,omitempty"`
}

// Rotations is all that the journal holds, by slug.
type Rotations struct {
	// Staged are those whose store write may or may not have happened.
	Staged map[string]Rotation `json:"staged"`
	// Latest are the latest of those whose store write has.
	Latest map[string]Rotation `json:"rotations"`
}

// Switch moves a slug's staged rotation to the token of that fingerprint among
// those that have happened, and reports whether there was one.
func (r *Rotations) Switch(slug, fingerprint string, at time.Time) bool {
	s, ok := r.Staged[slug]
	if !ok || s.NewFingerprint != fingerprint {
		return false
	}
	s.State, s.SwitchedAt = wire.RotationSwitched, wire.At(at)
	r.Latest[slug] = s
	delete(r.Staged, slug)
	return true
}

// OpenJournal returns the journal of the store at path. It reads nothing yet.
func OpenJournal(path string) *Journal { return &Journal{path: path + ".rotations"} }

// Read returns what the journal holds; nothing where there is none yet.
func (j *Journal) Read(ctx context.Context) (*Rotations, error) {
	r, _, err := j.read(ctx)
	return r, err
}

func (j *Journal) read(ctx context.Context) (*Rotations, []byte, error) {
	r := new(Rotations)
	b, _, err := readStable(ctx, j.path, MaxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, nil, fmt.Errorf("read the journal of rotations: %w", err)
	default:
		if err := json.Unmarshal(b, r); err != nil {
			return nil, nil, fmt.Errorf("read the journal of rotations: %s is no journal (%w): move it away. "+
				"The store alone says which tokens serve: only checklists are lost", j.path, err)
		}
	}
	if r.Staged == nil {
		r.Staged = make(map[string]Rotation)
	}
	if r.Latest == nil {
		r.Latest = make(map[string]Rotation)
	}
	return r, b, nil
}

// Update lets fn change what the journal holds and replaces it in one durable
// step, with mode 0600. If fn changed nothing, nothing is written.
func (j *Journal) Update(ctx context.Context, fn func(*Rotations)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, before, err := j.read(ctx)
	if err != nil {
		return err
	}
	fn(r)
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the journal of rotations: %w", err)
	}
	if b = append(b, '\n'); bytes.Equal(b, before) || before == nil && len(r.Staged)+len(r.Latest) == 0 {
		return nil
	}
	sweep(j.path, time.Now())
	if err := replace(j.path, b, nil); err != nil {
		return fmt.Errorf("write the journal of rotations: %w", err)
	}
	return nil
}
