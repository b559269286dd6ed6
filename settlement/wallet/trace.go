package wallet

import (
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// travels notes how long a payment has waited for its transaction, and tells whoever traces it which one that is.
func (s *Settler) travels(j *job, p *parcel, waited time.Duration) {
	if f := s.set().Queued; f != nil {
		f(waited)
	}
	span := trace.SpanFromContext(j.ctx)
	if !span.IsRecording() {
		return
	}
	span.AddEvent("x402.sent", trace.WithAttributes(
		attribute.String("x402.transaction", p.first.Hash.Hex()),
		attribute.Int64("x402.nonce", int64(min(p.nonce, 1<<62))),
		attribute.Int("x402.batch", len(p.first.Payments)),
		attribute.Int64("x402.queued_ms", waited.Milliseconds()),
	))
}
