package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"github.com/hsagent/hsagentd/agent/credstore"
	"github.com/hsagent/hsagentd/packaging/bench/upstream"
	"github.com/hsagent/hsagentd/wire"
)

// reloads times POST /v1/reload beside the decryption of the same store.
func (b *cliBench) reloads(ctx context.Context) error {
	for _, n := range []int{100, 10_000} {
		i, p, err := b.fresh(ctx, fmt.Sprintf("reload-%d", n))
		if err != nil {
			return err
		}
		err = b.reload(ctx, i, n)
		p.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *cliBench) reload(ctx context.Context, i *installation, n int) error {
	path, key := filepath.Join(i.dir, "store.age"), filepath.Join(i.dir, "identity.txt")
	id, err := credstore.LoadIdentity(key, nil)
	if err != nil {
		return err
	}
	_, err = credstore.Open(path, id).Update(ctx, func(e *credstore.Edit) error {
		for k := range n {
			s, err := wire.ParseSlug(fmt.Sprintf("client-%d", k))
			if err != nil {
				return err
			}
			if err := e.Put(credstore.Entry{Slug: s, Token: wire.NewToken(upstream.Token(int64(upstream.Crowd + k))), PortalID: int64(upstream.Crowd + k)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	c := wire.NewClient(i.socket)
	defer c.Close()
	if err := c.Do(ctx, http.MethodPost, "/v1/reload", nil, nil, nil); err != nil {
		return err
	}
	if err := verified(ctx, c, n); err != nil {
		return err
	}
	var same, changed, decryptions []time.Duration
	timed := func(f func() error) (time.Duration, error) {
		began := time.Now()
		err := f()
		return time.Since(began), err
	}
	reload := func() error { return c.Do(ctx, http.MethodPost, "/v1/reload", nil, nil, nil) }
	for k := range b.runs/2 + 3 {
		unchanged, err := timed(reload)
		if err != nil {
			return err
		}
		alone, err := timed(func() error { return decrypt(path, key) })
		if err != nil {
			return err
		}
		_, err = credstore.Open(path, id).Update(ctx, func(e *credstore.Edit) error {
			entry := e.Store().Entries[k%n]
			entry.TimeZone = []string{"Europe/Berlin", "US/Eastern"}[k/n%2]
			return e.Put(entry)
		})
		if err != nil {
			return err
		}
		one, err := timed(reload)
		if err != nil {
			return err
		}
		sleep(ctx, 500*time.Millisecond) // the agent sees the new file by itself, and erases what it needs no more
		if k > 2 {                       // the first ones warm up
			same, changed, decryptions = append(same, unchanged), append(changed, one), append(decryptions, alone)
		}
	}
	b.rep.times(fmt.Sprintf("reload of %d portals, of which one changed", n), changed)
	b.rep.times(fmt.Sprintf("reload of %d portals, none changed", n), same)
	b.rep.times("its decryption alone", decryptions)
	want := 5.0
	if n < 10_000 {
		want = none()
	}
	b.rep.judge("T13", fmt.Sprintf("reload of %d portals, one changed / its decryption alone", n), paired(changed, decryptions), false, want)
	b.rep.judge("T13", fmt.Sprintf("reload of %d portals, none changed / its decryption alone", n), paired(same, decryptions), false, want)
	return nil
}

// verified waits until the upstream has named the portals of n tokens: until
// then the agent has more to do than to reload.
func verified(ctx context.Context, c *wire.Client, n int) error {
	for {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if st.Portals[string(wire.StateReady)] >= n {
			return nil
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// decrypt reads and decrypts a store, and does nothing with it.
func decrypt(path, key string) error {
	k, err := os.Open(key)
	if err != nil {
		return err
	}
	defer k.Close()
	ids, err := age.ParseIdentities(k)
	if err != nil {
		return err
	}
	f, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	r, err := age.Decrypt(bytes.NewReader(f), ids...)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}
