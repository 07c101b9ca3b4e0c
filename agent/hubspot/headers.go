package hubspot

import "net/http"

// RequestHeaders is the set of a client's headers that goes on to HubSpot.
func RequestHeaders(in http.Header) (http.Header, error) { return http.Header{}, nil }

// ResponseHeaders is the set of HubSpot's headers that goes on to the client.
func ResponseHeaders(in http.Header) http.Header { return http.Header{} }
