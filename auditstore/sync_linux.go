package auditstore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes the data of f durable.
func datasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
