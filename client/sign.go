package client

import (
	"crypto/rand"
	"errors"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

// authorize writes what the choice asks to sign: one amount to one account, good from the beginning of time until
// the server's timeout or our cap, under a nonce that nobody else has.
func (x *exchange) authorize() error {
	r, ch := x.report, x.choice
	var nonce common.Hash
	if _, err := rand.Read(nonce[:]); err != nil {
		return fail(CodeRequest, err, "no random nonce could be made")
	}
	validity := min(ch.timeout, or(x.c.MaxValidity, DefaultMaxValidity))
	end := max(x.c.now().Add(validity).Unix(), 0)
	r.Authorization = &x402.Authorization{
		From: r.Payer, To: ch.payTo, Value: ch.amount, ValidBefore: *uint256.NewInt(uint64(end)), Nonce: nonce,
	}
	return nil
}

// sign signs the authorization and makes the header of it. It is called once in a call.
func (x *exchange) sign() error {
	r := x.report
	sig, err := x402.Sign(r.Authorization.Digest(x.choice.domain.Separator()), x.c.Key)
	if err != nil {
		return fail(CodeRequest, err, "the authorization could not be signed")
	}
	value, err := x402.EncodeHeader(x.payload(sig))
	if err == nil && len(value) > x402.MaxHeaderBytes {
		err = errors.New("it is longer than servers take for a header")
	}
	if err != nil {
		return fail(CodeOffer, err, "the offer can't be echoed")
	}
	r.Payment = &Payment{Header: headerOf(r.Version), Value: Secret(value)}
	if x.c.OnSigned != nil {
		if err := x.c.OnSigned(r); err != nil {
			r.Payment = nil
			return fail(CodeDeclined, err, "the payment was not sent")
		}
	}
	return nil
}

// payload is the answer to the offer, in its version.
func (x *exchange) payload(sig []byte) any {
	r := x.report
	if r.Version == 1 {
		return r.OfferV1.Accepts[x.choice.index].Pay(r.Authorization, sig)
	}
	return r.Offer.Pay(x.choice.req, r.Authorization, sig)
}
