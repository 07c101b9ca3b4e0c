package sandbox

import (
	"encoding/json"
	"net/http"
	"strings"
)

// maxBatch is the documented limit of inputs.
const maxBatch = 100

type batchRequest struct {
	Inputs     []batchInput `json:"inputs"`
	Properties []string     `json:"properties"`
	IDProperty string       `json:"idProperty"`
}

type batchInput struct {
	ID         propValue            `json:"id"`
	IDProperty string               `json:"idProperty"`
	Properties map[string]propValue `json:"properties"`
	TraceID    string               `json:"objectWriteTraceId"`
}

type batchAnswer struct {
	Status      string       `json:"status"`
	Results     []view       `json:"results"`
	NumErrors   int          `json:"numErrors,omitempty"`
	Errors      []batchError `json:"errors,omitempty"`
	StartedAt   string       `json:"startedAt"`
	CompletedAt string       `json:"completedAt"`
}

type batchError struct {
	Status   string              `json:"status"`
	Category string              `json:"category"`
	Message  string              `json:"message"`
	Context  map[string][]string `json:"context"`
}

// batch answers …/batch/{op}. Inputs that fail make a 207, except that a
// create whose inputs carry no objectWriteTraceId is done whole or not at all.
func (x *exchange) batch(st *store, op string) *answer {
	if x.r.Method != http.MethodPost {
		return notAllowed()
	}
	raw, refused := x.readBody()
	if refused != nil {
		return refused
	}
	var in batchRequest
	if err := json.Unmarshal(raw, &in); err != nil {
		return badJSON(err)
	}
	if len(in.Inputs) == 0 || len(in.Inputs) > maxBatch {
		return invalid("The inputs must number between 1 and %d, and were %d", maxBatch, len(in.Inputs))
	}
	p := x.access.portal
	p.mu.Lock()
	defer p.mu.Unlock()
	b := &batchRun{x: x, st: st, in: in}
	switch op {
	case "read":
		return b.read()
	case "create":
		return b.create()
	case "update":
		return b.update()
	case "upsert":
		return b.upsert()
	case "archive":
		return b.archive()
	}
	return notThere()
}

// batchRun does the inputs of one batch, with the portal's objects locked.
type batchRun struct {
	x   *exchange
	st  *store
	in  batchRequest
	out batchAnswer
}

func (b *batchRun) fail(in batchInput, category, message string) {
	context := map[string][]string{}
	if in.ID != "" {
		context["ids"] = []string{string(in.ID)}
	}
	if in.TraceID != "" {
		context["objectWriteTraceId"] = []string{in.TraceID}
	}
	b.out.Errors = append(b.out.Errors, batchError{Status: "error", Category: category, Message: message, Context: context})
}

// failWith notes an error answer as the failure of one input.
func (b *batchRun) failWith(in batchInput, a *answer) {
	var e apiError
	if err := json.Unmarshal(a.body, &e); err != nil {
		e.Message = err.Error()
	}
	b.fail(in, e.Category, e.Message)
}

func (b *batchRun) done(v view, in batchInput) {
	v.TraceID = in.TraceID
	b.out.Results = append(b.out.Results, v)
}

func (b *batchRun) answer(status int) *answer {
	b.out.Status = "COMPLETE"
	b.out.NumErrors = len(b.out.Errors)
	b.out.StartedAt = stamp(b.x.now)
	b.out.CompletedAt = stamp(b.x.s.now())
	if b.out.Results == nil {
		b.out.Results = []view{}
	}
	if b.out.NumErrors > 0 {
		status = http.StatusMultiStatus
	}
	return reply(status, b.out)
}

func (b *batchRun) missing(in batchInput) {
	b.fail(in, "OBJECT_NOT_FOUND", "Could not get some "+strings.ToUpper(b.st.kind.singular)+
		" objects, they may be deleted or not exist. Check that ids are valid.")
}

// write checks an input and makes or changes its object; o is nil to make one.
func (b *batchRun) write(in batchInput, o *object) (*object, *answer) {
	p := b.x.access.portal
	if refused := p.check(b.st.kind, in.Properties); refused != nil {
		return nil, refused
	}
	var self int64
	if o != nil {
		self = o.id
	}
	if refused := b.st.conflict(in.Properties, self); refused != nil {
		return nil, refused
	}
	if o == nil {
		return p.createLocked(b.st, in.Properties, b.x.now), nil
	}
	o.set(b.st.kind, in.Properties, b.x.now)
	return o, nil
}

func (b *batchRun) read() *answer {
	for _, in := range b.in.Inputs {
		if o := b.st.find(string(in.ID), b.in.IDProperty); o != nil {
			b.done(o.view(b.st.kind, b.in.Properties), in)
		} else {
			b.missing(in)
		}
	}
	return b.answer(http.StatusOK)
}

func (b *batchRun) create() *answer {
	traced := true
	for _, in := range b.in.Inputs {
		traced = traced && in.TraceID != ""
	}
	if !traced { // whole or not at all: look before the first is made
		emails := map[string]bool{}
		for _, in := range b.in.Inputs {
			if refused := b.x.access.portal.check(b.st.kind, in.Properties); refused != nil {
				return refused
			}
			if refused := b.st.conflict(in.Properties, 0); refused != nil {
				return refused
			}
			email := strings.ToLower(string(in.Properties["email"]))
			if b.st.kind.name == "contacts" && email != "" && emails[email] {
				return invalid("Duplicate property values found in the batch: %s", email)
			}
			emails[email] = true
		}
	}
	for _, in := range b.in.Inputs {
		if o, refused := b.write(in, nil); refused != nil {
			b.failWith(in, refused)
		} else {
			b.done(o.view(b.st.kind, shown(b.st.kind, in.Properties)), in)
		}
	}
	return b.answer(http.StatusCreated)
}

func (b *batchRun) update() *answer {
	for _, in := range b.in.Inputs {
		o := b.st.find(string(in.ID), in.IDProperty)
		if o == nil {
			b.missing(in)
			continue
		}
		if _, refused := b.write(in, o); refused != nil {
			b.failWith(in, refused)
		} else {
			b.done(o.view(b.st.kind, shown(b.st.kind, in.Properties)), in)
		}
	}
	return b.answer(http.StatusOK)
}

func (b *batchRun) upsert() *answer {
	for _, in := range b.in.Inputs {
		o := b.st.find(string(in.ID), in.IDProperty)
		made := o == nil
		if made && in.IDProperty == "" {
			b.missing(in)
			continue
		}
		if made {
			if in.Properties == nil {
				in.Properties = map[string]propValue{}
			}
			in.Properties[in.IDProperty] = in.ID
		}
		o, refused := b.write(in, o)
		if refused != nil {
			b.failWith(in, refused)
			continue
		}
		v := o.view(b.st.kind, shown(b.st.kind, in.Properties))
		v.New = &made
		b.done(v, in)
	}
	return b.answer(http.StatusOK)
}

func (b *batchRun) archive() *answer {
	for _, in := range b.in.Inputs {
		if o := b.st.find(string(in.ID), ""); o != nil {
			o.archivedAt = b.x.now
		} else {
			b.missing(in)
		}
	}
	if b.out.Errors != nil {
		return b.answer(http.StatusMultiStatus)
	}
	return noContent()
}
