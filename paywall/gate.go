package paywall

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"

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
