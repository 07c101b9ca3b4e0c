package sandbox

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hsagent/hsagentd/wire"
)

// Config is what a sandbox starts with.
type Config struct {
	// Portals are the accounts that exist. An entry that [Server.AddPortal]
	// would refuse is left out, with a line in the log.
	Portals []Portal

	// Now is the clock of limits and of object times; nil means time.Now.
	Now func() time.Time

	// Log receives refused portals and server errors; nil means none.
	Log *slog.Logger

	// KeepRequests is how many of the latest arrivals [Server.Requests] can
	// tell of: 0 means 200,000, a negative number none. Counting goes on
	// without a limit either way.
	KeepRequests int
}

// Server is the sandbox HubSpot. It is an [http.Handler], and safe for use by
// many goroutines. Use [New] to make one.
type Server struct {
	now      func() time.Time
	log      *slog.Logger
	observed observer
	faults   faultSet

	mu      sync.RWMutex
	portals map[int64]*portal
	tokens  map[string]*access
}

// New makes a sandbox from cfg.
func New(cfg Config) *Server {
	s := &Server{
		now:     cfg.Now,
		log:     cfg.Log,
		portals: make(map[int64]*portal),
		tokens:  make(map[string]*access),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.observed.keep = cfg.KeepRequests
	if cfg.KeepRequests == 0 {
		s.observed.keep = 200_000
	}
	for _, p := range cfg.Portals {
		if err := s.AddPortal(p); err != nil {
			s.log.Error("sandbox portal left out", slog.Int64("portal", p.ID), slog.Any("err", err))
		}
	}
	return s
}

// exchange is one request on its way through the sandbox.
type exchange struct {
	s      *Server
	r      *http.Request
	now    time.Time
	bearer string  // the token as it came, "" if none
	access *access // nil if the token opens nothing
	target target
	body   *countingReader
	budget *budget // what the limits say, nil before they were asked
}

// answer is what the sandbox has to say, before faults have their way with it.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ServeHTTP answers one request as HubSpot would.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{
		s:      s,
		r:      r,
		now:    s.now(),
		bearer: bearer(r.Header),
		target: parseTarget(r.URL.Path),
		body:   &countingReader{r: r.Body}, // nil only in a request made by hand
	}
	x.access = s.lookup(x.bearer)
	r.Body = io.NopCloser(x.body) // where the form reader reads; net/http closes its own

	// Noted first: also a request that ends badly has arrived. The deferred
	// call is for those without an answer, a panic that cuts the connection
	// among them.
	note := s.observed.arrive(x)
	sw := &statusWriter{ResponseWriter: w}
	sw.settle = sync.OnceFunc(func() { s.observed.finish(note, x.body.n, sw.status) })
	defer sw.settle()

	if f, ok := s.faults.match(x); ok {
		f.play(sw, x)
		return
	}
	x.send(sw, x.answer())
}

// answer does the work of a request: who asks, whether the limits allow it,
// and then what was asked for.
func (x *exchange) answer() *answer {
	if x.target.is("oauth", "private-apps", "get", "access-token-info") {
		return x.tokenInfo()
	}
	if x.access == nil {
		return x.unauthenticated()
	}
	if refused := x.charge(); refused != nil {
		return refused
	}
	return x.route()
}

// bearer returns the token of the Authorization header, or "".
func bearer(h http.Header) string {
	scheme, token, ok := strings.Cut(h.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// fingerprint names a token without telling it; "" stands for no token.
func fingerprint(token string) string {
	if token == "" {
		return ""
	}
	return wire.NewToken(token).Fingerprint()
}

// countingReader counts the bytes of a request's body.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	if c.r == nil {
		return 0, io.EOF
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// statusWriter notes the final status before the first byte of the answer is
// out: whoever has the answer finds it counted.
type statusWriter struct {
	http.ResponseWriter
	status int
	settle func()
}

// WriteHeader must be called before Write; all answers here do.
func (w *statusWriter) WriteHeader(status int) {
	if status >= 200 {
		w.status = status
		w.settle()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets [http.ResponseController] flush and hijack.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
