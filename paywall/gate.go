package paywall

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Handler serves a request that may pass; it is Caddy's next handler.
type Handler func(http.ResponseWriter, *http.Request) error

// Request is what the gate must know of a request beside the request itself.
type Request struct {
	Route *Route
	// URL is the resource's public address, absolute.
	URL string
	// Host and URI are those of the request as the client sent it.
	Host, URI string
	// Site names the site by something that its clients don't choose, as they do Host: what is free is counted by it. Default: the host.
	Site string
	// Client is the address of the client, as far as it is known.
	Client string
	// Audience is whom access tokens of this site are for.
	Audience string
	// Access is what is asked for by its id in the catalogue; nil for a request to the route itself.
	Access *Access
}

// attempt is one request on its way through the gate.
type attempt struct {
	*Gate
	Request
	w    http.ResponseWriter
	r    *http.Request
	next Handler

	tokens  *Tokens
	engine  *Engine
	version int // of the protocol that the client speaks
	payload *x402.Payload
	payee   *Payee
	signer  x402.Signer
	hash    common.Hash // of the payment header, if that may resume a payment

	bodyRead bool
	body     []byte                             // all of it, if there is a key
	held     int                                // bytes of it, as the engine counts them
	keys     []requestKey                       // by which this request may be known
	wants    []want                             // what its payment must have reserved
	kept     map[common.Hash]ledger.Reservation // read, and with an answer
	yield    func()                             // gives back the turn of who buys what is bought once; may be nil
	issued   *Credential                        // to this request, just now; nil if it was not
	// bearerKept: what opened the gate is no token of ours, and goes on to the upstream
	bearerKept bool
	price      *quotation // what the request costs now, where that moves; nil while nobody has asked

	inCookie  bool            // the token came in a cookie
	drawn     *drawn          // what this request has taken of a plan or of what is free; nil if nothing
	spent     map[string]bool // by payment id: plans of which nothing was left
	challenge *heldChallenge  // of the order's request id, as far as it is known

	timing *timing // of a request that pays; nil for others

	consumer   *Consumer // whose API key came; nil: none did
	counted    bool      // in a zone
	met        bool      // the ledger knows its payment
	zoned      []zoneCount
	zoneWriter *headerWriter // tells of them; nil while there are none

	repays string          // the id of the owed payment that this request pays for
	debt   *ledger.Payment // that payment
	loan   *ledger.Loan    // what was lent for its payment; nil if nothing was
	unlend func()          // see repaid; nil if nothing was asked for
}

// Serve answers r: with next if it is paid for, else with what the client needs to know. Errors are those
// of next.
func (g *Gate) Serve(w http.ResponseWriter, r *http.Request, q Request, next Handler) error {
	header, version := paymentHeader(r.Header)
	key := g.takeKey(r.Header)
	bearer, inCookie := g.accessTokenOf(r, q)
	repays := r.Header.Get(headerOwed)
	CleanRequest(r)
	a := &attempt{Gate: g, Request: q, w: w, r: r, next: next, version: version, repays: repays, inCookie: inCookie}
	if a.buysGrant() {
		bearer = "" // a token buys nothing
	}
	defer a.toldZones()
	if refused, ok := errors.AsType[*refusal](a.enter(key, header != "")); ok {
		return a.answer(refused)
	}

	if header == "" && bearer == "" {
		return a.unpaid("")
	}
	var err error
	if a.tokens, err = g.Tokens(); err != nil {
		return a.answer(unavailable(codeToken, err))
	}
	var reason x402.Reason
	if bearer != "" {
		claims, plan, heard, err := a.admit(bearer)
		switch {
		case err != nil:
			var done bool
			if reason, done, err = a.serveStrange(bearer, header, err); done {
				return err
			}
		case !heard:
			if header == "" {
				return a.answer(stale())
			}
		case !plan.counted():
			return a.serveToken(claims)
		default:
			if done, err := a.serveCounted(claims, plan); done {
				return err
			}
			reason = ReasonUsedUp
		}
	}
	if header == "" {
		return a.unpaid(reason)
	}
	err = a.pay(header)
	if refused, ok := errors.AsType[*refusal](err); ok {
		return a.answer(a.countUnpaid(refused))
	}
	return err
}

