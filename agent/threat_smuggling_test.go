package agent_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hsagent/hsagentd/agent/hubspot/sandbox"
)

// The parts that smuggling attempts are made of. Every request names its slug
// in its query: what arrives must belong together, whatever was understood.
func callHead(method, slug string) string {
	return method + " /v1/call/" + slug + tagged(slug) + " HTTP/1.1\r\nHost: hsagent\r\n"
}

// hidden is a request that must never leave: it is the inside of another one.
var hidden = "GET /v1/call/client-1" + contacts + "?tag=hidden HTTP/1.1\r\nHost: hsagent\r\n\r\n"

func TestThreat18Smuggling(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	post := callHead("POST", "client-0")
	var attempts []string
	// Two lengths, or one that is none.
	for _, h := range []string{
		"Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5", "Content-Length: 0\r\nTransfer-Encoding: chunked",
		"Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 6\r\nContent-Length: 5", "Content-Length: 5, 5", "Content-Length: 5,6",
		"Content-Length: +5", "Content-Length: -1", "Content-Length: 9223372036854775808", "Content-Length: 18446744073709551621", "Content-Length: 0x5", "Content-Length: 5 5", "Content-Length: 5;a", "Content-Length: five", "Content-Length: ", "Content-Length: \"5\"", "Content-Length: 5.0", "Content-Length: 1e1",
		"Content-Length:\x0b5", "Content-Length: 5\x00", "Content-Length : 5", "Content-Length\t: 5", " Content-Length: 5", "\tContent-Length: 5", "Content-Length: 5\r\n 0", "Content-Length:\r\n 5",
		"Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity, chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding:\x0bchunked", "Transfer-Encoding: \"chunked\"", "Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked", "Transfer-Encoding: chun\r\n ked", "Transfer-Encoding:\r\n chunked", "Transfer-Encoding: chunked;a", "Transfer-Encoding: ,chunked", "Transfer-Encoding: chunked,", "Transfer-Encoding: gzip", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: cow", "Transfer-Encoding: chunked\x00",
		"X: y\rTransfer-Encoding: chunked", "X: y\nTransfer-Encoding: chunked", "X: y\nContent-Length: 5", "X: y\r\n\rContent-Length: 5",
		"Host: hsagent", "Host: evil", "host: localhost", "Host : hsagent", "X\x00: y", "X: \x00", ": y", "X", "X y: z", "\x7f: y", "X[]: y",
	} {
		for _, body := range []string{"0\r\n\r\n" + hidden, "5\r\nhello\r\n0\r\n\r\n" + hidden} {
			attempts = append(attempts, post+h+"\r\n\r\n"+body)
		}
	}
	// Chunks that are none.
	for _, chunks := range []string{
		"5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "5 5\r\nhello\r\n0\r\n\r\n", "\r\n5\r\nhello\r\n0\r\n\r\n", "5;a\nb\r\nhello\r\n0\r\n\r\n",
		"5\r\nhelloX\r\n0\r\n\r\n", "6\r\nhello\r\n0\r\n\r\n", "FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", "8000000000000000\r\nhello", "10000000000000005\r\nhello\r\n0\r\n\r\n", "zz\r\n", ";\r\n\r\n", "5\rhello\r\n", strings.Repeat("0", 100) + "5\r\nhello\r\n0\r\n\r\n",
		"5;" + strings.Repeat("a", 70_000) + "\r\nhello\r\n0\r\n\r\n", "5_0\r\nhello\r\n", "\x005\r\nhello\r\n0\r\n\r\n",
	} {
		attempts = append(attempts, post+"Transfer-Encoding: chunked\r\n\r\n"+chunks+hidden)
	}
	// Versions in which net/http reads framing otherwise.
	for _, v := range []string{"HTTP/1.0", "HTTP/1.2", "HTTP/0.9", "HTTP/2.0", "HTTP/1.10", "http/1.1", "HTTP/1.1 ", " HTTP/1.1", "HTTP/1.1\x00"} {
		attempts = append(attempts, strings.Replace(post, "HTTP/1.1", v, 1)+"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+hidden)
	}
	// Line ends.
	attempts = append(attempts,
		strings.ReplaceAll(post, "\r\n", "\n")+"\n"+hidden, strings.Replace(post, "\r\n", "\n", 1)+"\r\n"+hidden, strings.ReplaceAll(post, "\r\n", "\r")+"\r"+hidden,
		"\r\n"+post+"Content-Length : 0\r\n\r\n"+hidden, "\n\n"+post+"\n"+hidden, post+"\n"+hidden, post+"\r\r\n"+hidden, "\x00"+post+"\r\n"+hidden)
	require.Greater(t, len(attempts), 120)

	accepted := map[string]int{} // by the mark of the attempt
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		queue = make(chan [2]string) // mark, attempt
	)
	for range 16 {
		wg.Go(func() {
			for job := range queue {
				attempt := strings.Replace(job[1], "tag=", "mark="+job[0]+"&tag=", 1)
				body := strings.TrimSuffix(attempt, hidden)
				for i, parts := range [][]string{{attempt}, {attempt[:len(attempt)/2], attempt[len(attempt)/2:]}, {body, attempt[len(body):]}} {
					mark := fmt.Sprintf("%s-%d", job[0], i)
					for j := range parts {
						parts[j] = strings.Replace(parts[j], "mark="+job[0], "mark="+mark, 1)
					}
					for _, status := range r.raw(parts...) {
						switch status { // net/http has these two for what it does not know
						case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
						default:
							if status >= 500 {
								t.Errorf("attempt %s: %d", mark, status)
							}
						}
						if status < 400 || status == 415 { // HubSpot's own: it takes no such body
							mu.Lock()
							accepted[mark]++
							mu.Unlock()
						}
					}
				}
			}
		})
	}
	for i, attempt := range attempts {
		queue <- [2]string{fmt.Sprint(i), attempt}
	}
	close(queue)
	wg.Wait()

	arrived := map[string]int{}
	for _, req := range r.came() {
		q, err := url.ParseQuery(req.RawQuery)
		require.NoError(t, err)
		require.NotEqual(t, "hidden", q.Get("tag"), "a request came out of another one's body: %s", req.RawQuery)
		arrived[q.Get("mark")]++
		require.Equal(t, 1, arrived[q.Get("mark")], "more left than was asked for: %s", req.RawQuery)
	}
	for mark, n := range accepted {
		require.LessOrEqual(t, n, arrived[mark], "attempt %s: the answer is nobody's", mark)
	}
	require.Empty(t, r.crossed())
	r.checkLog()
	require.Equal(t, 200, r.call("client-0", "GET", tagged("client-0"), nil).status, "others are served on")
}

