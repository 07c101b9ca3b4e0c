package credstore

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// ErrConflict is what [Edit.Put] wraps where another slug has what it puts.
var ErrConflict = errors.New("the token or portal ID stands under another slug")

// An Edit is one change of the store, within [File.Update]. It is not for use
// by several goroutines, nor after the function that got it has returned.
type Edit struct {
	doc     *document
	changed bool
}

// Store returns the store as it was read. Whoever keeps a [Guard] has it admit
// this store before changing it, so that an update does not turn an older
// store into the newest.
func (e *Edit) Store() *Store { return e.doc.store }

// Get returns the entry of slug as edited so far. A rejected entry is none.
func (e *Edit) Get(slug wire.Slug) (Entry, bool) {
	st := e.doc.fleet.bySlug[slug.String()]
	if st == nil {
		return Entry{}, false
	}
	entry, reason := e.doc.fleet.judge(st)
	return entry, reason == ""
}

// Put adds the entry, or makes the one under its slug equal to it; keys of
// that one which this package does not know stay as they are. Warnings is not
// written. The error wraps [ErrConflict] where the token or portal ID stands
// under another slug, rejected ones included; then nothing is changed.
func (e *Edit) Put(n Entry) error {
	if err := n.check(); err != nil {
		return err
	}
	slug := n.Slug.String()
	old, served := e.Get(n.Slug)
	o, err := e.take(slug)
	if err != nil {
		return err
	}
	changed := !served
	put := func(key string, differs, zero bool, v any) {
		switch {
		case err != nil || served && !differs:
		case zero:
			changed = o.remove(key) || changed
		default:
			err, changed = o.set(key, v), true
		}
	}
	if !served || old.Token != n.Token {
		o.setRaw(keyToken, n.Token.AppendJSON(e.doc.room(n.Token.SizeJSON())))
		changed = true
	}
	put(keyPortalID, old.PortalID != n.PortalID, false, n.PortalID)
	put(keyClientSlug, false, false, slug)
	put(keyAddedAt, differ(old.AddedAt, n.AddedAt), n.AddedAt.IsZero(), wire.At(n.AddedAt))
	put(keyRotatedAt, differ(old.LastRotatedAt, n.LastRotatedAt), n.LastRotatedAt.IsZero(), wire.At(n.LastRotatedAt))
	put(keyVerifiedAt, differ(old.VerifiedAt, n.VerifiedAt), n.VerifiedAt.IsZero(), wire.At(n.VerifiedAt))
	if dc := n.Token.Datacenter(); dc != "" {
		n.Datacenter = dc
	}
	put(keyDatacenter, old.Datacenter != n.Datacenter, n.Datacenter == "", n.Datacenter)
	put(keyDataHosting, old.DataHosting != n.DataHosting, n.DataHosting == "", n.DataHosting)
	put(keyKind, old.Kind != n.Kind, n.Kind == "", n.Kind)
	put(keyBaseURL, old.BaseURL != n.BaseURL, n.BaseURL == "", n.BaseURL)
	put(keyTimeZone, old.TimeZone != n.TimeZone, n.TimeZone == "", n.TimeZone)
	put(keyAccountType, old.AccountType != n.AccountType, n.AccountType == "", n.AccountType)
	put(keyScopes, !slices.Equal(old.Scopes, n.Scopes), len(n.Scopes) == 0, n.Scopes)
	switch {
	case err != nil || served && samePrevious(old.Previous, n.Previous):
	case n.Previous == nil:
		changed = o.remove(keyPrevious) || changed
	default:
		o.setRaw(keyPrevious, e.doc.previous(n.Previous))
		changed = true
	}
	if err != nil || !changed {
		return err
	}
	raw := o.appendTo(e.doc.room(o.size()))
	st := parseEntry(slug, raw)
	if st.reason != "" {
		return fmt.Errorf("%s: %s", slug, st.reason)
	}
	if reason := e.doc.fleet.conflict(st); reason != "" {
		return fmt.Errorf("%s: %w: %s", slug, ErrConflict, reason)
	}
	e.doc.portals.setRaw(slug, raw)
	e.doc.fleet.replace(st)
	e.changed = true
	return nil
}

// Remove removes whatever stands under slug, rejected or not, and reports
// whether anything did.
func (e *Edit) Remove(slug wire.Slug) bool {
	if !e.doc.portals.remove(slug.String()) {
		return false
	}
	e.doc.fleet.drop(slug.String())
	e.changed = true
	return true
}

// check tells whether the entry by itself may stand in a store.
func (e *Entry) check() error {
	switch {
	case e.Slug.IsZero():
		return wire.ErrBadSlug
	case e.PortalID <= 0 || e.PortalID > maxInt:
		return fmt.Errorf("%s: the portal ID must be a positive integer below 2^53", e.Slug)
	}
	if err := e.Token.Check(); err != nil {
		return fmt.Errorf("%s: %w", e.Slug, err)
	}
	return nil
}

// take returns a copy of what stands under slug, to be changed.
func (e *Edit) take(slug string) (object, error) {
	raw := e.doc.portals.get(slug)
	if raw == nil || raw[0] != '{' {
		return nil, nil
	}
	o, err := parseObject(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", slug, err)
	}
	if key := o.ambiguous(entryKeys...); key != "" {
		// Nobody can tell what such an entry meant: only unknown keys stay.
		o = slices.DeleteFunc(o, func(m member) bool { return known(m.key) })
	}
	return o, nil
}

// bytes is the plaintext of the edited store, one version up. It is erased with
// the document.
func (e *Edit) bytes(now time.Time) ([]byte, error) {
	if e.doc.store.Version >= maxInt {
		return nil, fmt.Errorf("%w: its version can grow no more", ErrBadStore)
	}
	err := errors.Join(
		e.doc.top.set(keyVersion, e.doc.store.Version+1),
		e.doc.top.set(keyLastUpdated, wire.At(now)),
	)
	if err != nil {
		return nil, err
	}
	d := e.doc
	d.top.setRaw(keyPortals, d.portals.appendTo(d.room(d.portals.size())))
	return d.top.appendTo(d.room(d.top.size())), nil
}

// differ compares times as the store keeps them: to the millisecond.
func differ(a, b time.Time) bool { return !wire.At(a).Equal(wire.At(b).Time) }

func samePrevious(a, b *Previous) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Token == b.Token && !differ(a.Until, b.Until)
}

// previous writes the token before the last rotation.
func (d *document) previous(p *Previous) []byte {
	var o object
	o.setRaw(keyToken, p.Token.AppendJSON(d.room(p.Token.SizeJSON())))
	if !p.Until.IsZero() {
		o.setRaw(keyUntil, appendKey(nil, wire.At(p.Until).String()))
	}
	return o.appendTo(d.room(o.size()))
}

// known reports whether key means something to this package.
func known(key string) bool { return slices.Contains(entryKeys, key) }
