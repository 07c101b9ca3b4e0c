package sandbox

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The documented limits of a search, in results and in bytes of the query.
const (
	searchPage    = 200
	searchResults = 10_000
	searchQuery   = 3_000
)

type searchRequest struct {
	FilterGroups []struct {
		Filters []filter `json:"filters"`
	} `json:"filterGroups"`
	Filters    []filter   `json:"filters"` // the old form: one group
	Query      string     `json:"query"`
	Sorts      []sortRule `json:"sorts"`
	Properties []string   `json:"properties"`
	Limit      *int       `json:"limit"`
	After      propValue  `json:"after"`
}

type filter struct {
	PropertyName string      `json:"propertyName"`
	Operator     string      `json:"operator"`
	Value        propValue   `json:"value"`
	HighValue    propValue   `json:"highValue"`
	Values       []propValue `json:"values"`
}

type sortRule struct {
	PropertyName string `json:"propertyName"`
	Direction    string `json:"direction"`
}

// UnmarshalJSON takes the short form too: "name" rises, "-name" falls.
func (s *sortRule) UnmarshalJSON(b []byte) error {
	if b[0] != '"' {
		type plain sortRule
		return json.Unmarshal(b, (*plain)(s))
	}
	var name string
	if err := json.Unmarshal(b, &name); err != nil {
		return err
	}
	s.Direction = "ASCENDING"
	if rest, falls := strings.CutPrefix(name, "-"); falls {
		name, s.Direction = rest, "DESCENDING"
	}
	s.PropertyName = name
	return nil
}

// search answers POST …/search: groups are joined by OR, the filters in one
// by AND. The cursor is an offset.
func (x *exchange) search(st *store) *answer {
	raw, refused := x.readBody()
	if refused != nil {
		return refused
	}
	if len(raw) > searchQuery {
		return invalid("The query is longer than %d characters.", searchQuery)
	}
	var in searchRequest
	if err := json.Unmarshal(raw, &in); err != nil {
		return badJSON(err)
	}
	limit, after := 10, 0
	if in.Limit != nil {
		limit = *in.Limit
	}
	if limit < 1 || limit > searchPage {
		return invalid("limit must be between 1 and %d, and was %d", searchPage, limit)
	}
	if in.After != "" {
		var err error
		if after, err = strconv.Atoi(string(in.After)); err != nil || after < 0 {
			return invalid("after is no cursor of this search: %s", in.After)
		}
	}
	if after+limit > searchResults {
		return invalid("A search has at most %d results.", searchResults)
	}
	groups := make([][]filter, 0, len(in.FilterGroups)+1)
	for _, g := range in.FilterGroups {
		groups = append(groups, g.Filters)
	}
	if len(in.Filters) > 0 {
		groups = append(groups, in.Filters)
	}
	for _, f := range slices.Concat(groups...) {
		if err := f.check(st.kind); err != nil {
			return invalid("There was a problem with the request: %v", err)
		}
	}

	p := x.access.portal
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []*object
	for _, id := range st.ids {
		if o := live(st.byID[id]); o != nil && inAny(groups, o) && o.mentions(st.kind, in.Query) {
			found = append(found, o)
		}
	}
	for _, rule := range slices.Backward(in.Sorts) {
		slices.SortStableFunc(found, func(a, b *object) int {
			n := compareValues(a.props[rule.PropertyName], b.props[rule.PropertyName])
			if strings.EqualFold(rule.Direction, "DESCENDING") {
				n = -n
			}
			return n
		})
	}
	out := struct {
		Total int `json:"total"`
		page
	}{Total: len(found), page: page{Results: []view{}}}
	end := min(after+limit, len(found))
	for _, o := range found[min(after, len(found)):end] {
		out.Results = append(out.Results, o.view(st.kind, in.Properties))
	}
	if end < len(found) {
		out.Paging = &paging{Next: next{After: strconv.Itoa(end)}}
	}
	return reply(http.StatusOK, out)
}