// pay is the way of a request that carries a payment, up to the point where it is either known or fresh.
func (a *attempt) pay(header string) (err error) {
	payload, err := x402.DecodePayload(header)
	if err != nil {
		return malformed(err)
	}
	if payload.Version != a.version {
		return refuse(x402.Refuse(reasonVersion, "the payment says x402Version %d in a header of version %d", payload.Version, a.version))
	}
	a.payload = payload
	if err := a.nameAccess(); err != nil {
		return err
	}
	if err := a.readKeys(); err != nil {
		return err
	}
	if _, ok := payload.ResumeKey(); ok {
		a.hash = sha256.Sum256([]byte(header))
	}

	engine, release, err := a.Acquire()
	if err != nil {
		return unavailable(codeStore, err)
	}
	defer release()
	a.engine = engine
	defer func() { engine.bodies.giveBack(a.held) }()
	a.timing = engine.newTiming(a.r.Context())
	defer func() { a.timing.reading.failed(err) }() // where it goes no further

	if a.payee = a.findPayee(payload); a.payee == nil || !a.payee.takes(payload) {
		if p, err := a.retired(); err != nil {
			return err
		} else if p != nil {
			return a.resumeRetired(p)
		}
	}
	if a.payee == nil {
		return refuse(x402.Refuse(x402.ReasonNetworkMismatch, "network %q is not accepted here; choose one of accepts", payload.Network))
	}
	a.signer = payload.Identify(a.payee.separator)
	id := payload.Authorization.ID(a.payee.Network.ChainID, a.payee.Network.Asset.Address)
	p, err := engine.store.ByAuthorization(a.r.Context(), id)
	switch {
	case err == nil && sameAuthorization(&p, id):
		return a.known(p)
	case errors.Is(err, ledger.ErrNotFound):
		return a.fresh(id)
	case err == nil:
		err = fmt.Errorf("paywall: the ledger answered for another payment")
	}
	return unavailable(codeStore, err)
}

// findPayee finds by whose rules a payment is read: a network may have several assets, of which the client names one.
func (a *attempt) findPayee(p *x402.Payload) *Payee {
	var found *Payee
	for _, y := range a.Payees {
		if p.Network != y.Network.ID && !(p.Version == 1 && p.Network == y.Network.V1Name && p.Network != "") {
			continue
		}
		if y.takes(p) {
			return y
		}
		if found == nil {
			found = y
		}
	}
	return found
}

// takes reports whether p names the payee's asset, if any.
func (y *Payee) takes(p *x402.Payload) bool {
	return p.Accepted == nil || strings.EqualFold(p.Accepted.Asset, y.Network.Asset.Address.Hex())
}

func (a *attempt) intent(p *ledger.Payment) settlement.Intent {
	in := settlement.Intent{
		Network: a.payee.Network, Authorization: a.payload.Authorization, Signature: a.payload.Signature,
		Proven: a.signer.Proven,
	}
	if p != nil {
		in.Payment, in.ClaimBlock, in.Exchange = p.ID, p.ClaimBlock, a.exchange(p)
		in.Finality = a.payee.Finality.Of(&p.Amount)
	}
	return in
}

// fresh is the way of an authorization that the ledger has never seen.
func (a *attempt) fresh(id x402.AuthorizationID) error {
	ctx := a.r.Context()
	if err := a.mayAsk(); err != nil {
		return err
	}
	opt, err := a.choose()
	if err != nil {
		return err
	}
	if opt.price.Payee != a.payee {
		return refuse(x402.Refuse(x402.ReasonNetworkMismatch, "asset and network don't belong together; choose one of accepts"))
	}
	if err := a.mayBuy(&opt); err != nil {
		return err
	}
	terms := x402.Terms{
		Network: a.payee.Network, PayTo: a.payee.PayTo, Amount: opt.price.Amount,
		MinRemaining: a.MinRemaining, MaxValidity: a.MaxValidity,
	}
	if _, err = a.payload.Verify(terms, a.signer, a.engine.current().Now()); err != nil {
		a.countRefused(a.engine)
		return refuse(err)
	}
	a.wasRead()
	// The simulation also proves that nobody has used the authorization yet, so it is not one that
	// somebody read in calldata. Only then does it prove who is asking.
	head, err := a.simulate(ctx)
	if limit, ok := errors.AsType[*refusal](err); ok {
		return limit
	}
	if errors.Is(err, settlement.ErrUnavailable) {
		return unavailable(codeChain, err)
	}
	if err != nil {
		// Another copy of this request may have claimed and settled it meanwhile: then that is why the chain refuses it.
		if p, e := a.engine.store.ByAuthorization(ctx, id); e == nil && sameAuthorization(&p, id) {
			return a.known(p)
		} else if !errors.Is(e, ledger.ErrNotFound) {
			return unavailable(codeStore, e)
		}
	}
	broke := x402.ReasonOf(err) == x402.ReasonInsufficientBalance && a.signer.Proven
	if err != nil && !broke {
		return a.refuseChecked(err)
	}
	if a.repays != "" {
		if broke {
			return refuse(err)
		}
		return a.repay(ctx, &proof{id: id, opt: opt, head: head})
	}
	if err := a.readBody(); err != nil {
		return err
	}
	return a.proven(ctx, &proof{id: id, opt: opt, head: head}, err)
}

// mayAsk refuses a new payment that is not even looked at, or whose answer could not be given.
func (a *attempt) mayAsk() error {
	if err := a.shutOut(a.engine); err != nil {
		return err
	}
	if err := a.countKey(a.engine); err != nil {
		return err
	}
	if err := a.noStream(); err != nil {
		return err
	}
	return a.needsKey()
}

