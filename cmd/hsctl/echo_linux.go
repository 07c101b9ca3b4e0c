package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// echoOff turns a terminal's echo off and leaves all else as it is. The caller
// restores the terminal's state.
func echoOff(fd int) error {
	modes, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("read the terminal's state: %w", err)
	}
	modes.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, modes); err != nil {
		return fmt.Errorf("turn the terminal's echo off: %w", err)
	}
	return nil
}

// readHidden reads a line from a terminal whose echo is off. It changes nothing
// of the terminal's state: an interruption restores that while a read goes on.
func readHidden(_ int, r io.Reader) (string, error) {
	line, err := bufio.NewReader(r).ReadString('\n')
	if errors.Is(err, io.EOF) && line != "" {
		err = nil
	}
	return strings.TrimSuffix(line, "\n"), err
}

// flushInput drops what was typed and not read yet.
func flushInput(fd int) {
	_ = unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH) // else it is read, and shows
}
