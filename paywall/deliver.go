package paywall

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// settle makes the transfer of a payment that this request holds, and delivers it.
func (a *attempt) settle(p ledger.Payment) error {
	fence := p.Hold.Fence
	stop := a.engine.keep(a.r.Context(), p.ID, fence)
	faultpoint.Reached("claimed")
	out, left := a.engine.settle(a.r.Context(), p, a.payee, a.intent(&p))
	stop()

	ctx, cancel := a.detached()
	defer cancel()
	if left {
		a.leave(ctx, p, out)
		return nil
	}
	switch out.Status {
	case settlement.Settled:
		faultpoint.Reached("settled")
		return a.deliver(p, out)
	case settlement.Failed:
		q, err := a.engine.record(ctx, p, out, actorRequest)
		switch {
		case err != nil:
			return unavailable(codeStore, err).of(p.ID)
		case q.Settlement == ledger.Settled: // somebody else has seen the money: it is not for us to deny it
			return a.deliverSettled(q, fence)
		}
		return refuse(x402.Refuse(orReason(string(out.Reason)), "the transfer failed and charged nothing")).settled(p.ID, out)
	}
	a.Logger.Warn("a settlement's outcome is unknown", slog.String("payment", p.ID), slog.Any("error", out.Err))
	a.engine.release(p, fence)
	return busy(p.ID).because(out.Err).after(out.Wait)
}

// deliverSettled is for a payment that turned out to be settled while this request held it under fence.
func (a *attempt) deliverSettled(p ledger.Payment, fence uint64) error {
	if p.Hold.Fence != fence || !p.Unserved() {
		return busy(p.ID)
	}
	return a.deliver(p, settlement.Outcome{})
}

// leave is what a request does whose client has gone: it writes what is known and lets go of the payment.
func (a *attempt) leave(ctx context.Context, p ledger.Payment, out settlement.Outcome) {
	q, err := a.engine.record(ctx, p, out, actorRequest)
	if err != nil {
		a.Logger.Error("writing an outcome failed; the reconciler will", slog.String("payment", p.ID), slog.Any("error", err))
		q = p
	}
	a.engine.release(q, p.Hold.Fence)
}

// detached is for writes that must happen whether or not the client is still there.
func (a *attempt) detached() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(a.r.Context()), writeTimeout)
}

// deliver gives the holder of a paid payment what it paid for. out is what its settler just said, not
// yet written; zero if the ledger has it.
func (a *attempt) deliver(p ledger.Payment, out settlement.Outcome) error {
	ctx, cancel := a.detached()
	defer cancel()
	if a.r.Context().Err() != nil {
		a.leave(ctx, p, out)
		return nil
	}
	fence := p.Hold.Fence
	ttl := a.engine.current().HoldTTL
	steps := []ledger.Change{{Event: ledger.EventDeliver, Actor: actorRequest, Fence: fence, Hold: ttl}}
	if p.Binding.Plan != "" {
		plan := a.plan(p.Binding.Plan)
		if plan == nil {
			a.leave(ctx, p, out)
			return refuse(x402.Refuse(ReasonPlanOver, "the plan %q is not sold here any more", p.Binding.Plan)).of(p.ID)
		}
		if plan.Granter != nil {
			settled := func() (ledger.Payment, error) { return a.engine.record(ctx, p, out, actorRequest) }
			return a.deliverIssued(p, settled, plan)
		}
		steps = append(steps, ledger.Change{
			Event: ledger.EventDelivered, Actor: actorRequest, Fence: fence, PlanUntil: a.planUntil(plan),
		})
	}
	_, s := a.engine.stage(ctx, StageRecord, p.ID)
	q, err := a.engine.record(ctx, p, out, actorRequest, steps...)
	s.failed(err)
	if err != nil {
		return unavailable(codeStore, err).of(p.ID)
	}
	if q.Hold.Fence != fence {
		return busy(p.ID) // overtaken; whoever holds it now delivers it
	}
	if q.Binding.Plan != "" {
		a.observeDelivery(string(ledger.Delivered), "")
		return a.servePlan(q, true)
	}
	faultpoint.Reached("delivering")
	if a.r.Context().Err() != nil { // the client left while the ledger wrote: nobody waits for what the upstream would do
		d := &deliveryWriter{attempt: a, payment: q, fence: fence, stopKeeping: func() {}, call: a.r.Context()}
		d.callOff()
		return nil
	}
	return a.forward(q)
}

func (a *attempt) decided(outcome, reason string) {
	if a.Decided != nil {
		a.Decided(a.r, outcome, reason)
	}
}

