package paywall

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Stage is a part of a payment's way that takes time. Each is measured; and where the request is traced, as by Caddy's handler
// `tracing`, each is a span below that of the request. What stands in spans is what stands in logs: ids and codes, no secrets, and of
// errors their codes alone.
type Stage string

// The stages, in the order in which a payment meets them. Not every one meets all.
const (
	StageVerify   Stage = "verify"   // what the payment says, who signed it, whether the ledger knows it and whether our offer wants it
	StageSimulate Stage = "simulate" // whether the chain would take it, before anything is claimed
	StageClaim    Stage = "claim"    // the ledger's claim
	StageSettle   Stage = "settle"   // the transfer, until its outcome is known, or is not known in time
	StageRecord   Stage = "record"   // what the ledger is told before the upstream is asked
	StageIssue    Stage = "issue"    // the credential of a plan, where somebody else issues it
	StageServe    Stage = "serve"    // the upstream, until its answer begins
	StageDeliver  Stage = "deliver"  // what the ledger is told before the answer goes out
	// StagePaid is all of these: from the payment's arrival until the answer may go out. It has no span: that is the request's own.
	StagePaid Stage = "paid"
)

// Stages are all of them.
func Stages() []Stage {
	return []Stage{
		StageVerify, StageSimulate, StageClaim, StageSettle, StageRecord, StageIssue, StageServe, StageDeliver, StagePaid,
	}
}

// tracerName is what the spans say of who made them.
const tracerName = "github.com/caddy-x402/caddy-x402/paywall"

// The attributes of spans.
const (
	attrPayment     = attribute.Key("x402.payment.id")
	attrNetwork     = attribute.Key("x402.network")
	attrOutcome     = attribute.Key("x402.outcome")
	attrError       = attribute.Key("x402.error")
	attrTransaction = attribute.Key("x402.transaction")
	attrStatus      = attribute.Key("http.response.status_code")
)

// span is a stage under way. Its methods may be called on the zero value, and after its end: they then do nothing.
type span struct {
	stage Stage
	began time.Time
	timed func(Stage, time.Duration)
	trace trace.Span // nil where nobody traces
}

// stage begins a stage of what ctx is of. It gives ctx back or, where that is traced, one that is the span's. Where nobody traces, it
// allocates nothing.
func (e *Engine) stage(ctx context.Context, stage Stage, payment string) (context.Context, span) {
	s := span{stage: stage, began: time.Now(), timed: e.current().Timed}
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, s
	}
	ctx, s.trace = parent.TracerProvider().Tracer(tracerName).Start(ctx, "x402."+string(stage))
	if payment != "" {
		s.trace.SetAttributes(attrPayment.String(payment))
	}
	return ctx, s
}

// end ends the stage. code is why it came to nothing, empty if it did not.
func (s *span) end(code string) {
	if s.timed == nil {
		return
	}
	s.timed(s.stage, time.Since(s.began))
	s.timed = nil
	if s.trace == nil {
		return
	}
	if code != "" {
		s.trace.SetAttributes(attrError.String(code))
		s.trace.SetStatus(codes.Error, code)
	}
	s.trace.End()
}

// failed ends the stage with the code of err, which may be nil.
func (s *span) failed(err error) {
	if s.timed == nil || err == nil {
		s.end("")
		return
	}
	s.end(codeOf(err))
}

// on says where the money moves.
func (s *span) on(network string) {
	if s.trace != nil {
		s.trace.SetAttributes(attrNetwork.String(network))
	}
}

// settled ends the stage with what a settler said.
func (s *span) settled(out *settlement.Outcome) {
	if s.trace != nil {
		s.trace.SetAttributes(attrOutcome.String(out.Status.String()))
		if hash := transactionText(out.Transaction); hash != "" {
			s.trace.SetAttributes(attrTransaction.String(hash))
		}
	}
	switch out.Status {
	case settlement.Settled:
		s.end("")
	case settlement.Failed:
		s.end(string(orReason(string(out.Reason))))
	default:
		s.end(codePending)
	}
}

// answered ends the stage with the upstream's status.
func (s *span) answered(status int) {
	if s.trace != nil {
		s.trace.SetAttributes(attrStatus.Int(status))
	}
	if status >= http.StatusInternalServerError {
		s.end(codeUpstream5xx)
		return
	}
	s.end("")
}

// codeOf is what may be told of an error: its code, and never its text, which may be a stranger's.
func codeOf(err error) string {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.code
	}
	if reason := x402.ReasonOf(err); reason != "" {
		return string(reason)
	}
	switch {
	case errors.Is(err, settlement.ErrUnavailable):
		return codeChain
	case errors.Is(err, context.Canceled):
		return codeGone
	case errors.Is(err, ledger.ErrConflict), errors.Is(err, ledger.ErrFence), errors.Is(err, ledger.ErrTransition):
		return codeOvertaken
	}
	return codeStore
}

// Codes of spans alone.
const (
	codeGone      = "client_gone"
	codeOvertaken = "overtaken"
)

// claimed ends the stage of a claim. That a copy of the request was faster is no failure.
func (s *span) claimed(err error) {
	if errors.Is(err, ledger.ErrExists) {
		err = nil
	}
	s.failed(err)
}

// filed tells under which name the payment is in the ledger.
func (a *attempt) filed(payment string) {
	if a.Filed != nil {
		a.Filed(a.r, payment)
	}
}

// timing is what is measured of a request from its arrival on.
type timing struct {
	arrived time.Time
	reading span // StageVerify
}

func (e *Engine) newTiming(ctx context.Context) *timing {
	_, s := e.stage(ctx, StageVerify, "")
	return &timing{arrived: s.began, reading: s}
}

// wasRead ends StageVerify: whatever comes now is no fault of what the payment says.
func (a *attempt) wasRead() {
	if a.timing != nil {
		a.timing.reading.end("")
	}
}

// timePaid notes how long the payer of this request has waited for its answer, which may go out now.
func (a *attempt) timePaid() {
	if a.timing != nil {
		a.engine.current().Timed(StagePaid, time.Since(a.timing.arrived))
	}
}
