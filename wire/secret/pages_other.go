//go:build !linux

package secret

// mapPages returns n zeroed bytes. Only Linux's pages are known here.
func mapPages(n int) ([]byte, Kind) { return make([]byte, n), Plain }

func unmapPages([]byte) {}