func (a *attempt) plan(name string) *Plan {
	for i := range a.Route.Plans {
		if a.Route.Plans[i].Name == name {
			return &a.Route.Plans[i]
		}
	}
	return nil
}

// forward asks the upstream for what p paid for. The answer passes through a deliveryWriter, which commits
// the delivery before the first byte.
func (a *attempt) forward(p ledger.Payment) (err error) {
	d, r, err := a.delivery(p)
	if err != nil {
		return err
	}
	defer d.end()
	if p.Settlement == ledger.Settled {
		a.decided("paid", "")
	}
	var w http.ResponseWriter = d
	if a.keyed() {
		d.copied = a.record(d, p.ID, d.follow)
		w = d.copied
	}
	defer func() {
		if v := recover(); v != nil {
			d.abort(&panicError{v})
			d.keep(&panicError{v})
			panic(v) //nolint:forbidigo // http.ErrAbortHandler of the upstream's handler means to abort the connection
		}
	}()
	err = a.next(w, r)
	defer d.keep(err)
	return d.finish(err)
}

// delivery prepares the call of the upstream for p, which this request holds: what the upstream is told, and how long it may go on
// when the client has left. The writer's end must follow.
func (a *attempt) delivery(p ledger.Payment) (*deliveryWriter, *http.Request, error) {
	if err := a.granted(a.grantOf(&p)); err != nil {
		a.engine.release(p, p.Hold.Fence)
		return nil, nil, unavailable(codeToken, err).of(p.ID)
	}
	d := &deliveryWriter{ResponseWriter: a.w, attempt: a, payment: p, fence: p.Hold.Fence}
	d.stopKeeping = a.engine.keep(a.r.Context(), p.ID, d.fence)
	if a.keyed() {
		a.withoutEncoding()
	}
	r, follow := a.r, func() {}
	switch {
	case !replayable(a.r.Method):
		r, follow = detachUntilDecided(a.r)
	case a.keyed():
		r, d.answered, follow = detachOnceAnswered(a.r)
	}
	d.follow, d.call = follow, r.Context()
	_, d.asking = a.engine.stage(r.Context(), StageServe, p.ID)
	return d, r, nil
}

// deliveryWriter is the point of no return. It decides at the first status that is not informational, writes
// the decision to the ledger, and only then lets anything through. It buffers nothing.
type deliveryWriter struct {
	http.ResponseWriter
	attempt     *attempt
	payment     ledger.Payment
	fence       uint64
	stopKeeping func()
	answered    func() // called when there is an answer; may be nil
	follow      func()
	call        context.Context // of the call of the upstream
	copied      *recording      // of the answer; nil without a key

	asking span // StageServe

	held bool               // the answer was held back until it was paid for: see heldAnswer
	out  settlement.Outcome // of its payment, to be written with the decision; zero if the ledger has it

	decided   bool
	lost      bool // there was no answer, and there will be none
	discarded bool // nothing of the answer goes out: its delivery could not be committed, or nobody is there to read it
}

// errDiscarded tells the upstream's handler that nobody reads its answer.
var errDiscarded = errors.New("paywall: the delivery could not be committed, the answer was discarded")

// Unwrap lets http.ResponseController reach what this writer does not change.
func (d *deliveryWriter) Unwrap() http.ResponseWriter { return d.ResponseWriter }

func (d *deliveryWriter) WriteHeader(status int) {
	if d.decided {
		return
	}
	if informational(status) {
		return // nothing goes out before the decision, not even a hint
	}
	if !d.held && (d.call.Err() != nil || d.answered != nil && d.attempt.r.Context().Err() != nil) {
		d.callOff()
		d.ResponseWriter.WriteHeader(statusClientGone) // for the access log
		return
	}
	d.decide(status, false)
	if !d.discarded {
		d.ResponseWriter.WriteHeader(status)
	}
}

func (d *deliveryWriter) Write(b []byte) (int, error) {
	d.WriteHeader(http.StatusOK)
	if d.discarded {
		return 0, errDiscarded
	}
	return d.ResponseWriter.Write(b)
}

// FlushError commits before the flush does it by itself.
func (d *deliveryWriter) FlushError() error {
	d.WriteHeader(http.StatusOK)
	if d.discarded {
		return errDiscarded
	}
	return http.NewResponseController(d.ResponseWriter).Flush()
}

// Flush is FlushError for those who only know http.Flusher.
func (d *deliveryWriter) Flush() { _ = d.FlushError() }

// statusClientGone is what access logs show of requests whose client left before the answer.
const statusClientGone = 499

