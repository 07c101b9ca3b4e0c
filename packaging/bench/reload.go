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
			if err := e.Put(credstore.Entry{Slug: s, Token: wire.NewToken(upstream.Token(int64(2000 + k))), PortalID: int64(2000 + k)}); err != nil {
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
	var reloads, decryptions []time.Duration
	for k := range b.runs/2 + 3 {
		began := time.Now()
		if err := c.Do(ctx, http.MethodPost, "/v1/reload", nil, nil, nil); err != nil {
			return err
		}
		reloaded := time.Since(began)
		began = time.Now()
		if err := decrypt(path, key); err != nil {
			return err
		}
		if k > 2 { // the first ones warm up, and the agent sees the new file by itself
			reloads, decryptions = append(reloads, reloaded), append(decryptions, time.Since(began))
		}
	}
	ratio := paired(reloads, decryptions)
	b.rep.times(fmt.Sprintf("reload of %d portals", n), reloads)
	b.rep.times("its decryption alone", decryptions)
	want := 5.0
	if n < 10_000 {
		want = none()
	}
	b.rep.judge("T13", fmt.Sprintf("reload of %d portals / its decryption alone", n), ratio, false, want)
	return nil
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
