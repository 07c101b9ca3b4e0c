package hubspot_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/wire"
)

// Whatever HubSpot and the callers do to the connections that they share — cut
// them, answer before the request has ended, leave bytes over, hang up in the
// middle — a call gets its own answer or none, and sends its own body or none.
func TestAnswersAreNeverMixedUp(t *testing.T) {
	const workers, each = 16, 25
	for _, secure := range []bool{false, true} {
		s := serveRaw(t, secure, func(c *rawConn) {
			for {
				early := rand.IntN(8) == 0
				req, body, err := requestOrHead(c, early)
				if err != nil {
					return
				}
				id := req.Header.Get("X-Id")
				if !early && body != strings.Repeat(id+".", len(body)/(len(id)+1)) {
					t.Errorf("the body of %s is another's", id)
				}
				answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Id: %s\r\nContent-Length: %d\r\n\r\n%s", id, len(id), id)
				switch rand.IntN(12) {
				case 0:
					answer = fmt.Sprintf("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-Id: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", id, len(id), id)
				case 1: // left over
					answer += "HTTP/1.1 200 OK\r\nX-Id: nobody\r\nContent-Length: 6\r\n\r\nnobody"
				case 2: // cut
					_, _ = io.WriteString(c, answer[:rand.IntN(len(answer))])
					return
				case 3:
					return
				case 4:
					time.Sleep(rand.N(3 * time.Millisecond))
				}
				if _, err := io.WriteString(c, answer); err != nil || early {
					return
				}
			}
		})
		p := s.pool(t, nil)
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := range each {
					id := strconv.Itoa(w*each + i)
					ctx, cancel := context.WithCancel(t.Context())
					if rand.IntN(4) == 0 {
						time.AfterFunc(rand.N(2*time.Millisecond), cancel)
					}
					if got, err := exchange(ctx, p, id); err == nil && got != id {
						t.Errorf("%s got the answer of %s", id, got)
					}
					cancel()
				}
			})
		}
		wg.Wait()
	}
}

// Between Take and Send an intent is written, which may take long. What comes
// meanwhile answers no request of ours.
func TestThreat18AnswersBeforeTheRequest(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, odd := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nnobody", ""} {
			say, said := make(chan bool), make(chan bool)
			s := serveRaw(t, secure, func(c *rawConn) {
				if _, _, err := c.request(); err != nil {
					return
				}
				_, _ = io.WriteString(c, ok)
				<-say
				if _, _ = io.WriteString(c, odd); odd == "" {
					_ = c.Close()
				}
				close(said)
				if req, _, err := c.request(); err == nil {
					t.Errorf("%s was sent", req.Method)
				}
			})
			p := s.pool(t, nil)
			_, body, err := get(t, p)
			require.NoError(t, err)
			require.Equal(t, "ok", body)
			c, err := p.Take(t.Context())
			require.NoError(t, err)
			close(say)
			<-said
			require.Eventually(t, c.Heard, patience, time.Millisecond)
			_, err = c.Send(t.Context(), &hubspot.Request{Method: "POST", Target: hubspot.Target{Path: "/x"}}, wire.NewToken(madeUp))
			require.ErrorIs(t, err, hubspot.ErrUnsent)
			require.Equal(t, int64(1), s.conns.Load())
		}
	}
}

// requestOrHead reads a request, of an early answer only the head.
func requestOrHead(c *rawConn, head bool) (*http.Request, string, error) {
	if !head {
		return c.request()
	}
	req, err := http.ReadRequest(c.in)
	return req, "", err
}

// exchange makes one call that is marked everywhere, and returns whose answer
// it got.
func exchange(ctx context.Context, p *hubspot.Pool, id string) (string, error) {
	c, err := p.Take(ctx)
	if err != nil {
		return "", err
	}
	target, err := hubspot.ParseTarget("/crm/v3/objects/contacts")
	if err != nil {
		return "", err
	}
	r := &hubspot.Request{Method: "GET", Target: target, Header: http.Header{"X-Id": {id}}}
	if rand.IntN(2) == 0 {
		body := strings.Repeat(id+".", rand.IntN(20_000))
		r.Method, r.Body, r.Length = "POST", strings.NewReader(body), int64(len(body))
		if rand.IntN(2) == 0 {
			r.Length = -1
		}
	}
	resp, err := c.Send(ctx, r, wire.NewToken(madeUp))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if got := resp.Header.Get("X-Id"); err == nil && got != string(b) {
		return got + " and " + string(b), nil
	}
	return string(b), err
}
