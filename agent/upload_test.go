package agent

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A silentCaller has announced a body and sends nothing of it. Reading ends
// with the deadline alone.
type silentCaller struct {
	http.ResponseWriter
	once  sync.Once
	ended chan struct{}
}

func (c *silentCaller) EnableFullDuplex() error { return nil }

func (c *silentCaller) SetReadDeadline(time.Time) error {
	c.once.Do(func() { close(c.ended) })
	return nil
}

func (c *silentCaller) Read([]byte) (int, error) {
	<-c.ended
	return 0, errors.New("the deadline has passed")
}

// Where an answer comes before its request's body was even begun, whoever is
// about to read the body does not keep the call from its end.
func TestUploadEndsAsItBegins(t *testing.T) {
	for range 30_000 {
		c := &silentCaller{ended: make(chan struct{})}
		u := &upload{src: c, length: 10, limit: 10}
		end := u.begin(c)
		body := u.attempt()
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, err := io.ReadFull(body, make([]byte, 10))
			assert.Error(t, err)
		}()
		end()
		<-read
	}
}
