package hubspot_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUploads(t *testing.T) {
	type arrived struct {
		body   string
		length int64
	}
	got := make(chan arrived, 1)
	s := serveRaw(t, true, func(c *rawConn) {
		for {
			req, body, err := c.request()
			if err != nil {
				return
			}
			got <- arrived{body, req.ContentLength}
			_, _ = io.WriteString(c, ok)
		}
	})
	p := s.pool(t, nil)
	for _, size := range []int{0, 1, 15, 16, 4096, 32<<10 - 1, 32 << 10, 32<<10 + 1, 200_000} {
		body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		for _, known := range []bool{true, false} {
			for _, src := range []io.Reader{strings.NewReader(body), trickled{strings.NewReader(body)}} {
				if _, slow := src.(trickled); slow && size > 5000 {
					continue
				}
				length := int64(-1)
				if known {
					length = int64(size)
				}
				resp, err := send(t.Context(), p, "POST", src, length)
				require.NoError(t, err)
				require.Equal(t, arrived{body, length}, <-got)
				_, err = io.ReadAll(resp.Body)
				require.NoError(t, err)
			}
		}
	}
	require.Equal(t, int64(1), s.conns.Load())
}

var errSource = errors.New("the source broke")

// breaking gives its bytes, then an error.
type breaking struct{ r io.Reader }

func (b breaking) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if errors.Is(err, io.EOF) {
		err = errSource
	}
	return n, err
}

func TestUploadsThatBreak(t *testing.T) {
	s := serveRaw(t, true, func(c *rawConn) {
		if _, _, err := c.request(); err == nil {
			t.Error("a whole request")
		}
	})
	p := s.pool(t, nil)
	for _, length := range []int64{-1, 1000} {
		_, err := send(t.Context(), p, "POST", breaking{strings.NewReader("abc")}, length)
		require.ErrorIs(t, err, errSource)
	}
	_, err := send(t.Context(), p, "POST", strings.NewReader("abc"), 1000)
	require.ErrorContains(t, err, "shorter")
	all, _ := p.Idle()
	require.Zero(t, all)
}

// HubSpot may answer before it has read the body. The answer counts.
func TestEarlyAnswers(t *testing.T) {
	for _, raw := range []string{ok, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nok"} {
		for _, closes := range []bool{true, false} {
			s := serveRaw(t, true, func(c *rawConn) {
				if _, err := http.ReadRequest(c.in); err != nil {
					return
				}
				_, _ = io.WriteString(c, raw)
				if !closes {
					_, _ = io.Copy(io.Discard, c.in)
				}
			})
			p := s.pool(t, nil)
			body, more := io.Pipe() // which never ends by itself
			resp, err := send(t.Context(), p, "POST", body, -1)
			require.NoError(t, err)
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, "ok", string(b))
			all, _ := p.Idle()
			require.Zero(t, all)
			_, _ = more.Write([]byte("late"))
			_ = more.Close()
		}
	}
}
