//go:build !linux

package main

import (
	"io"

	"golang.org/x/term"
)

// echoOff leaves it to [readHidden] to turn the echo off, a moment after the
// question is shown.
func echoOff(int) error { return nil }

// readHidden reads a line from a terminal without echo.
func readHidden(fd int, _ io.Reader) (string, error) {
	b, err := term.ReadPassword(fd)
	return string(b), err
}

// flushInput would drop what was typed and not read yet.
func flushInput(int) {}
