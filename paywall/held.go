package paywall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The flow authorization: the upstream is asked first, its answer is held back while the money moves, and goes out with the
// receipt. Whoever dies in between loses the answer with its memory, and then
//   - what was not sent costs nothing: a GET may be asked again with the same header, anything else is void, because the
//     upstream may have done it;
//   - what was sent is found settled or failed as ever; settled, a GET is asked again and anything else goes back.
//
// An answer that is longer than what may be held, or is a stream, is paid for as soon as that is known, while the upstream
// waits; the rest streams. So nothing goes out unpaid, and nobody is refused for an answer that turned out long.

const (
	statusVoid      = "void"
	reasonUpgraded  = "upstream_upgraded"
	reasonCutOff    = "upstream_cut_off"
	upstreamStatus  = "upstream_status_" // and the status
	codeBadUpstream = "bad_upstream"
)

// leastLeft is how much of its validity an authorization must have left for the upstream to be asked first. What has less, because its
// client has come back late, is settled at once, which refuses what is over.
const leastLeft = 10 * time.Second

// servesFirst reports whether the upstream is asked before p is settled. What was sent already is settled first.
func (a *attempt) servesFirst(p *ledger.Payment) bool {
	if p.Flow != ledger.FlowAuthorization || p.Settlement != ledger.Claimed {
		return false
	}
	now := a.engine.current().Now().Add(leastLeft).Unix()
	return now >= 0 && p.ValidBefore >= uint64(now)
}

// serveFirst asks the upstream for what p is to pay for. p is claimed, and this request holds it.
func (a *attempt) serveFirst(p ledger.Payment) error {
	faultpoint.Reached("claimed")
	ctx, cancel := a.detached()
	defer cancel()
	q, err := a.begin(ctx, p)
	fence := p.Hold.Fence
	switch {
	case err != nil:
		return unavailable(codeStore, err).of(p.ID)
	case q.Hold.Fence != fence:
		return busy(p.ID) // overtaken
	}
	faultpoint.Reached("delivering")
	if a.r.Context().Err() != nil {
		d := &deliveryWriter{attempt: a, payment: q, fence: fence, stopKeeping: func() {}, call: a.r.Context()}
		d.callOff()
		return nil
	}
	if q.Settlement == ledger.Settled { // its payer, or a stranger, has executed it
		return a.forward(q)
	}
	return a.hold(q)
}

// begin records that the upstream is being asked for p. What comes back has another fence where somebody has overtaken this request.
func (a *attempt) begin(ctx context.Context, p ledger.Payment) (ledger.Payment, error) {
	_, s := a.engine.stage(ctx, StageRecord, p.ID)
	fence, ttl := p.Hold.Fence, a.engine.current().HoldTTL
	q, err := a.engine.update(ctx, p, func(p ledger.Payment) []ledger.Change {
		if p.Hold.Fence != fence {
			return nil
		}
		return []ledger.Change{{Event: ledger.EventDeliver, Actor: actorRequest, Fence: fence, Hold: ttl}}
	})
	s.failed(err)
	return q, err
}

// hold calls the upstream with a writer that holds its answer back.
func (a *attempt) hold(p ledger.Payment) (err error) {
	d, r, err := a.delivery(p)
	if err != nil {
		return err
	}
	defer d.end()
	d.held = true
	h := &heldAnswer{d: d, out: d, header: make(http.Header), most: a.Route.Held}
	maps.Copy(h.header, d.ResponseWriter.Header())
	if a.keyed() {
		d.copied = a.record(d, p.ID, d.follow)
		h.out = d.copied
	}
	defer h.giveBack()
	defer func() {
		v := recover()
		aborted, _ := v.(error)
		switch {
		case v == nil:
		case h.instead != nil && errors.Is(aborted, http.ErrAbortHandler): // the handler gave up since its answer was refused
			err = h.instead
		default:
			h.abort(v)
			panic(v) //nolint:forbidigo // see forward
		}
	}()
	ended := a.next(h, r)
	err = h.finish(ended)
	if h.paid {
		d.keep(ended)
	}
	return err
}

