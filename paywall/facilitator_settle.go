package paywall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// verify says whether the payment would be settled now. It writes nothing.
func (c *call) verify() error {
	ctx := c.r.Context()
	id := c.id()
	p, err := c.engine.store.ByAuthorization(ctx, id)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
	case err != nil:
		return unavailable(codeStore, err)
	case !c.mine(&p) || p.Settlement == ledger.Settled:
		return c.no(errUsed(), c.payer())
	case over(&p): // whatever the chain would do now, it is not settled any more
		return c.no(gaveUp(&p), c.payer())
	}
	if _, err := c.check(ctx); err != nil {
		return c.refused(err)
	}
	return c.write(http.StatusOK, "valid", x402.VerifyResponse{IsValid: true, Payer: c.payer().Hex()})
}

// refused answers what judge and check found.
func (c *call) refused(err error) error {
	if x402.ReasonOf(err) == "" {
		return unavailable(codeChain, err)
	}
	return c.no(err, c.payer())
}

// id is what the payment's authorization is known by for ever.
func (c *call) id() x402.AuthorizationID {
	n := c.offer.Payee.Network
	return c.order.Payload.Authorization.ID(n.ChainID, n.Asset.Address)
}

// mine reports whether p is of this very order, and of who asks: what was claimed for anything else, here or at a paywall, or for
// another key, pays for that.
func (c *call) mine(p *ledger.Payment) bool {
	return p.Facilitated() && p.HeaderHash == c.order.Hash && p.HeaderHash != (common.Hash{}) && sameAuthorization(p, c.id()) &&
		p.Binding.Route == ledger.Text(c.route())
}

// route is what the payments of who asks are filed under.
func (c *call) route() string {
	if c.caller == "" {
		return c.Name
	}
	return c.Name + "#" + c.caller
}

// over reports whether p came to nothing, and is not sent any more.
func over(p *ledger.Payment) bool {
	return p.Settlement == ledger.Failed || p.Settlement == ledger.Void
}

func gaveUp(p *ledger.Payment) error {
	return x402.Refuse(orReason(p.Reason), "the authorization was not settled; sign a new one")
}

// check judges the payment by its requirements, and asks the chain whether it would be executed now. head is good for its claim.
func (c *call) check(ctx context.Context) (head uint64, err error) {
	terms := x402.Terms{
		Network: c.offer.Payee.Network, MinRemaining: max(c.MinRemaining, c.offer.MinRemaining), MaxValidity: c.MaxValidity,
	}
	if _, err := c.order.Verify(terms, c.signer, c.engine.current().Now()); err != nil {
		return 0, err
	}
	ctx, s := c.engine.stage(ctx, StageSimulate, "")
	s.on(c.offer.Payee.Network.ID)
	head, err = c.offer.Payee.Settler.Check(ctx, c.intent(nil))
	s.failed(err)
	return head, err
}

func (c *call) intent(p *ledger.Payment) settlement.Intent {
	in := settlement.Intent{
		Network: c.offer.Payee.Network, Authorization: c.order.Payload.Authorization, Signature: c.order.Payload.Signature,
		Proven: c.signer.Proven,
	}
	if p != nil {
		in.Payment, in.ClaimBlock, in.Finality = p.ID, p.ClaimBlock, c.offer.Payee.Finality.Of(&p.Amount)
	}
	return in
}

// settle makes the transfer, or tells what became of it.
func (c *call) settle() error {
	ctx := c.r.Context()
	id := c.id()
	p, err := c.engine.store.ByAuthorization(ctx, id)
	switch {
	case err == nil:
		return c.known(p)
	case !errors.Is(err, ledger.ErrNotFound):
		return unavailable(codeStore, err)
	}
	head, err := c.check(ctx)
	if errors.Is(err, settlement.ErrUnavailable) {
		return unavailable(codeChain, err)
	}
	if err != nil {
		// Another copy of this request may have claimed and settled it meanwhile: then that is why the chain refuses it.
		p, e := c.engine.store.ByAuthorization(ctx, id)
		switch {
		case e == nil:
			return c.known(p)
		case !errors.Is(e, ledger.ErrNotFound):
			return unavailable(codeStore, e)
		}
		return c.refused(err)
	}
	return c.claim(ctx, id, head)
}