func (f *filter) check(k *kind) error {
	if !k.knows(f.PropertyName) {
		return fmt.Errorf("property %q does not exist", f.PropertyName)
	}
	switch f.Operator {
	case "EQ", "NEQ", "LT", "LTE", "GT", "GTE", "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN":
		if f.Value == "" {
			return fmt.Errorf("operator %s needs a value", f.Operator)
		}
	case "BETWEEN":
		if f.Value == "" || f.HighValue == "" {
			return fmt.Errorf("operator %s needs a value and a highValue", f.Operator)
		}
	case "IN", "NOT_IN":
		if len(f.Values) == 0 {
			return fmt.Errorf("operator %s needs values", f.Operator)
		}
	case "HAS_PROPERTY", "NOT_HAS_PROPERTY":
	default:
		return fmt.Errorf("operator %q does not exist", f.Operator)
	}
	return nil
}

func inAny(groups [][]filter, o *object) bool {
	if len(groups) == 0 {
		return true
	}
	return slices.ContainsFunc(groups, func(g []filter) bool {
		return !slices.ContainsFunc(g, func(f filter) bool { return !f.holds(o) })
	})
}

func (f *filter) holds(o *object) bool {
	have, ok := o.props[f.PropertyName]
	want := string(f.Value)
	switch f.Operator {
	case "HAS_PROPERTY":
		return ok
	case "NOT_HAS_PROPERTY":
		return !ok
	case "NEQ":
		return !ok || compareValues(have, want) != 0
	case "NOT_IN":
		return !ok || !f.lists(have)
	case "NOT_CONTAINS_TOKEN":
		return !ok || !containsToken(have, want)
	}
	if !ok {
		return false
	}
	n := compareValues(have, want)
	switch f.Operator {
	case "EQ":
		return n == 0
	case "LT":
		return n < 0
	case "LTE":
		return n <= 0
	case "GT":
		return n > 0
	case "GTE":
		return n >= 0
	case "BETWEEN":
		return n >= 0 && compareValues(have, string(f.HighValue)) <= 0
	case "IN":
		return f.lists(have)
	case "CONTAINS_TOKEN":
		return containsToken(have, want)
	}
	return false
}

func (f *filter) lists(have string) bool {
	return slices.ContainsFunc(f.Values, func(v propValue) bool { return compareValues(have, string(v)) == 0 })
}

// compareValues compares as numbers or times where both sides are such (a time
// may be given as milliseconds since 1970), and else as text without case.
func compareValues(a, b string) int {
	x, okX := numeric(a)
	y, okY := numeric(b)
	if okX && okY {
		return cmp.Compare(x, y)
	}
	return cmp.Compare(strings.ToLower(a), strings.ToLower(b))
}

func numeric(s string) (float64, bool) {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		return n, true
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return float64(t.UnixMilli()), true
		}
	}
	return 0, false
}

// containsToken reports whether a word of the text is the wanted one; "*" at
// either end of it stands for anything.
func containsToken(text, want string) bool {
	text, want = strings.ToLower(text), strings.ToLower(want)
	bare := strings.Trim(want, "*")
	open, closed := strings.HasSuffix(want, "*"), strings.HasPrefix(want, "*")
	if !open && !closed && text == bare {
		return true
	}
	return slices.ContainsFunc(strings.FieldsFunc(text, wordBreak), func(word string) bool {
		switch {
		case open && closed:
			return strings.Contains(word, bare)
		case open:
			return strings.HasPrefix(word, bare)
		case closed:
			return strings.HasSuffix(word, bare)
		}
		return word == bare
	})
}

func wordBreak(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) }

// mentions reports whether one of the usual properties holds the text.
func (o *object) mentions(k *kind, text string) bool {
	text = strings.ToLower(text)
	return text == "" || slices.ContainsFunc(append(slices.Clone(k.defaults), "phone"), func(name string) bool {
		return strings.Contains(strings.ToLower(o.props[name]), text)
	})
}