// callOff is for a call of the upstream whose context ended before there was an answer, whatever the handler makes of
// that: the client has left and got nothing. It may come back for what can be asked again; the rest is lost.
func (d *deliveryWriter) callOff() {
	d.decided, d.discarded = true, true
	d.asking.end(codeGone)
	d.stopKeeping()
	if d.payment.Settlement != ledger.Settled {
		d.attempt.charge()
	}
	if replayable(d.attempt.r.Method) {
		d.attempt.engine.release(d.payment, d.fence)
		return
	}
	d.lose(d.call.Err())
}

// lose records that nobody will ever get the answer.
func (d *deliveryWriter) lose(cause error) {
	d.lost = true
	err := d.commit(ledger.Change{Event: ledger.EventUndelivered, Actor: actorRequest, Fence: d.fence, Reason: reasonAborted})
	if err != nil {
		d.attempt.Logger.Error("an aborted delivery could not be written; the reconciler will", slog.String("payment", d.payment.ID),
			slog.Any("error", err), slog.Any("cause", cause))
	}
}

// decide commits what an answer of this status means for the payment. failed: there is none yet, see undelivered.
func (d *deliveryWriter) decide(status int, failed bool) {
	d.decided = true
	d.asking.answered(status)
	if d.answered != nil {
		d.answered()
	}
	d.stopKeeping()
	c := ledger.Change{Event: ledger.EventDelivered, Actor: actorRequest, Fence: d.fence}
	if d.undelivered(status, failed) {
		c.Event, c.Reason = ledger.EventUndelivered, upstreamStatus+strconv.Itoa(status)
	}
	faultpoint.Reached("answered")
	_, s := d.attempt.engine.stage(d.attempt.r.Context(), StageDeliver, d.payment.ID)
	err := d.commit(c)
	s.failed(err)
	if err != nil {
		d.discard(err)
		return
	}
	d.attempt.timePaid()
	faultpoint.Reached("delivered")
	if d.copied == nil || !d.copied.whole() {
		d.follow() // else the work goes on, for when the client comes back
	}
	cleanResponse(d.Header())
	markPrivate(d.Header())
	d.tell()
}

// tell says on the answer what became of its payment, and sees to it that what is owed is settled.
func (d *deliveryWriter) tell() {
	a, p, h := d.attempt, &d.payment, d.Header()
	a.repaid()
	if p.Settlement == ledger.Void {
		h.Set(headerPaymentID, p.ID)
		h.Set(headerPaymentStatus, statusVoid)
		a.decided(statusVoid, p.Reason)
		return
	}
	a.addReceipt(h, p)
	switch {
	case p.Delivery == ledger.Undelivered:
		h.Set(headerPaymentStatus, statusRefundPending)
	case p.State() == ledger.StateOwed:
		h.Set(headerPaymentStatus, statusOwed)
		a.decided(statusOwed, "")
		a.engine.collect(a.r.Context(), *p, a.payee, a.intent(p), a.loan)
	}
}

// discard answers 503 in place of an answer whose delivery is not on record: the payment can still be
// served, or will be held for refund.
func (d *deliveryWriter) discard(cause error) {
	d.discarded = true
	h := d.Header()
	clear(h)
	d.attempt.Logger.Error("an answer was discarded", slog.String("payment", d.payment.ID), slog.Any("error", cause))
	_ = d.attempt.answerOn(d.ResponseWriter, unavailable(codeStore, cause).of(d.payment.ID))
}

// finish decides what the upstream's handler left open when it returned err.
func (d *deliveryWriter) finish(err error) error {
	switch {
	case errors.Is(err, errDiscarded):
		return nil // what the client gets instead is written already
	case d.decided:
		return err
	case err == nil:
		d.WriteHeader(http.StatusOK)
		return nil
	case d.call.Err() != nil:
		d.callOff()
		return err
	}
	// Whoever handles the error writes the status; what we add to the header stays.
	d.decide(d.attempt.ErrorStatus(err), true)
	if d.discarded {
		return nil
	}
	return err
}

// abort is finish for a handler that panicked.
func (d *deliveryWriter) abort(cause error) {
	if d.decided {
		return
	}
	if d.call.Err() != nil {
		d.callOff()
		return
	}
	d.decided = true
	d.stopKeeping()
	d.lose(cause)
}

// end lets go of what the writer holds.
func (d *deliveryWriter) end() {
	d.asking.end(reasonAborted)
	d.stopKeeping()
	d.follow()
}

// deliveryOutcome is void where nothing was charged for what was not delivered.
func deliveryOutcome(p *ledger.Payment) string {
	if p.Settlement == ledger.Void {
		return statusVoid
	}
	return string(p.Delivery)
}

func (a *attempt) observeDelivery(outcome, reason string) {
	a.engine.current().Observe(Observation{Event: "delivery", Outcome: outcome, Reason: reason})
}
