package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A target is where requests go and what they look like.
type target struct {
	dial    func() (net.Conn, error)
	request []byte
}

// viaSocket is a target behind a Unix socket.
func viaSocket(path, uri string) target {
	return target{
		dial:    func() (net.Conn, error) { return net.Dial("unix", path) },
		request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: hsagent\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", uri),
	}
}

// viaTLS is the upstream itself, with the token.
func viaTLS(addr string, roots *x509.CertPool, token, uri string) target {
	cfg := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	return target{
		dial:    func() (net.Conn, error) { return tls.Dial("tcp", addr, cfg) },
		request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\nAuthorization: Bearer %s\r\n\r\n", uri, addr, token),
	}
}

// A measure is what one load brought.
type measure struct {
	RPS   float64 `json:"rps"`
	P50   float64 `json:"p50us"`
	P99   float64 `json:"p99us"`
	CPU   float64 `json:"cpuUsPerRequest"` // user and system time of the peer's processes
	Good  int     `json:"good"`
	Bad   int     `json:"bad"`
	Error string  `json:"error,omitempty"` // the first
}

// load has conns connections make requests one after another for d. Only an
// answer of 200 with the upstream's whole body is a good one.
func load(t target, conns int, d time.Duration, want []byte) measure {
	warm := make([]*requester, 0, conns)
	var m measure
	for range conns {
		r, err := connect(t, want)
		if err == nil {
			err = r.once() // so that connections and handshakes are not measured
		}
		if err != nil {
			m.Bad, m.Error = m.Bad+1, err.Error()
			continue
		}
		defer r.conn.Close()
		warm = append(warm, r)
	}
	took := make([][]time.Duration, len(warm))
	errs := make([]error, len(warm))
	var wg sync.WaitGroup
	began := time.Now()
	for i, r := range warm {
		wg.Go(func() {
			took[i] = make([]time.Duration, 0, 1<<12)
			for last := began; last.Sub(began) < d; {
				if errs[i] = r.once(); errs[i] != nil {
					return
				}
				now := time.Now()
				took[i] = append(took[i], now.Sub(last))
				last = now
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(began)
	all := slices.Concat(took...)
	slices.Sort(all)
	for _, err := range errs {
		if err != nil {
			m.Bad, m.Error = m.Bad+1, err.Error()
		}
	}
	m.Good = len(all)
	m.RPS = float64(len(all)) / elapsed.Seconds()
	m.P50, m.P99 = micros(quantile(all, 0.50)), micros(quantile(all, 0.99))
	return m
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// A requester makes requests on one connection.
type requester struct {
	conn net.Conn
	br   *bufio.Reader
	req  []byte
	want []byte
	got  []byte
}

func connect(t target, want []byte) (*requester, error) {
	c, err := t.dial()
	if err != nil {
		return nil, err
	}
	return &requester{conn: c, br: bufio.NewReaderSize(c, 16<<10), req: t.request, want: want, got: make([]byte, len(want))}, nil
}

var errLength = errors.New("the answer has another length than the upstream's")

// once makes one request and reads its whole answer.
func (r *requester) once() error {
	if _, err := r.conn.Write(r.req); err != nil {
		return err
	}
	status, err := r.br.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answered %s", bytes.TrimSpace(status))
	}
	length := -1
	for {
		line, err := r.br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if len(line) > 15 && line[14] == ':' && strings.EqualFold(string(line[:14]), "content-length") {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[15:]))); err != nil {
				return err
			}
		}
	}
	if length != len(r.want) {
		return errLength
	}
	if _, err := io.ReadFull(r.br, r.got); err != nil {
		return err
	}
	if !bytes.Equal(r.got, r.want) {
		return errors.New("the answer has another body than the upstream's")
	}
	return nil
}
