package sandbox

import (
	"errors"
	"fmt"

	"github.com/hsagent/hsagentd/wire"
)

// access is what one token opens. The old and the new token of a rotation
// belong to one app and so share its burst window.
type access struct {
	portal *portal
	token  wire.Token
	window *window
}

var (
	// ErrNoPortal means that the sandbox has no portal of that ID.
	ErrNoPortal = errors.New("no such portal in the sandbox")

	// ErrTokenTaken means that the token already opens a portal.
	ErrTokenTaken = errors.New("the token already opens a portal")
)

func (s *Server) lookup(token string) *access {
	if token == "" {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tokens[token]
}

// AddPortal adds a portal with its data and, unless it is zero, its token.
// It refuses an ID or a token that is already in use and an unknown time zone.
func (s *Server) AddPortal(cfg Portal) error {
	p, err := newPortal(cfg, s.now())
	if err != nil {
		return fmt.Errorf("adding portal %d: %w", cfg.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.portals[cfg.ID] != nil {
		return fmt.Errorf("adding portal %d: the sandbox already has it", cfg.ID)
	}
	if !cfg.Token.IsZero() {
		if err := s.addLocked(p, cfg.Token, newWindow(p.burst, burstInterval)); err != nil {
			return fmt.Errorf("adding portal %d: %w", cfg.ID, err)
		}
		p.current = cfg.Token
	}
	s.portals[cfg.ID] = p
	return nil
}

// AddToken adds a further token to a portal, as if another app had been made
// there: it has a burst limit of its own and shares the daily limit.
func (s *Server) AddToken(portalID int64, token wire.Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.portals[portalID]
	if p == nil {
		return fmt.Errorf("adding a token to portal %d: %w", portalID, ErrNoPortal)
	}
	if err := s.addLocked(p, token, newWindow(p.burst, burstInterval)); err != nil {
		return fmt.Errorf("adding a token to portal %d: %w", portalID, err)
	}
	if p.current.IsZero() {
		p.current = token
	}
	return nil
}

// RevokeToken makes a token invalid at once, as when its app is deleted or it
// was found in public.
func (s *Server) RevokeToken(token wire.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, token.Reveal())
}

// Rotate makes next the portal's active token. The one before stays valid
// until [Server.ExpireOld], as in HubSpot's "rotate and expire later".
func (s *Server) Rotate(portalID int64, next wire.Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.portals[portalID]
	if p == nil {
		return fmt.Errorf("rotating the token of portal %d: %w", portalID, ErrNoPortal)
	}
	w := newWindow(p.burst, burstInterval)
	if a := s.tokens[p.current.Reveal()]; a != nil {
		w = a.window
	}
	if err := s.addLocked(p, next, w); err != nil {
		return fmt.Errorf("rotating the token of portal %d: %w", portalID, err)
	}
	// Rotating twice ends the grace of the first token: HubSpot keeps one.
	delete(s.tokens, p.old.Reveal())
	p.old, p.current = p.current, next
	return nil
}

// ExpireOld ends a rotation: the token before the active one dies.
func (s *Server) ExpireOld(portalID int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.portals[portalID]; p != nil {
		delete(s.tokens, p.old.Reveal())
		p.old = wire.Token{}
	}
}

// CancelRotation undoes a rotation as HubSpot's "Cancel rotation" does: the
// new token dies, the old one is active again.
func (s *Server) CancelRotation(portalID int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.portals[portalID]
	if p == nil || p.old.IsZero() {
		return
	}
	delete(s.tokens, p.current.Reveal())
	p.current, p.old = p.old, wire.Token{}
}

// ActiveToken returns the portal's active token, or the zero Token.
func (s *Server) ActiveToken(portalID int64) wire.Token {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p := s.portals[portalID]; p != nil {
		return p.current
	}
	return wire.Token{}
}

func (s *Server) addLocked(p *portal, token wire.Token, w *window) error {
	if err := token.Check(); err != nil {
		return err
	}
	if s.tokens[token.Reveal()] != nil {
		return ErrTokenTaken
	}
	s.tokens[token.Reveal()] = &access{portal: p, token: token, window: w}
	return nil
}

func (s *Server) portal(id int64) *portal {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.portals[id]
}
