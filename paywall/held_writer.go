package paywall

import (
	"net/http"
	"time"
)

// How an answer that is held back is an http.ResponseWriter.

// Header is the answer's own until it goes out: an answer that is refused leaves no trace.
func (h *heldAnswer) Header() http.Header { return h.header }

func (h *heldAnswer) WriteHeader(status int) {
	if h.status != 0 || h.ended || informational(status) {
		return
	}
	d := h.d
	if d.call.Err() != nil || d.answered != nil && d.attempt.r.Context().Err() != nil {
		h.callOff()
		d.ResponseWriter.WriteHeader(statusClientGone) // for the access log
		return
	}
	h.status, h.sent = status, h.header.Clone()
	d.asking.answered(status)
	switch {
	case status == http.StatusSwitchingProtocols: // nobody asked for that
		h.void(reasonUpgraded)
		h.refuse(badUpstream("the answer takes over the connection").of(d.payment.ID))
	case status >= http.StatusBadRequest:
		h.voidBy(status)
		h.pass(d.ResponseWriter)
	default:
		if d.answered != nil {
			d.answered()
		}
		if isEvents(h.sent.Get("Content-Type")) {
			h.pay()
		}
	}
}

func (h *heldAnswer) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	switch {
	case h.ended:
		return 0, errDiscarded
	case h.to != nil:
		return h.to.Write(b)
	case !hasBody(h.d.attempt.r.Method, h.status):
		return len(b), nil
	case len(h.body)+len(b) > h.most || !h.take(len(b)):
		if !h.pay() {
			return 0, errDiscarded
		}
		return h.to.Write(b)
	}
	h.body = append(h.body, b...)
	return len(b), nil
}

func (h *heldAnswer) take(n int) bool {
	if !h.d.attempt.engine.answers.take(n) {
		return false
	}
	h.taken += n
	return true
}

func (h *heldAnswer) giveBack() {
	h.d.attempt.engine.answers.giveBack(h.taken)
	h.taken, h.body = 0, nil
}

// Flush does nothing while the answer is held: proxies flush whatever has no length.
func (h *heldAnswer) Flush() { _ = h.FlushError() }

// FlushError is Flush for those who know http.ResponseController.
func (h *heldAnswer) FlushError() error {
	h.WriteHeader(http.StatusOK)
	switch {
	case h.ended:
		return errDiscarded
	case h.to == nil:
		return nil
	}
	return http.NewResponseController(h.to).Flush()
}

// SetReadDeadline is the connection's.
func (h *heldAnswer) SetReadDeadline(t time.Time) error {
	return http.NewResponseController(h.d.ResponseWriter).SetReadDeadline(t)
}

// SetWriteDeadline is the connection's.
func (h *heldAnswer) SetWriteDeadline(t time.Time) error {
	return http.NewResponseController(h.d.ResponseWriter).SetWriteDeadline(t)
}

// EnableFullDuplex is the connection's.
func (h *heldAnswer) EnableFullDuplex() error {
	return http.NewResponseController(h.d.ResponseWriter).EnableFullDuplex()
}
