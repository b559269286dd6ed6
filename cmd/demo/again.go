package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/x402"
)

// replay sends the payment that was used, byte for byte.
func (s *story) replay(ctx context.Context) error {
	calls := s.upstream.calls()
	a, err := s.get(ctx, s.url(paidPath), s.report.Payment.Header, string(s.report.Payment.Value))
	if err != nil {
		return err
	}
	offer, err := a.offered()
	if err != nil {
		return fmt.Errorf("decoding the offer: %w", err)
	}
	elsewhere, err := s.get(ctx, s.url(otherPath), s.report.Payment.Header, string(s.report.Payment.Value))
	if err != nil {
		return err
	}
	s.field("status", "%d %s", a.status, http.StatusText(a.status))
	s.field("error", "%s", offer.Error)
	same(s.paper, "the same header is refused: 402", a.status, http.StatusPaymentRequired)
	same(s.paper, "with the protocol's reason", offer.Error, string(x402.ReasonNonceUsed))
	same(s.paper, "it pays for no other path either", elsewhere.status, http.StatusPaymentRequired)
	same(s.paper, "the upstream was not called", s.upstream.calls(), calls)
	n, err := s.transfers(ctx)
	if err != nil {
		return err
	}
	same(s.paper, "there is one transfer from buyer to seller on the chain", n, 1)
	return nil
}

// subscribe buys the plan with the first request of it.
func (s *story) subscribe(ctx context.Context) error {
	limits, err := client.Limits(planPrice, network())
	if err != nil {
		return fmt.Errorf("setting a limit: %w", err)
	}
	c := client.Client{HTTP: s.http, Key: buyer.Key, Limits: limits, Plan: plan}
	report, a, err := s.send(ctx, &c, paidPath)
	if err != nil {
		return err
	}
	s.token = string(report.AccessToken)
	s.field("bought", "plan %q for %s USDC, with the answer to %s", plan, planPrice, paidPath)
	s.field("status", "%d %s", a.status, http.StatusText(a.status))
	s.field("X-Access-Token", "%s (%d bytes)", brief(s.token, 40), len(s.token))
	same(s.paper, "the request was answered at once", a.status, http.StatusOK)
	s.check(s.token != "", "the answer brought a token")
	n, err := s.transfers(ctx)
	if err != nil {
		return err
	}
	same(s.paper, "that was the second transfer", n, 2)
	b, err := s.balances(ctx)
	if err != nil {
		return err
	}
	one, day := units(price), units(planPrice)
	one.Add(&one, &day)
	same(s.paper, fmt.Sprintf("the seller has %s USDC now", x402.FormatAmount(&one, 6)), b.seller.Dec(), one.Dec())
	return nil
}

// cutOff takes the chain away from Caddy, and gives it back.
func (s *story) cutOff(ctx context.Context) error {
	healthy, err := s.get(ctx, s.url("/health"))
	if err != nil {
		return err
	}
	s.field("GET /health", "%d %s", healthy.status, brief(string(healthy.body), 72))
	same(s.paper, "all is well", healthy.status, http.StatusOK)
	s.say("Now Caddy's way to the chain is cut.")
	s.wire.cut.Store(true)
	if err := s.useToken(ctx); err != nil {
		return err
	}
	down, err := s.awaitHealth(ctx, http.StatusServiceUnavailable)
	if err != nil {
		return err
	}
	s.field("GET /health", "%d %s", down.status, brief(string(down.body), 72))
	same(s.paper, "the health check says that no payment can be taken", down.status, http.StatusServiceUnavailable)
	s.wire.cut.Store(false)
	up, err := s.awaitHealth(ctx, http.StatusOK)
	if err != nil {
		return err
	}
	same(s.paper, "the chain is back, and so is the shop: /health is 200", up.status, http.StatusOK)
	return nil
}

func (s *story) useToken(ctx context.Context) error {
	calls := s.upstream.calls()
	for _, path := range []string{otherPath, paidPath, otherPath + "?day=tomorrow"} {
		a, err := s.get(ctx, s.url(path), "Authorization", "Bearer "+s.token)
		if err != nil {
			return err
		}
		var got seen
		if err := a.json(&got); err != nil {
			return err
		}
		s.field("GET", "%-24s with the token: %d in %.1f ms", path, a.status, float64(a.took.Microseconds())/1000)
		if h := got.Headers; a.status != http.StatusOK || h.Get("X-Payment-Plan") != plan || h.Get("X-Payment-Payer") != buyer.Address.Hex() {
			s.check(false, "%s: the status should be 200, for the buyer, under the plan %s", path, plan)
		}
		if got.Headers.Get("Authorization") == "Bearer "+s.token {
			s.check(false, "the buyer's token should not reach the upstream")
		}
	}
	same(s.paper, "three requests by token reached the upstream, without chain or signature", s.upstream.calls(), calls+3)
	a, err := s.get(ctx, s.url(paidPath), "Authorization", "Bearer "+s.token+"x")
	if err != nil {
		return err
	}
	same(s.paper, "a token with one character too many does not", a.status, http.StatusPaymentRequired)
	return nil
}

// awaitHealth asks for the health until it has the status; answers may be a moment old.
func (s *story) awaitHealth(ctx context.Context, status int) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		a, err := s.get(ctx, s.url("/health"))
		if err != nil || a.status == status {
			return a, err
		}
		select {
		case <-ctx.Done():
			return a, nil
		case <-tick.C:
		}
	}
}
