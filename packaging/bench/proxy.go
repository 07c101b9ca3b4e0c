package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/packaging/bench/upstream"
)

// serveProxy is what a Go programmer writes in ten lines: a ReverseProxy that
// adds the token, with net/http's default transport or a tuned one.
func serveProxy(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return errors.New("want: bench proxy plain|tuned SOCKET URL CA")
	}
	u, err := url.Parse(args[2])
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(args[3])
	if err != nil {
		return err
	}
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.TLSClientConfig = &tls.Config{RootCAs: pool(pem), MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	rp := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Header.Set("Authorization", "Bearer "+upstream.Token(portal))
		},
		Transport: tr,
	}
	if args[0] == "tuned" {
		tr.MaxIdleConns, tr.MaxIdleConnsPerHost, tr.DisableCompression = 0, 256, true
		rp.BufferPool = new(buffers)
	}
	l, err := net.Listen("unix", args[1])
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: rp, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		_ = srv.Close() // its listener and its idle connections: the bench is over
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// buffers are kept ones of 32 KiB.
type buffers struct{ pool sync.Pool }

// Get returns one.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

// Put takes one back.
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