// proven is the way of who has proven to be the payer of a new authorization. broke is why it can't pay; it may have paid already.
func (a *attempt) proven(ctx context.Context, f *proof, broke error) error {
	if broke == nil { // payers without money cost nothing to make up: they count as refused
		if err := a.count(ctx, a.engine, f.id.Payer); err != nil {
			return err
		}
	}
	if err := a.admitPayer(ctx, f.id.Payer); err != nil {
		return err
	}
	a.wants = a.wanted(f.id, a.binding(f.opt))
	if err := a.queue(ctx); err != nil {
		return err
	}
	defer a.leaveQueue()
	keyed, cancel := context.WithTimeout(ctx, a.engine.current().SettleTimeout)
	defer cancel()
	if done, err := a.serveByKey(keyed, "", f); done || err != nil {
		return err
	}
	if done, err := a.instead(ctx, f); done || err != nil {
		return err
	}
	if broke != nil {
		a.countRefused(a.engine)
		return refuse(broke)
	}
	if f.opt.plan != nil && f.opt.plan.Free {
		return a.serveFree(ctx, f)
	}
	return a.claim(ctx, f)
}

// simulate asks the chain whether the payment would settle, within what the client may cost us.
func (a *attempt) simulate(ctx context.Context) (head uint64, err error) {
	end, ok := a.engine.limits.begin(clientKey(a.Client), time.Now())
	if !ok {
		return 0, limited()
	}
	refused := false
	defer func() { end(refused) }()
	ctx, s := a.engine.stage(ctx, StageSimulate, "")
	s.on(a.payee.Network.ID)
	head, err = a.payee.Settler.Check(ctx, a.intent(nil))
	s.failed(err)
	refused = x402.ReasonOf(err) != ""
	return head, err
}

// queue makes who buys what is bought once wait for those of this process who buy the same for the same payer.
func (a *attempt) queue(ctx context.Context) error {
	if len(a.wants) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.engine.current().SettleTimeout)
	defer cancel()
	var err error
	if a.yield, err = a.engine.takeTurn(ctx, a.wants[0].key); err != nil {
		return a.underWay("").because(err)
	}
	return nil
}

func (a *attempt) leaveQueue() {
	if a.yield != nil {
		a.yield()
	}
}

// refuseChecked tells a refusal by the chain from a chain that can't be asked.
func (a *attempt) refuseChecked(err error) error {
	if x402.ReasonOf(err) == "" {
		return unavailable(codeChain, err)
	}
	a.countRefused(a.engine)
	return refuse(err)
}

// choose finds which of our own offers the client means (rule 1).
func (a *attempt) choose() (option, error) {
	if opt, ok, err := a.chooseDebt(); ok || err != nil {
		return opt, err
	}
	f, err := a.offerPaid()
	if err != nil {
		return option{}, err
	}
	i, err := x402.Select(f.accepts, a.payload)
	if err != nil {
		a.countRefused(a.engine)
		return option{}, refuse(err)
	}
	return f.options[i], nil
}

func (a *attempt) binding(o option) ledger.Binding {
	b := ledger.Binding{Route: a.Route.Name, Method: a.r.Method, Host: a.Host, URI: a.URI}
	if o.plan != nil {
		b.Route, b.Plan = a.Route.Scope, o.plan.Name
	}
	return b
}

func (a *attempt) newPayment(id x402.AuthorizationID, o option, head uint64) (ledger.Payment, error) {
	pid, err := ledger.NewID(randomness, id.Payer)
	if err != nil {
		return ledger.Payment{}, fmt.Errorf("making a payment id: %w", err)
	}
	b := a.binding(o)
	hash, err := a.hashFor(b.Plan)
	if err != nil {
		return ledger.Payment{}, err
	}
	return ledger.Payment{
		ID: pid, AuthorizationID: id, PayTo: a.payee.PayTo, Amount: o.price.Amount,
		ValidBefore: a.payload.Authorization.ValidBefore.Uint64(),
		HeaderHash:  hash, Binding: b, Flow: a.Route.Flow, ClaimBlock: head,
	}, nil
}

// claim reserves the authorization, durably, before any work (rule 3), and goes on to settle it.
func (a *attempt) claim(ctx context.Context, f *proof) error {
	p, err := a.newPayment(f.id, f.opt, f.head)
	if err != nil {
		return unavailable(codeStore, err)
	}
	defer a.repaid()
	good, err := a.creditworthy(ctx, &p)
	if err != nil {
		return err
	}
	id := p.ID
	a.engine.hold(a.r.Context(), id) // before others can see it
	defer a.engine.letGo(id)
	lent := a.lend(ctx, p, good)
	_, s := a.engine.stage(ctx, StageClaim, id)
	p, err = a.engine.store.Claim(ctx, p, ledger.Change{
		Event: ledger.EventClaim, Actor: actorRequest, Hold: a.engine.current().HoldTTL,
	})
	s.claimed(err)
	a.loan = lent()
	if a.loan != nil && (err != nil || !a.loan.Covers(&p)) {
		a.engine.lendNothing(id, a.loan)
		a.loan = nil
	}
	switch {
	case errors.Is(err, ledger.ErrExists):
		a.leaveQueue()
		return a.known(p) // a copy was faster
	case err != nil:
		return unavailable(codeStore, err)
	}
	a.filed(id)
	return a.begun(ctx, p)
}