// mostResource bounds what is kept of a resource's address: a stranger wrote it.
const mostResource = 512

// claim reserves the authorization, durably, before anything is sent, and goes on to settle it.
func (c *call) claim(ctx context.Context, id x402.AuthorizationID, head uint64) error {
	pid, err := ledger.NewID(randomness, id.Payer)
	if err != nil {
		return unavailable(codeStore, fmt.Errorf("making a payment id: %w", err))
	}
	resource := c.order.Resource
	if len(resource) > mostResource {
		resource = resource[:mostResource]
	}
	p := ledger.Payment{
		ID: pid, AuthorizationID: id, PayTo: c.order.PayTo, Amount: c.order.Amount,
		ValidBefore: c.order.Payload.Authorization.ValidBefore.Uint64(), HeaderHash: c.order.Hash,
		Binding: ledger.Binding{Route: c.route(), URI: resource}, Flow: ledger.FlowFacilitator, ClaimBlock: head,
	}
	c.engine.hold(ctx, pid) // before others can see it
	defer c.engine.letGo(pid)
	_, s := c.engine.stage(ctx, StageClaim, pid)
	p, err = c.engine.store.Claim(ctx, p, ledger.Change{
		Event: ledger.EventClaim, Actor: actorRequest, Hold: c.engine.current().HoldTTL,
	})
	s.claimed(err)
	switch {
	case errors.Is(err, ledger.ErrExists):
		return c.known(p) // a copy was faster
	case err != nil:
		return unavailable(codeStore, err)
	}
	c.filed(p.ID)
	return c.transfer(p)
}

// known is the way of an authorization that the ledger has. The very same order gets the same answer; whoever is at it is waited
// for, and whoever has died at it is succeeded.
func (c *call) known(p ledger.Payment) error {
	if !c.mine(&p) {
		return c.no(errUsed(), c.payer())
	}
	c.filed(p.ID)
	ctx, cancel := context.WithTimeout(c.r.Context(), c.engine.current().SettleTimeout)
	defer cancel()
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		if p.Held(c.engine.store.Now()) {
			q, err := c.engine.wait(ctx, p.ID)
			if err != nil {
				return c.pending(p.ID, common.Hash{}, err)
			}
			p = q
		}
		switch {
		case p.Settlement == ledger.Settled:
			return c.yes(&p)
		case over(&p):
			return c.no(gaveUp(&p), c.payer())
		}
		taken, err := c.engine.store.Update(ctx, p.ID, p.Version, ledger.Change{
			Event: ledger.EventTake, Actor: actorRequest, Hold: c.engine.current().HoldTTL,
		})
		switch {
		case err == nil:
			return c.succeed(taken)
		case !errors.Is(err, ledger.ErrConflict) && !errors.Is(err, ledger.ErrFence) && !errors.Is(err, ledger.ErrTransition):
			return unavailable(codeStore, err).of(p.ID)
		}
		// Somebody was faster, or the ledger's clock is not where we think.
		c.engine.pause(ctx, p.ID, pause)
		if p, err = c.engine.store.Payment(ctx, p.ID); err != nil {
			return unavailable(codeStore, err)
		}
	}
}

// succeed goes on with a payment that this request has just taken over.
func (c *call) succeed(p ledger.Payment) error {
	c.engine.hold(c.r.Context(), p.ID)
	defer c.engine.letGo(p.ID)
	return c.transfer(p)
}

// filed tells who asked, and our logs, by which name the payment is in the ledger.
func (c *call) filed(id string) {
	c.w.Header().Set(headerPaymentID, id)
	if c.Filed != nil {
		c.Filed(c.r, id)
	}
}

