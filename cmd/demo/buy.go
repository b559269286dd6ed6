package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/x402"
)

func (s *story) ask(ctx context.Context) (err error) {
	if s.demand, err = s.get(ctx, s.url(paidPath)); err != nil {
		return err
	}
	a := &s.demand
	s.field("GET", "%s", s.url(paidPath))
	s.field("status", "%d %s", a.status, http.StatusText(a.status))
	s.field("PAYMENT-REQUIRED", "%s (%d bytes, version 2)", brief(a.header.Get(x402.HeaderRequired), 48), len(a.header.Get(x402.HeaderRequired)))
	s.field("body", "%s (%d bytes, version 1)", brief(string(a.body), 48), len(a.body))
	s.field("Cache-Control", "%s", a.header.Get("Cache-Control"))
	same(s.paper, "the status is 402", a.status, http.StatusPaymentRequired)
	same(s.paper, "the upstream heard nothing of it", s.upstream.calls(), 0)
	return nil
}

func (s *story) read(context.Context) (err error) {
	if s.offer, err = s.demand.offered(); err != nil {
		return fmt.Errorf("decoding the header: %w", err)
	}
	var old x402.RequiredV1
	if err := s.demand.json(&old); err != nil {
		return err
	}
	if len(s.offer.Accepts) != 2 || len(old.Accepts) != 1 {
		return fmt.Errorf("the offer has %d ways to pay, and %d for version 1; there should be 2 and 1", len(s.offer.Accepts), len(old.Accepts))
	}
	one, pass, n := s.offer.Accepts[0], s.offer.Accepts[1], network()
	s.field("for", "%s (%s)", s.offer.Resource.URL, s.offer.Resource.Description)
	s.field("price", "%s atomic units = %s USDC", one.Amount, usdc(one.Amount))
	s.field("or the plan", "%q for %s USDC", pass.Extra.Plan, usdc(pass.Amount))
	s.field("pay to", "%s", one.PayTo)
	s.field("network", "%s (%s)", one.Network, n.V1Name)
	s.field("asset", "%s (%s, version %s)", one.Asset, one.Extra.Name, one.Extra.Version)
	s.field("scheme, flow", "%s, %s; to be signed for %d s at most", one.Scheme, one.Extra.PaymentFlow, one.MaxTimeoutSeconds)
	amount := units(price)
	same(s.paper, "the price is that of the Caddyfile", one.Amount, amount.Dec())
	same(s.paper, "the money goes to pay_to", one.PayTo, seller.Hex())
	same(s.paper, "network and asset are USDC on Base Sepolia", one.Network+" "+one.Asset, n.ID+" "+n.Asset.Address.Hex())
	same(s.paper, "clients of version 1 read the same price in the body", old.Accepts[0].MaxAmountRequired, one.Amount)
	return nil
}

// usdc writes an amount of the wire in whole USDC.
func usdc(amount string) string {
	v, err := x402.ParseAtomic(amount)
	if err != nil {
		return "?"
	}
	return x402.FormatAmount(&v, 6)
}

// pay lets the client ask, choose, sign and send. What it signs is told before it is sent.
func (s *story) pay(ctx context.Context) error {
	limits, err := client.Limits("0.05", network())
	if err != nil {
		return fmt.Errorf("setting a limit: %w", err)
	}
	c := client.Client{HTTP: s.http, Key: buyer.Key, Limits: limits, OnSigned: s.signed}
	s.report, s.paid, err = s.send(ctx, &c, paidPath)
	return err
}

func (s *story) send(ctx context.Context, c *client.Client, path string) (*client.Report, answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url(path), http.NoBody)
	if err != nil {
		return nil, answer{}, fmt.Errorf("paying for %s: %w", path, err)
	}
	began := time.Now()
	res, report, err := c.Do(r)
	if err != nil {
		return report, answer{}, fmt.Errorf("paying for %s: %w", path, err)
	}
	defer func() { _ = res.Body.Close() }()
	a, err := readAll(res, began)
	return report, a, err
}

// signed tells what the buyer's key has signed.
func (s *story) signed(r *client.Report) error {
	a, d := r.Authorization, r.Network.Domain()
	digest := a.Digest(d.Separator())
	var payload x402.PayloadV2
	if err := x402.DecodeHeader(string(r.Payment.Value), x402.MaxHeaderBytes, &payload); err != nil {
		return fmt.Errorf("decoding what is sent: %w", err)
	}
	s.say("The client may spend 0.05 USDC per request; the offer is within that. It signs, by EIP-712, no transaction but a TransferWithAuthorization of EIP-3009:")
	s.field("domain", "%s, version %s, chain %d, %s", d.Name, d.Version, d.ChainID, d.Contract)
	s.field("from", "%s", a.From)
	s.field("to", "%s", a.To)
	s.field("value", "%s", a.Value.Dec())
	s.field("valid until", "%s", time.Unix(int64(a.ValidBefore.Uint64()), 0).UTC().Format(time.RFC3339))
	s.field("nonce", "%s", a.Nonce)
	s.field("digest", "%s", digest)
	s.field("signature", "%s (%d bytes; who has it can send it)", brief(payload.Payload.Signature.String(), 20), len(payload.Payload.Signature))
	s.field("sent as", "%s, %d bytes of base64", "PAYMENT-SIGNATURE", len(r.Payment.Value))
	who, err := x402.Recover(digest, payload.Payload.Signature)
	if err != nil {
		return fmt.Errorf("recovering the signer: %w", err)
	}
	same(s.paper, "digest and signature give the buyer's address", who, buyer.Address)
	amount := units(price)
	same(s.paper, "it allows the price, to the seller, and nothing else", a.Value.Dec()+" "+a.To.Hex(), amount.Dec()+" "+seller.Hex())
	return nil
}

func (s *story) receive(context.Context) error {
	r := s.report
	s.field("status", "%d %s", s.paid.status, http.StatusText(s.paid.status))
	s.field("took", "%d ms for 402, signature, settlement and the upstream's answer", s.paid.took.Milliseconds())
	s.field("X-Payment-Id", "%s", r.PaymentID)
	s.field("Cache-Control", "%s", s.paid.header.Get("Cache-Control"))
	same(s.paper, "the status is the upstream's 200", s.paid.status, http.StatusOK)
	if !r.Paid() {
		s.check(false, "PAYMENT-RESPONSE says that the payment succeeded")
		return nil
	}
	s.say("PAYMENT-RESPONSE, decoded:")
	s.field("transaction", "%s", r.Settlement.Transaction)
	s.field("payer", "%s", r.Settlement.Payer)
	s.field("amount", "%s on %s", r.Settlement.Amount, r.Settlement.Network)
	amount := units(price)
	same(s.paper, "it names the buyer and the price", r.Settlement.Payer+" "+r.Settlement.Amount, buyer.Address.Hex()+" "+amount.Dec())
	same(s.paper, "the client signed once and sent two requests", len(r.Attempts), 2)
	s.check(common.HexToHash(r.Settlement.Transaction) != (common.Hash{}), "it names a transaction")
	return nil
}
