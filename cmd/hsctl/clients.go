package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hsagent/hsagentd/wire"
)

// Bounds of a list of clients.
const (
	maxClientFile = 64 << 20 // bytes
	maxClientCell = 16 << 10 // bytes
	maxClients    = 10_000   // as many as the agent takes at once
)

// A client is one row of a list of clients. A row with a fault is named by its
// row and line, and nothing of it is sent.
type client struct {
	row      int        // data rows, from 1
	line     int        // of the file, from 1
	slug     string     // "" if the row has none that may be shown
	Token    wire.Token // exported: fmt asks only such fields how to show themselves
	portalID int64      // 0: whatever portal the token opens
	kind     string
	fault    string
}

// A clientList is what a CSV of clients holds.
type clientList struct {
	clients []client
	ignored []string // columns that are not ours
}

// The columns of a list of clients.
const (
	columnSlug     = "clientSlug"
	columnToken    = "portalToken"
	columnPortalID = "expectedPortalId"
	columnKind     = "kind"
)

// columnNames are the names that a header may give the columns, in lower case
// and without spaces, hyphens and underscores.
var columnNames = map[string]string{
	"clientslug": columnSlug, "slug": columnSlug,
	"portaltoken": columnToken, "token": columnToken,
	"expectedportalid": columnPortalID, "portalid": columnPortalID,
	"kind": columnKind,
}

var (
	digits     = regexp.MustCompile(`^[0-9]+$`)
	scientific = regexp.MustCompile(`^[0-9]+([.,][0-9]+)?[eE]\+?[0-9]+$`)
)

// parseClients reads a list of clients in CSV as people have it: a header or
// none, with commas, semicolons or TABs, with any line ends, with comments. A
// cell holds no line end, so every row is one line: a quote that is not closed
// spoils its own row and no other.
//
// No error and no fault repeats a cell that could be a token of any form.
func parseClients(data []byte) (*clientList, error) {
	data, err := clientText(data)
	if err != nil {
		return nil, err
	}
	var (
		list    clientList
		columns []string // nil before the first line with cells
		delim   rune
	)
	for n, line := range textLines(string(data)) {
		if s := strings.TrimSpace(line); strings.Trim(s, ",;\t ") == "" || s[0] == '#' {
			continue
		}
		if delim == 0 {
			if rest, ok := strings.CutPrefix(strings.ToLower(line), "sep="); ok && len(rest) == 1 {
				delim = rune(rest[0]) // Excel's way to name it
				continue
			}
			delim = sniffDelimiter(line)
		}
		cells, err := splitCells(line, delim)
		if columns == nil {
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			header := isHeader(cells)
			if columns, list.ignored, err = readHeader(cells, header); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			if header {
				continue
			}
		}
		if len(list.clients) == maxClients {
			return nil, fmt.Errorf("more than %d clients: give them in several files", maxClients)
		}
		c := client{row: len(list.clients) + 1, line: n}
		if err == nil {
			err = c.read(cells, columns)
		}
		if err != nil {
			c.fault = fmt.Sprintf("line %d: %v", n, err)
		}
		list.clients = append(list.clients, c)
	}
	if len(list.clients) == 0 {
		return nil, errors.New("it has no clients: want lines of clientSlug,portalToken,expectedPortalId")
	}
	list.faultTwins()
	return &list, nil
}

// clientText returns the text of a file, or says why it is none.
func clientText(data []byte) ([]byte, error) {
	switch {
	case len(data) > maxClientFile:
		return nil, fmt.Errorf("it has more than %d MiB", maxClientFile>>20)
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")),
		bytes.IndexByte(data[:min(len(data), 512)], 0) >= 0 && !bytes.HasPrefix(data, []byte("PK")):
		return nil, errors.New(`it is UTF-16, as Excel's "Unicode Text" is: save it as "CSV UTF-8", or run iconv -f UTF-16 -t UTF-8 on it`)
	case bytes.HasPrefix(data, []byte("PK\x03\x04")):
		return nil, errors.New(`it is a workbook, not a CSV: save it as "CSV UTF-8"`)
	}
	return bytes.TrimPrefix(data, []byte("\uFEFF")), nil
}

// textLines yields the lines of s by their numbers from 1. A line ends with LF,
// CR LF or CR.
func textLines(s string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		for n := 1; s != ""; n++ {
			line, rest := s, ""
			if i := strings.IndexAny(s, "\r\n"); i >= 0 {
				line, rest = s[:i], s[i+1:]
				if s[i] == '\r' {
					rest = strings.TrimPrefix(rest, "\n")
				}
			}
			if s = rest; !yield(n, line) {
				return
			}
		}
	}
}

// sniffDelimiter returns the delimiter that stands most often in a line outside
// quotes.
func sniffDelimiter(line string) rune {
	counts, quoted := map[rune]int{}, false
	for _, r := range line {
		switch {
		case r == '"':
			quoted = !quoted
		case !quoted:
			counts[r]++
		}
	}
	best := ','
	for _, d := range ";\t" {
		if counts[d] > counts[best] {
			best = d
		}
	}
	return best
}

