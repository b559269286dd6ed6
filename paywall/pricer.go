package paywall

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/x402"
)

// A price that moves must still be one between the 402 and the payment. So an offer of such a price is dated and authenticated, in a text
// that clients of version 2 echo: a payment that echoes it is judged by the price that it was offered, for as long as the offer says;
// any other by the price of now. Nothing of it is stored. Clients of version 1 echo nothing: they get the price of now.

// Pricer says what a request costs, where that is not always the same.
type Pricer interface {
	// Subject is all of r that its price depends on, beside its method, host and URI. A price that was offered is good for the same subject
	// only. It never reads the body. An error that is a *PriceError goes to the client.
	Subject(r *http.Request, q *Request) (string, error)
	// Price is what that costs now, in the asset's own unit, such as "0.01". An error that is a *PriceError goes to the client;
	// any other one means that nobody knows: the request is refused, and nothing charged.
	Price(ctx context.Context, subject string) (string, error)
}

// PriceError says to a client what is wrong with its request, so that it has no price.
type PriceError struct{ Detail string }

func (e *PriceError) Error() string { return "no price: " + e.Detail }

// Codes of requests that have no price.
const (
	codePriceInvalid     = "price_invalid"
	codePriceUnavailable = "price_unavailable"
)

// quotation is a price as it is now.
type quotation struct {
	subject, amount string
	offer           *offer
}

// moving are the offers of a route whose price moves, by price: there are not many at a time.
type moving struct {
	route      *Route
	extensions map[string]json.RawMessage
	payees     []*Payee

	mu     sync.Mutex
	offers map[string]*offer
}

// mostOffers bounds how many are kept.
const mostOffers = 256

func newMoving(r *Route, extensions map[string]json.RawMessage) *moving {
	return &moving{route: r, extensions: extensions, offers: make(map[string]*offer)}
}

// of gives the offer of an amount.
func (m *moving) of(amount string) (*offer, error) {
	m.mu.Lock()
	f := m.offers[amount]
	m.mu.Unlock()
	if f != nil {
		return f, nil
	}
	var prices []Price
	for _, y := range m.payees {
		atomic, err := x402.ParseAmount(amount, y.Network.Asset.Decimals)
		if err != nil {
			return nil, fmt.Errorf("the price on %s: %w", y.Network.ID, err)
		}
		prices = append(prices, Price{Payee: y, Amount: atomic})
	}
	made, err := m.route.newOffer(prices, m.extensions)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.offers) >= mostOffers {
		clear(m.offers)
	}
	m.offers[amount] = &made
	return &made, nil
}

// subject is what the price of this request depends on.
func (a *attempt) subject() (string, error) {
	s, err := a.Route.Pricer.Subject(a.r, &a.Request)
	if err != nil {
		return "", noPrice(err)
	}
	return s, nil
}

// ofPrice is what else makes a request the same as another one, where its price moves: what that depends on.
func (a *attempt) ofPrice() []string {
	if a.Route.moving == nil {
		return nil
	}
	subject, err := a.subject()
	if err != nil {
		return []string{"no price"} // it is refused, wherever it would be paid for
	}
	return []string{"price", subject}
}

// pricedNow finds out what the request costs now, once. Its error is a *refusal.
func (a *attempt) pricedNow() error {
	if a.Route.moving == nil || a.price != nil {
		return nil
	}
	subject, err := a.subject()
	if err != nil {
		return err
	}
	amount, err := a.Route.Pricer.Price(a.r.Context(), subject)
	if err != nil {
		return noPrice(err)
	}
	f, err := a.Route.moving.of(amount)
	if err != nil {
		return noPrice(err)
	}
	if a.tokens == nil {
		if a.tokens, err = a.Tokens(); err != nil {
			return unavailable(codeToken, err)
		}
	}
	a.price = &quotation{subject: subject, amount: amount, offer: f}
	return nil
}

// requestPrices are what this request costs now, for whoever draws it from what was prepaid. Its error is a *refusal.
func (a *attempt) requestPrices() ([]Price, error) {
	if a.Route.moving == nil {
		return a.Route.Prices, nil
	}
	if err := a.pricedNow(); err != nil {
		return nil, err
	}
	return a.price.offer.prices, nil
}

