package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/itchyny/gojq"

	"github.com/hsagent/hsagentd/wire"
)

// A jqFilter is a compiled jq expression.
type jqFilter struct{ code *gojq.Code }

// compileJQ compiles expr; "" is no filter. The expression reads its input and
// nothing else: no environment, no files.
func compileJQ(expr string) (*jqFilter, error) {
	if expr == "" {
		return nil, nil
	}
	q, err := gojq.Parse(expr)
	if err != nil {
		return nil, usagef("--jq %s: %w", wire.Quote(expr), err)
	}
	code, err := gojq.Compile(q)
	if err != nil {
		return nil, usagef("--jq %s: %w", wire.Quote(expr), err)
	}
	return &jqFilter{code}, nil
}

// apply runs the filter over every JSON value of r and writes its outputs, one
// a line: strings raw, all else as JSON.
func (f *jqFilter) apply(r io.Reader, w io.Writer) error {
	out := bufio.NewWriter(w)
	dec := json.NewDecoder(r)
	dec.UseNumber() // object IDs are longer than a float holds
	for {
		var v any
		err := dec.Decode(&v)
		if errors.Is(err, io.EOF) {
			return out.Flush()
		}
		if err != nil {
			return fmt.Errorf("--jq: the answer is not JSON: %w", err)
		}
		if err := f.one(v, out); err != nil {
			return errors.Join(out.Flush(), err)
		}
	}
}

func (f *jqFilter) one(v any, out *bufio.Writer) error {
	results := f.code.Run(v)
	for {
		v, ok := results.Next()
		if !ok {
			return nil
		}
		if err, isErr := v.(error); isErr {
			var halt *gojq.HaltError
			if errors.As(err, &halt) && halt.Value() == nil {
				return nil
			}
			return fmt.Errorf("--jq: %w", err)
		}
		s, isString := v.(string)
		if !isString {
			b, err := gojq.Marshal(v)
			if err != nil {
				return fmt.Errorf("--jq: %w", err)
			}
			s = string(b)
		}
		if _, err := out.WriteString(s + "\n"); err != nil {
			return err
		}
	}
}
