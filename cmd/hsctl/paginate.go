package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// maxPage bounds one page: HubSpot's largest have some megabytes.
const maxPage = 256 << 20

// A page is what hsctl reads of an answer with paging.
type page struct {
	Results []json.RawMessage `json:"results"`
	Paging  struct {
		Next struct {
			After string `json:"after"`
		} `json:"next"`
	} `json:"paging"`
}

// runPages calls page after page and writes the results of all as one array.
func (o *callOptions) runPages(ctx context.Context, e *env, c *wire.Client, req *wire.CallRequest, filter *jqFilter, out *output) error {
	pages, err := newPager(req)
	if err != nil {
		return err
	}
	var whole bytes.Buffer // what the filter reads: it needs the array at once
	array := &arrayWriter{w: out}
	if filter != nil {
		array.w = &whole
	}
	for pages.more() {
		p, body, err := pages.next(ctx, c)
		if err == nil {
			err = array.add(p.Results)
		}
		if err != nil {
			return errors.Join(partial(e, array, filter == nil && o.outFile == "", body), err)
		}
	}
	if err := array.end(); err != nil {
		return err
	}
	if filter != nil {
		if err := filter.apply(&whole, out); err != nil {
			return err
		}
	}
	return out.commit()
}

// partial deals with HubSpot's error body when a page failed: it is data while
// stdout is empty; after that it goes to stderr with what stdout holds.
func partial(e *env, array *arrayWriter, onStdout bool, body []byte) error {
	if array.count == 0 || !onStdout {
		_, err := e.stdout.Write(body)
		return err
	}
	var said struct{ Message string }
	if json.Unmarshal(body, &said) == nil && said.Message != "" {
		e.complain("HubSpot says: " + said.Message)
	}
	e.complain(fmt.Sprintf("stdout has the first %d results, as an array that does not end", array.count))
	_, err := io.WriteString(array.w, "\n")
	return err
}

// A pager makes the calls of one listing, each with the place where the page
// before it ended.
type pager struct {
	req    wire.CallRequest
	target string                     // of the first page
	search map[string]json.RawMessage // the body of a search
	after  string
	begun  bool
}

// newPager reads the body of a search, since every page sends it again.
func newPager(req *wire.CallRequest) (*pager, error) {
	p := &pager{req: *req, target: req.Target}
	if req.Method != http.MethodPost {
		return p, nil
	}
	p.search = map[string]json.RawMessage{}
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, fmt.Errorf("read the body: %w", err)
		}
		if err := json.Unmarshal(b, &p.search); err != nil || p.search == nil {
			return nil, usagef("--paginate: the body of a search has to be a JSON object")
		}
	}
	if p.req.Header.Get("Content-Type") == "" {
		p.req.Header.Set("Content-Type", "application/json")
	}
	return p, nil
}

// more reports whether there is another page.
func (p *pager) more() bool { return !p.begun || p.after != "" }

// next calls for the next page. With an error of HubSpot's it returns the body.
func (p *pager) next(ctx context.Context, c *wire.Client) (*page, []byte, error) {
	if err := p.turn(); err != nil {
		return nil, nil, err
	}
	resp, err := c.Call(ctx, p.req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if problem := wire.AgentError(resp); problem != nil {
		return nil, nil, problem
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, nil, fmt.Errorf("the answer broke off after %d bytes: %w", len(body), err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, body, answered(resp)
	}
	got := &page{}
	if err := json.Unmarshal(body, got); err != nil || got.Results == nil {
		return nil, nil, fmt.Errorf("--paginate: the answer of call %s has no array of results", resp.Header.Get(wire.HeaderCallID))
	}
	if next := got.Paging.Next.After; p.begun && next != "" && next == p.after {
		return nil, nil, fmt.Errorf("--paginate: HubSpot points from after=%s to itself", wire.Quote(next))
	}
	p.begun, p.after = true, got.Paging.Next.After
	return got, nil, nil
}

// turn sets the request to the page that starts at p.after.
func (p *pager) turn() error {
	if p.after != "" && p.search == nil {
		p.req.Target = addQuery(withoutAfter(p.target), "after", p.after)
	}
	if p.search == nil {
		return nil
	}
	if p.after != "" {
		after, err := json.Marshal(p.after)
		if err != nil {
			return fmt.Errorf("encode the search: %w", err)
		}
		p.search["after"] = after
	}
	b, err := json.Marshal(p.search)
	if err != nil {
		return fmt.Errorf("encode the search: %w", err)
	}
	p.req.Body, p.req.Length = bytes.NewReader(b), int64(len(b))
	return nil
}

// withoutAfter drops the query's own "after", and leaves the rest as it is.
func withoutAfter(target string) string {
	path, query, ok := strings.Cut(target, "?")
	if !ok {
		return target
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		if k, _, _ := strings.Cut(pair, "="); k != "after" && pair != "" {
			kept = append(kept, pair)
		}
	}
	if len(kept) == 0 {
		return path
	}
	return path + "?" + strings.Join(kept, "&")
}

// An arrayWriter writes a JSON array as its elements come.
type arrayWriter struct {
	w     io.Writer
	begun bool
	count int
}

func (a *arrayWriter) add(elements []json.RawMessage) error {
	var b bytes.Buffer
	if !a.begun {
		a.begun = true
		b.WriteByte('[')
	}
	for _, el := range elements {
		if a.count > 0 {
			b.WriteString(",\n")
		}
		a.count++
		b.Write(el)
	}
	_, err := a.w.Write(b.Bytes())
	return err
}

func (a *arrayWriter) end() error {
	_, err := io.WriteString(a.w, "]\n")
	return err
}