// What is well formed stays so, however it is cut: pairs on one connection, one
// of them with a body that looks like a request.
func TestThreat18PipelinedPairsKeepTheirSlugs(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	object := `{"properties":{"lastname":` + fmt.Sprintf("%q", hidden) + `}}`
	typed := "Content-Type: application/json\r\n"
	sized := callHead("POST", "client-0") + typed + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(object), object)
	chunked := callHead("POST", "client-2") + typed + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x;x=y\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", 20, object[:20], len(object)-20, object[20:])
	get := callHead("GET", "client-1") + "\r\n"
	last := callHead("GET", "client-2") + "Connection: close\r\n\r\n"
	all := sized + get + chunked + get + sized + chunked + get + last
	for _, cut := range []int{0, 1, 50, 100, 130, 200, 211, 300, 333, 500, 700, 1000, len(all) - 2} {
		r.hubspot.Reset()
		require.Equal(t, []int{201, 200, 201, 200, 201, 201, 200, 200}, r.raw(all[:cut], all[cut:]), "cut at %d", cut)
		require.Len(t, r.came(), 8)
		require.Empty(t, r.crossed())
		for i, id := range []int64{1000, 1001, 1002, 1001, 1000, 1002, 1001, 1002} {
			require.Equal(t, id, r.came()[i].PortalID)
		}
	}
	r.checkLog()
}

// HubSpot's framing is not the caller's: an answer that lies about its length
// does not reach into the next one.
func TestThreat18AnswersKeepTheirCalls(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.ready(3)
	const injected = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ninject"
	for _, raw := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + injected, "HTTP/1.1 204 No Content\r\n\r\n" + injected, "HTTP/1.1 304 Not Modified\r\n\r\n" + injected,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + injected, "HTTP/1.1 103 Early\r\n\r\n" + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + injected,
	} {
		r.hubspot.SetFaults(sandbox.Fault{PathPrefix: "/crm", Raw: []byte(raw), Times: 1})
		first := r.call("client-0", "GET", contacts, nil)
		require.NotContains(t, first.body, "inject", "%q", raw)
		for range 3 {
			next := r.call("client-0", "GET", contacts, nil)
			require.Equal(t, 200, next.status)
			require.Contains(t, next.body, `"results"`, "%q", raw)
		}
	}
	r.checkLog()
}
