package sandbox

import (
	"errors"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// upload answers POST /files/{version}/files. The content is counted, not
// kept, and of any size.
func (x *exchange) upload() *answer {
	parts, err := x.r.MultipartReader()
	if err != nil {
		return refusal(http.StatusUnsupportedMediaType, apiError{Message: "HTTP 415 Unsupported Media Type"})
	}
	name, size, found := "", int64(0), false
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return invalid("The form ended early.")
		}
		n, err := io.Copy(io.Discard, part)
		if err != nil {
			return invalid("The form ended early.")
		}
		if part.FormName() == "file" {
			name, size, found = part.FileName(), n, true
		}
	}
	if !found {
		return invalid("The form has no part named \"file\".")
	}
	p := x.access.portal
	p.mu.Lock()
	p.nextID++
	id := strconv.FormatInt(p.nextID, 10)
	p.mu.Unlock()
	ext := strings.TrimPrefix(path.Ext(name), ".")
	return reply(http.StatusCreated, struct {
		ID        string `json:"id"`
		Name      string `json:"name"`
		Extension string `json:"extension"`
		Path      string `json:"path"`
		Access    string `json:"access"`
		Size      int64  `json:"size"`
		CreatedAt string `json:"createdAt"`
		UpdatedAt string `json:"updatedAt"`
		Archived  bool   `json:"archived"`
	}{id, strings.TrimSuffix(name, path.Ext(name)), ext, "/" + name, "PRIVATE", size, stamp(x.now), stamp(x.now), false})
}

// owners answers GET /crm/{version}/owners.
func (x *exchange) owners() *answer {
	type owner struct {
		ID        string `json:"id"`
		Email     string `json:"email"`
		Type      string `json:"type"`
		FirstName string `json:"firstName"`
		LastName  string `json:"lastName"`
		UserID    int64  `json:"userId"`
		CreatedAt string `json:"createdAt"`
		UpdatedAt string `json:"updatedAt"`
		Archived  bool   `json:"archived"`
	}
	p := x.access.portal
	out := struct {
		Results []owner `json:"results"`
	}{[]owner{}}
	since := "2024-02-01T09:00:00.000Z"
	for i := range 2 {
		first, last := pick(firstNames, i+p.offset()+5), pick(lastNames, i+p.offset()+9)
		out.Results = append(out.Results, owner{
			ID: strconv.FormatInt(p.ownerID(i), 10), Email: strings.ToLower(first+"."+last) + "@example.com", Type: "PERSON",
			FirstName: first, LastName: last, UserID: made("user", p.cfg.ID) + int64(i), CreatedAt: since, UpdatedAt: since,
		})
	}
	return reply(http.StatusOK, out)
}
