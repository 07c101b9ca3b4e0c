package agent

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/hsagent/hsagentd/wire"
)

// maxConsumerText bounds a consumer's name and how-to.
const maxConsumerText = 1024

// A Consumer is a holder of tokens outside the agent: CI secrets, a staging
// server, a webhook receiver. After a rotation somebody has to give it the new
// token, and say so.
type Consumer struct {
	Name    string
	Portals []string // patterns of slugs, as [path.Match] takes them; none: every portal
	HowTo   string   // how to give it the new token, on one line
	Check   string   // a command that shows whether it has it, to be run by hand
}

// check returns why the consumer cannot be used, or nil.
func (c *Consumer) check() error {
	if c.Name == "" {
		return errors.New("a consumer has no name")
	}
	for _, s := range []string{c.Name, c.HowTo, c.Check} {
		switch {
		case len(s) > maxConsumerText:
			return fmt.Errorf("consumer %s has a text of more than %d bytes", wire.Quote(c.Name), maxConsumerText)
		case wire.Printable(s) != s:
			return fmt.Errorf("consumer %s: a text has a line break or another byte that cannot be shown", wire.Quote(c.Name))
		case wire.MaskTokens(s) != s:
			return fmt.Errorf("consumer %s: a token stands in its text, where everybody will see it", wire.Quote(c.Name))
		}
	}
	for _, p := range c.Portals {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return fmt.Errorf("consumer %s: %s is no pattern of slugs: write a slug, or \"acme-*\"", wire.Quote(c.Name), wire.Quote(p))
		}
	}
	return nil
}

// holds reports whether the consumer has the token of slug.
func (c *Consumer) holds(slug string) bool {
	return len(c.Portals) == 0 || slices.ContainsFunc(c.Portals, func(p string) bool {
		ok, err := path.Match(p, slug)
		return ok && err == nil
	})
}

// CheckConsumers returns the first thing that is wrong with a config's
// consumers, or nil.
func CheckConsumers(all []Consumer) error {
	seen := map[string]bool{}
	for i := range all {
		if err := all[i].check(); err != nil {
			return err
		}
		if seen[all[i].Name] {
			return fmt.Errorf("consumer %s stands twice", wire.Quote(all[i].Name))
		}
		seen[all[i].Name] = true
	}
	return nil
}