// offerNow gives what is offered now under a resume key, and what its clients have to echo for it to stay good; empty where the price does
// not move. Its error is a *refusal.
func (a *attempt) offerNow(key string) (*offer, string, error) {
	if a.Route.moving == nil {
		return &a.Route.offer, "", nil
	}
	if err := a.pricedNow(); err != nil {
		return nil, "", err
	}
	end := a.Now().Add(a.Route.Timeout).Unix()
	return a.price.offer, a.sealQuote(a.price.subject, a.price.amount, end, key), nil
}

// offerPaid gives the offers that this request's payment is judged by. Its error is a *refusal.
func (a *attempt) offerPaid() (*offer, error) {
	if a.Route.moving == nil {
		return &a.Route.offer, nil
	}
	if f, err := a.offerEchoed(); f != nil || err != nil {
		return f, err
	}
	if err := a.pricedNow(); err != nil {
		return nil, err
	}
	return a.price.offer, nil
}

// offerEchoed is the offer that the payment echoes, if we made it for such a request and it is still good; nil if not.
func (a *attempt) offerEchoed() (*offer, error) {
	text, ok := a.payload.Quote()
	key, keyed := a.payload.ResumeKey()
	if !ok || !keyed {
		return nil, nil
	}
	amount, end, sum, ok := parseQuote(text)
	if !ok || a.Now().Unix() > end {
		return nil, nil
	}
	subject, err := a.subject()
	if err != nil {
		return nil, err
	}
	if !a.tokens.Issuer.Keyring.CheckMAC(purposeQuote, a.quoted(subject, amount, end, key), sum, a.Now()) {
		return nil, nil
	}
	f, err := a.Route.moving.of(amount)
	if err != nil {
		return nil, nil //nolint:nilerr // the asset has other decimals by now; the price of now decides
	}
	return f, nil
}

// A quote is a byte of form, the end in unix seconds, a MAC, and the amount; all in base64url.
const (
	purposeQuote = "quote"
	quoteForm    = 1
	quoteMAC     = 32
	quoteHead    = 1 + 8 + quoteMAC
	longestPrice = 80
)

var quoteEncoding = base64.RawURLEncoding.Strict()

// quoted is what a quote authenticates: which request costs how much until when.
func (a *attempt) quoted(subject, amount string, end int64, key string) []byte {
	sum := digest("quote", a.Route.Name, a.r.Method, a.Host, a.URI, subject, amount, string(binary.BigEndian.AppendUint64(nil, uint64(end))), key)
	return sum[:]
}

func (a *attempt) sealQuote(subject, amount string, end int64, key string) string {
	raw := binary.BigEndian.AppendUint64([]byte{quoteForm}, uint64(end))
	raw = append(raw, a.tokens.Issuer.Keyring.MAC(purposeQuote, a.quoted(subject, amount, end, key), a.Now())...)
	return quoteEncoding.EncodeToString(append(raw, amount...))
}

// parseQuote reads a quote, which anybody may have made.
func parseQuote(text string) (amount string, end int64, sum []byte, ok bool) {
	raw, err := quoteEncoding.DecodeString(text)
	if err != nil || len(raw) <= quoteHead || len(raw) > quoteHead+longestPrice || raw[0] != quoteForm {
		return "", 0, nil, false
	}
	at := binary.BigEndian.Uint64(raw[1:9])
	if at > 1<<62 {
		return "", 0, nil, false
	}
	return string(raw[quoteHead:]), int64(at), raw[9:quoteHead], true
}

// noPrice is the answer to a request of which nobody knows what it costs.
func noPrice(err error) *refusal {
	if e, ok := errors.AsType[*PriceError](err); ok {
		return &refusal{
			status: http.StatusBadRequest, code: codePriceInvalid, cause: err,
			detail: "the price depends on the request: " + e.Detail + "; nothing was charged",
		}
	}
	r := unavailable(codePriceUnavailable, err)
	r.detail = "what this costs can't be told now; nothing was charged, ask again later"
	r.wait = time.Second
	return r
}