// heldAnswer holds an answer back until it is paid for. What the upstream refuses, by a status of 400 and above, costs nothing and
// goes out as it comes.
type heldAnswer struct {
	d    *deliveryWriter
	out  http.ResponseWriter // where a paid answer goes: d, or the recording around it
	most int

	header http.Header // as the handler sees it
	status int         // 0: there is no answer yet
	sent   http.Header // the header when the status was written
	body   []byte
	taken  int // of the engine's room

	to      http.ResponseWriter // where what follows goes; nil while it is held
	paid    bool                // it goes out since it was paid for
	ended   bool                // nothing goes out
	instead error               // what is answered in place of it; nil if that was done, or nobody is there
}

// pay moves the money for the answer, and lets go what is held of it once it has come. It reports whether the rest may follow.
func (h *heldAnswer) pay() bool {
	d, a := h.d, h.d.attempt
	faultpoint.Reached("served")
	client := a.r.Context()
	if !replayable(a.r.Method) || a.keyed() { // done is done: the answer is for whoever comes back, if anybody can
		client = context.WithoutCancel(client)
	}
	out, left := a.engine.settlePatiently(client, d.payment, a.payee, a.intent(&d.payment))
	ctx, cancel := a.detached()
	defer cancel()
	switch {
	case left:
		h.end()
		a.leave(ctx, d.payment, out)
		d.ResponseWriter.WriteHeader(statusClientGone) // for the access log
	case out.Status == settlement.Settled:
		faultpoint.Reached("settled")
		d.out = out
		h.release()
	case out.Status == settlement.Failed:
		h.unpaid(ctx, out)
	default:
		a.Logger.Warn("a settlement's outcome is unknown", slog.String("payment", d.payment.ID), slog.Any("error", out.Err))
		d.stopKeeping()
		a.engine.release(d.payment, d.fence)
		h.refuse(busy(d.payment.ID).because(out.Err).after(out.Wait))
	}
	return !h.ended
}

// release lets a paid answer go.
func (h *heldAnswer) release() {
	d, a := h.d, h.d.attempt
	h.paid = true
	h.pass(h.out)
	if d.discarded {
		h.end()
		return
	}
	if a.Granted != nil {
		a.Granted(a.r, a.grantOf(&d.payment))
	}
	a.decided("paid", "")
}

// pass writes what is held to w, and lets the rest follow.
func (h *heldAnswer) pass(w http.ResponseWriter) {
	header := h.d.ResponseWriter.Header()
	clear(header)
	maps.Copy(header, h.sent)
	if !h.paid {
		h.markVoid(header)
	}
	h.to = w
	w.WriteHeader(h.status)
	if len(h.body) > 0 && !h.d.discarded {
		if _, err := w.Write(h.body); err != nil {
			h.d.attempt.Logger.Debug("writing an answer", slog.Any("error", err)) // its client has left
		}
	}
	h.giveBack()
}

// markVoid says on an answer that it cost nothing; or that its payment goes back, where somebody has executed it meanwhile.
func (h *heldAnswer) markVoid(header http.Header) {
	p := &h.d.payment
	cleanResponse(header)
	markPrivate(header)
	if p.Refund != ledger.NotRefunded {
		h.d.attempt.addReceipt(header, p)
		header.Set(headerPaymentStatus, statusRefundPending)
		return
	}
	header.Set(headerPaymentID, p.ID)
	header.Set(headerPaymentStatus, statusVoid)
}

// unpaid is for an answer whose payment failed: the upstream has worked for nothing. A payer that makes a habit of it is slowed
// down.
func (h *heldAnswer) unpaid(ctx context.Context, out settlement.Outcome) {
	d, a := h.d, h.d.attempt
	d.stopKeeping()
	a.charge()
	q, err := a.engine.update(ctx, d.payment, func(p ledger.Payment) []ledger.Change {
		cs := outcomeChanges(p, out, actorRequest)
		if p.Hold.Fence == d.fence && p.Delivery == ledger.Delivering && len(cs) > 0 && cs[0].Event == ledger.EventFail {
			cs = append([]ledger.Change{{
				Event: ledger.EventUndelivered, Actor: actorRequest, Fence: d.fence, Reason: string(out.Reason),
			}}, cs...)
		}
		return cs
	})
	switch {
	case err != nil:
		h.refuse(unavailable(codeStore, err).of(d.payment.ID))
	case q.Settlement != ledger.Settled:
		a.engine.current().Observe(Observation{Event: "delivery", Outcome: "unpaid", Reason: string(out.Reason)})
		h.refuse(refuse(x402.Refuse(orReason(string(out.Reason)), "the transfer failed and charged nothing")).settled(q.ID, out))
	case q.Hold.Fence != d.fence || !q.Unserved():
		h.refuse(busy(q.ID))
	default: // somebody else has seen the money: it is not for us to deny it
		d.payment = q
		h.release()
	}
}

