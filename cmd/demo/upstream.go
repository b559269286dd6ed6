package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-x402/caddy-x402/token"
)

// arrived tells what the upstream got, by its own word.
func (s *story) arrived(context.Context) error {
	var got seen
	if err := s.paid.json(&got); err != nil {
		return err
	}
	s.field("request", "%s %s", got.Method, got.URI)
	var leaked []string
	for name := range got.Headers {
		if n := strings.ToUpper(name); strings.HasPrefix(n, "PAYMENT-") || n == "X-PAYMENT" {
			leaked = append(leaked, name)
		}
	}
	names := []string{
		"X-Payment-Id", "X-Payment-Payer", "X-Payment-Amount", "X-Payment-Asset", "X-Payment-Network", "X-Payment-Transaction",
	}
	for _, name := range names {
		s.line(fmt.Sprintf("%s%-21s %s", indent, name, got.Headers.Get(name)))
	}
	assertion := got.Headers.Get("X-Payment-Token")
	s.line(fmt.Sprintf("%s%-21s %s (%d bytes)", indent, "X-Payment-Token", brief(assertion, 48), len(assertion)))
	s.line(fmt.Sprintf("%s%-21s the same, as Bearer", indent, "Authorization"))
	amount := units(price)
	want := []string{
		s.report.PaymentID, buyer.Address.Hex(), amount.Dec(), network().Asset.Address.Hex(), network().ID, s.report.Settlement.Transaction,
	}
	for i, name := range names {
		if g := got.Headers.Get(name); g != want[i] {
			s.check(false, "%s should be %s", name, want[i])
		}
	}
	same(s.paper, "it was called once", s.upstream.calls(), 1)
	s.check(len(s.wrong) == 0, "the headers say who paid what, as the receipt and the chain do")
	same(s.paper, "the same token stands in both places", got.Headers.Get("Authorization"), "Bearer "+assertion)
	s.check(len(leaked) == 0, "the payment header did not reach it")
	return nil
}

// verify checks the assertion with nothing but what the service publishes.
func (s *story) verify(ctx context.Context) error {
	keys, err := s.get(ctx, s.url("/.well-known/jwks.json"))
	if err != nil {
		return err
	}
	var got seen
	if err := s.paid.json(&got); err != nil {
		return err
	}
	assertion := got.Headers.Get("X-Payment-Token")
	claims, parsed, err := s.parse(ctx, keys, assertion)
	if err != nil {
		return fmt.Errorf("verifying the assertion: %w", err)
	}
	s.field("key", "%v, %v, from /.well-known/jwks.json", parsed.Header["kid"], parsed.Header["alg"])
	s.field("typ, aud", "%v, %s", parsed.Header["typ"], strings.Join(claims.Audience, " "))
	s.field("iss", "%s", claims.Issuer)
	s.field("sub", "%s", claims.Subject)
	s.field("jti", "%s", claims.ID)
	s.field("iat, exp", "%s, %s later", claims.IssuedAt.UTC().Format(time.RFC3339), claims.ExpiresAt.Sub(claims.IssuedAt.Time))
	purchase, err := json.Marshal(claims.X402)
	if err != nil {
		return fmt.Errorf("writing the claim x402: %w", err)
	}
	s.field("x402", "%s", "what was paid, and for what:")
	for part := range strings.SplitAfterSeq(string(purchase), ",") {
		s.line(indent + "  " + part)
	}
	s.check(true, "signature, issuer, audience and times are right")
	amount := units(price)
	same(s.paper, "it names buyer and payment", claims.Subject+" "+claims.ID, buyer.Address.Hex()+" "+s.report.PaymentID)
	same(s.paper, "amount, transaction and resource are those of this request",
		claims.X402.Amount+" "+claims.X402.Transaction+" "+claims.X402.Resource,
		amount.Dec()+" "+s.report.Settlement.Transaction+" "+s.url(paidPath))
	return s.opensNothing(ctx, assertion)
}

// parse verifies an assertion against a JWK Set (RFC 7517).
func (s *story) parse(ctx context.Context, keys answer, assertion string) (*token.Claims, *jwt.Token, error) {
	var set jwkset.JWKSMarshal
	if err := keys.json(&set); err != nil {
		return nil, nil, err
	}
	store, err := set.ToStorage()
	if err != nil {
		return nil, nil, fmt.Errorf("reading the keys: %w", err)
	}
	claims := new(token.Claims)
	parsed, err := jwt.ParseWithClaims(assertion, claims, func(t *jwt.Token) (any, error) {
		if t.Header["typ"] != token.Assertion.Type() {
			return nil, fmt.Errorf("the type is %v", t.Header["typ"])
		}
		id, _ := t.Header["kid"].(string)
		jwk, err := store.KeyRead(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("finding the key %q: %w", id, err)
		}
		return jwk.Key(), nil
	}, jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithIssuer("http://"+s.addr), jwt.WithAudience(token.AssertionAudience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	return claims, parsed, err
}

// opensNothing shows that an upstream that leaks its assertion gives nothing away.
func (s *story) opensNothing(ctx context.Context, assertion string) error {
	a, err := s.get(ctx, s.url(paidPath), "Authorization", "Bearer "+assertion)
	if err != nil {
		return err
	}
	same(s.paper, "sent to the gate, the assertion opens nothing: 402", a.status, http.StatusPaymentRequired)
	same(s.paper, "the upstream heard nothing of that", s.upstream.calls(), 1)
	return nil
}
