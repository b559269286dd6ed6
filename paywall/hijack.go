package paywall

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// Hijack commits the delivery before the connection is taken over: from there on nobody sees a status.
func (d *deliveryWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	switch {
	case d.decided:
	case d.call.Err() != nil:
		d.callOff()
	default:
		d.decide(http.StatusSwitchingProtocols, false)
	}
	if d.discarded {
		return nil, nil, errDiscarded
	}
	return http.NewResponseController(d.ResponseWriter).Hijack()
}

// ReadFrom keeps the server's fast path for bodies.
func (d *deliveryWriter) ReadFrom(r io.Reader) (int64, error) {
	d.WriteHeader(http.StatusOK)
	if d.discarded {
		return 0, errDiscarded
	}
	return readFrom(d.ResponseWriter, r)
}