// transfer has the payment settled that this request holds, and writes what came of it.
func (c *call) transfer(p ledger.Payment) error {
	e, fence := c.engine, p.Hold.Fence
	stop := e.keep(c.r.Context(), p.ID, fence)
	faultpoint.Reached("claimed")
	out, left := e.settle(c.r.Context(), p, c.offer.Payee, c.intent(&p))
	stop()
	if out.Status == settlement.Settled {
		faultpoint.Reached("settled")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), writeTimeout)
	defer cancel()
	if out.Status == settlement.Unknown {
		e.release(p, fence)
		if left {
			return nil
		}
		return c.pending(p.ID, out.Transaction, out.Err)
	}
	q, err := e.record(ctx, p, out, actorRequest, ledger.Change{Event: ledger.EventRelease, Actor: actorRequest, Fence: fence})
	if err != nil {
		c.Logger.Error("writing an outcome failed; the reconciler will", slog.String("payment", p.ID), slog.Any("error", err))
		if out.Status == settlement.Failed {
			return unavailable(codeStore, err).of(p.ID)
		}
		q = p
		q.Transaction = out.Transaction // the chain has it, whatever the ledger says
	}
	switch {
	case left:
		return nil
	case out.Status == settlement.Settled, q.Settlement == ledger.Settled: // somebody else may have seen the money
		return c.yes(&q)
	}
	return c.no(&x402.Error{Reason: orReason(string(out.Reason)), Detail: "the transfer failed and charged nothing", Err: out.Err}, c.payer())
}

// tellWithin is how long after a settlement it is told to who was not told before, and toldFor how long it is remembered that it was:
// longer, so that nobody is told because that was forgotten.
const (
	tellWithin = 7 * 24 * time.Hour
	toldFor    = tellWithin + 24*time.Hour
)

// yes says that the payment is settled, and by which transaction.
func (c *call) yes(p *ledger.Payment) error {
	s := x402.SettlementResponse{Success: true, Payer: p.Payer.Hex(), Transaction: p.Transaction.Hex(), Network: c.network()}
	if !c.Repeat {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), writeTimeout)
		defer cancel()
		if c.r.Context().Err() != nil {
			return nil // who asks again may be told
		}
		if !p.SettledAt.IsZero() && c.engine.store.Now().Sub(p.SettledAt) > tellWithin {
			return c.told(&s, "this was settled too long ago to be told to anybody")
		}
		_, err := c.engine.store.Reserve(ctx, ledger.Reservation{Key: digest("told", p.ID), Payment: p.ID}, "", toldFor)
		switch {
		case errors.Is(err, ledger.ErrExists):
			return c.told(&s, "this settlement was told to another request")
		case err != nil:
			return unavailable(codeStore, err).of(p.ID)
		}
	}
	return c.write(http.StatusOK, "settled", s)
}

// told refuses to tell of a settlement again.
func (c *call) told(s *x402.SettlementResponse, why string) error {
	s.Success, s.ErrorReason, s.ErrorMessage = false, x402.ReasonDuplicateSettlement, why
	return c.write(http.StatusOK, "refused", s)
}

// pending says that nobody knows yet. Where a transaction may be mined at any time, that is the protocol's settlement_pending, with
// its hash; otherwise there is no verdict at all. In both cases the same is to be asked again, and gets what became of it.
func (c *call) pending(id string, hash common.Hash, cause error) error {
	if hash == (common.Hash{}) {
		hash = c.sent(id)
	}
	if hash == (common.Hash{}) {
		return busy(id).because(cause)
	}
	c.Logger.Warn("a settlement's outcome is unknown", slog.String("payment", id), slog.String("transaction", hash.Hex()), slog.Any("error", cause))
	return c.write(http.StatusOK, "pending", x402.SettlementResponse{
		ErrorReason: x402.ReasonSettlementPending, ErrorMessage: "the transaction is not mined, or not deep enough, yet; ask for the same again",
		Payer: c.payer().Hex(), Transaction: hash.Hex(), Network: c.network(),
	})
}

// sent is the last transaction that was recorded for a payment; zero if there is none.
func (c *call) sent(id string) common.Hash {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), writeTimeout)
	defer cancel()
	list, err := c.engine.store.Transactions(ctx, id)
	if err != nil || len(list) == 0 {
		return common.Hash{}
	}
	return list[len(list)-1].Hash
}
