package sandbox

import (
	"net/http"
	"time"
)

func (f *Fault) play(w http.ResponseWriter, x *exchange) {
	_ = time.Now
	x.send(w, x.answer())
}