// charge counts a request that made the upstream work for nothing against its client's allowance.
func (a *attempt) charge() {
	a.engine.limits.spend(clientKey(a.Client), refusedUnits, time.Now())
}

// void gives the payment up, so that nothing is charged.
func (h *heldAnswer) void(reason string) {
	d, a := h.d, h.d.attempt
	d.stopKeeping()
	d.copied = nil // the answer is nobody's but this client's
	if err := d.commit(ledger.Change{Event: ledger.EventUndelivered, Actor: actorRequest, Fence: d.fence, Reason: reason}); err != nil {
		a.Logger.Error("a payment could not be given up; the reconciler will", slog.String("payment", d.payment.ID), slog.Any("error", err))
	}
}

// voidBy is void for an answer of the upstream's that goes out.
func (h *heldAnswer) voidBy(status int) {
	reason := upstreamStatus + strconv.Itoa(status)
	h.void(reason)
	if h.d.payment.Refund != ledger.NotRefunded {
		h.d.attempt.decided("paid", reason)
		return
	}
	h.d.attempt.decided(statusVoid, reason)
}

// end lets nothing more out.
func (h *heldAnswer) end() {
	h.ended, h.d.decided, h.d.discarded = true, true, true
	h.d.stopKeeping()
	h.giveBack()
}

// refuse answers with r in place of the answer, when the handler has ended.
func (h *heldAnswer) refuse(r *refusal) {
	h.end()
	h.instead = r
}

// callOff is for a client that left before there was an answer.
func (h *heldAnswer) callOff() {
	h.d.callOff()
	h.end()
}

// finish ends an answer whose handler has returned err.
func (h *heldAnswer) finish(err error) error {
	d := h.d
	switch {
	case h.ended:
		return h.instead
	case h.to != nil:
		h.trailers()
		return err
	case err != nil && d.call.Err() != nil:
		h.callOff()
		return err
	case err != nil && h.status == 0: // whoever handles the error writes the answer; what we add to the header stays
		d.asking.answered(d.attempt.ErrorStatus(err))
		h.voidBy(d.attempt.ErrorStatus(err))
		h.end()
		h.markVoid(d.ResponseWriter.Header())
		return err
	}
	h.WriteHeader(http.StatusOK)
	if h.to == nil && !h.ended {
		if err != nil || h.broken() {
			h.void(reasonCutOff)
			h.refuse(badUpstream("the answer ended before its length").of(d.payment.ID).because(err))
		} else if h.pay() {
			h.trailers()
		}
	}
	return h.instead
}

// broken reports whether the answer is not as long as it says.
func (h *heldAnswer) broken() bool {
	length := h.sent.Get("Content-Length")
	return length != "" && hasBody(h.d.attempt.r.Method, h.status) && length != strconv.Itoa(len(h.body))
}

// trailers hands on what the handler set after the header: what it announced, and what it marked.
func (h *heldAnswer) trailers() {
	header := h.d.ResponseWriter.Header()
	for name, values := range h.header {
		if strings.HasPrefix(name, http.TrailerPrefix) || listed(h.sent["Trailer"], name) {
			header[name] = values
		}
	}
}

// abort is finish for a handler that panicked.
func (h *heldAnswer) abort(v any) {
	switch {
	case h.ended:
	case h.to != nil:
		if h.paid {
			h.d.keep(&panicError{v})
		}
	case h.d.call.Err() != nil:
		h.callOff()
	default:
		h.void(reasonAborted)
		h.end()
	}
}

// badUpstream is for an answer that nobody could use; nothing was charged for it.
func badUpstream(why string) *refusal {
	return &refusal{
		status: http.StatusBadGateway, code: codeBadUpstream,
		detail: fmt.Sprintf("the upstream's answer is of no use: %s; nothing was charged", why),
	}
}
