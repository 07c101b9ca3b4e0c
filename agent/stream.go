package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/hsagent/hsagentd/agent/hubspot"
	"github.com/hsagent/hsagentd/wire"
)

var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// stream passes body on to the caller as it comes, flushing whenever HubSpot
// pauses, and returns how many bytes went through and what broke it, if
// anything did. length is the answer's Content-Length, or -1; where it tells
// which bytes are the last, ended is called before the caller gets them: who
// has read a whole answer finds its outcome in the log.
func stream(ctx context.Context, w http.ResponseWriter, body io.Reader, kept *excerpt, length int64, ended func(int64, wire.Code)) (n int64, code wire.Code) {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	rc := http.NewResponseController(w)
	for {
		k, err := body.Read(buf[:])
		if k > 0 {
			kept.add(buf[:k])
			if n+int64(k) == length {
				ended(length, "")
			}
			if _, werr := w.Write(buf[:k]); werr != nil {
				return n, wire.CodeClientAbort
			}
			n += int64(k)
			if err == nil && n != length {
				if ferr := rc.Flush(); ferr != nil {
					return n, wire.CodeClientAbort
				}
			}
		}
		switch cause := context.Cause(ctx); {
		case errors.Is(err, io.EOF):
			return n, ""
		case err == nil:
		case errors.Is(cause, errShutdown):
			return n, wire.CodeBusy
		case cause != nil:
			return n, wire.CodeClientAbort
		case isTimeout(err):
			return n, wire.CodeUpstreamTimeout
		default:
			return n, wire.CodeUpstreamInvalid
		}
	}
}

// unreadable returns why an answer cannot be passed on, or nil.
func (c *call) unreadable(resp *http.Response) *wire.Problem {
	switch enc := strings.ToLower(strings.Join(resp.Header["Content-Encoding"], ", ")); {
	case resp.StatusCode < 200 || resp.StatusCode > 599:
		return wire.Errorf(wire.CodeUpstreamInvalid, "HubSpot answered with status %d, which cannot be passed on", resp.StatusCode)
	case enc == "" || enc == "identity" || c.method == http.MethodHead || resp.ContentLength == 0:
		return nil
	default:
		// Asked for is gzip or nothing, and gzip was decoded already: what
		// cannot be read cannot be searched for the token either.
		return wire.Errorf(wire.CodeUpstreamInvalid, "HubSpot's answer is encoded as %s, which was not asked for and cannot be read", wire.Quote(enc))
	}
}

// sendProblem says why no answer came, or why it broke off.
func (c *call) sendProblem(ctx context.Context, err error) *wire.Problem {
	var (
		p       *wire.Problem
		invalid hubspot.InvalidError
	)
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, errTooLong):
		return errTooLarge(c.agent.cfg.MaxRequestBytes)
	case errors.Is(err, errBadBody):
		return wire.Errorf(wire.CodeBadRequest, "the request's body is malformed: its chunks are not what HTTP/1.1 has. HubSpot had the beginning of the %s; whether it did anything with that is not known", c.method)
	case errors.Is(err, errShutdown):
		return wire.Errorf(wire.CodeBusy, "the agent was stopped before HubSpot had answered")
	case errors.Is(err, errUpload), errors.Is(err, context.Canceled):
		return wire.Errorf(wire.CodeClientAbort, "the caller gave up before HubSpot had answered")
	case isTimeout(err):
		if c.sent.IsZero() {
			return wire.Errorf(wire.CodeUpstreamUnreachable, "HubSpot could not be reached in time: %v", err)
		}
		return wire.Errorf(wire.CodeUpstreamTimeout, "HubSpot did not answer in time. Whether it carried out the %s is not known", c.method)
	case errors.As(err, &invalid):
		return wire.Errorf(wire.CodeUpstreamInvalid, "HubSpot's answer cannot be read: %s", invalid)
	default:
		return wire.Errorf(wire.CodeUpstreamUnreachable, "HubSpot cannot be reached: %s", c.clean(err.Error()))
	}
}

// isTimeout reports whether something took too long.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func errTooLarge(limit int64) *wire.Problem {
	return wire.Errorf(wire.CodeTooLarge, "the body has more than %d bytes, the upstream.max_request_bytes of the agent's config", limit)
}