// splitCells splits a line into its cells, without the spaces around them.
func splitCells(line string, delim rune) ([]string, error) {
	var cells []string
	blank := func(r rune) bool { return r == ' ' || r == '\t' && delim != '\t' }
	for {
		line = strings.TrimLeftFunc(line, blank)
		cell, rest, more := strings.Cut(line, string(delim))
		if strings.HasPrefix(line, `"`) {
			var ok bool
			if cell, rest, ok = cutQuoted(line[1:]); !ok {
				return nil, errors.New("a quote opens a cell, and none closes it before the line ends")
			}
			rest = strings.TrimLeftFunc(rest, blank)
			if more = rest != ""; more && !strings.HasPrefix(rest, string(delim)) {
				return nil, errors.New("text follows the quote that closes a cell")
			}
			rest = strings.TrimPrefix(rest, string(delim))
		}
		if len(cell) > maxClientCell {
			return nil, fmt.Errorf("a cell has more than %d KiB", maxClientCell>>10)
		}
		cells = append(cells, strings.TrimSpace(cell))
		if !more {
			return cells, nil
		}
		line = rest
	}
}

// cutQuoted reads a cell up to the quote that closes it; a doubled quote stands
// for one.
func cutQuoted(s string) (cell, rest string, ok bool) {
	for {
		before, after, found := strings.Cut(s, `"`)
		if cell += before; !found {
			return "", "", false
		}
		if !strings.HasPrefix(after, `"`) {
			return cell, after, true
		}
		cell, s = cell+`"`, after[1:]
	}
}

// column returns which of our columns a header's cell names, or "".
func column(cell string) string {
	return columnNames[strings.NewReplacer(" ", "", "_", "", "-", "").Replace(strings.ToLower(cell))]
}

// isHeader reports whether cells name columns: a client may be called "token",
// but then a token or a number stands beside it.
func isHeader(cells []string) bool {
	return slices.ContainsFunc(cells, func(c string) bool { return column(c) != "" }) &&
		!slices.ContainsFunc(cells, func(c string) bool { return hasToken(c) || digits.MatchString(c) })
}

// readHeader returns what each cell of a row holds ("" for a column that is not
// ours), from the header or else in the order that is usual.
func readHeader(cells []string, header bool) (columns, ignored []string, err error) {
	if !header {
		return []string{columnSlug, columnToken, columnPortalID}, nil, nil
	}
	for _, c := range cells {
		name := column(c)
		switch {
		case name == "" && c != "":
			ignored = append(ignored, c)
		case name != "" && slices.Contains(columns, name):
			return nil, nil, fmt.Errorf("the header names the column %s twice", name)
		}
		columns = append(columns, name)
	}
	for _, name := range []string{columnSlug, columnToken, columnPortalID} {
		if slices.Contains(columns, name) {
			continue
		}
		if name == columnPortalID {
			return nil, nil, fmt.Errorf("the header has no column %s: without it a token of another portal would be taken. "+
				"Leave its cells empty if you want that", name)
		}
		return nil, nil, fmt.Errorf("the header has no column %s", name)
	}
	return columns, ignored, nil
}

// hasToken reports whether something in s has a token's form.
func hasToken(s string) bool { return wire.MaskTokens(s) != s }

// read fills in the row. What it cannot take it describes.
func (c *client) read(cells, columns []string) error {
	n := len(cells)
	for n > len(columns) && cells[n-1] == "" {
		n-- // a spreadsheet pads rows with empty cells
	}
	got := map[string]string{}
	for i, name := range columns {
		if i < n && name != "" {
			got[name] = cells[i]
		}
	}
	token := wire.NewToken(got[columnToken])
	slug, err := wire.ParseSlug(got[columnSlug])
	switch {
	case err == nil:
		c.slug = slug.String()
	case token.Datacenter() == "":
		// The cell may be the token itself: the error must not repeat it.
		err = fmt.Errorf("its slug is %w", wire.ErrBadSlug)
	}
	switch {
	case n != len(columns):
		return fmt.Errorf("it has %d columns, want %d", n, len(columns))
	case hasToken(got[columnSlug]):
		return fmt.Errorf("a token, %s, stands in the column %s: are the columns swapped?", wire.Quote(got[columnSlug]), columnSlug)
	case hasToken(got[columnPortalID]):
		return fmt.Errorf("a token stands in the column %s: are the columns swapped?", columnPortalID)
	case err != nil:
		return err
	case token.Check() != nil:
		return token.Check()
	case digits.MatchString(token.Reveal()):
		return fmt.Errorf("a number stands in the column %s: are the columns swapped?", columnToken)
	case got[columnKind] != "" && !slices.Contains(tokenKinds, got[columnKind]):
		return fmt.Errorf("its kind is none of %s", strings.Join(tokenKinds, ", "))
	}
	if c.portalID, err = parsePortalID(got[columnPortalID]); err != nil {
		return err
	}
	c.Token, c.kind = token, got[columnKind]
	return nil
}

// parsePortalID reads a portal's number; an empty cell is 0.
func parsePortalID(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	if scientific.MatchString(s) {
		return 0, errors.New("a spreadsheet has shortened the portal ID: show the column without decimals, and save it again")
	}
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id <= 0 || !digits.MatchString(s) {
		return 0, errors.New("the portal ID is no number of a portal: want digits alone, such as 12345678")
	}
	return id, nil
}

// faultTwins finds fault with all rows that name the same slug: which of them
// is right, nobody but their author knows.
func (l *clientList) faultTwins() {
	bySlug := map[string][]int{}
	for i, c := range l.clients {
		if c.slug != "" {
			bySlug[c.slug] = append(bySlug[c.slug], i)
		}
	}
	for _, twins := range bySlug {
		if len(twins) < 2 {
			continue
		}
		for k, i := range twins {
			other := l.clients[twins[0]]
			if k == 0 {
				other = l.clients[twins[1]]
			}
			if c := &l.clients[i]; c.fault == "" {
				c.fault = fmt.Sprintf("line %d: the slug stands in row %d (line %d) too: keep the right one", c.line, other.row, other.line)
				c.Token = wire.Token{}
			}
		}
	}
}
