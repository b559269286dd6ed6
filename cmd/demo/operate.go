package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
)

// operate is the seller's side: the first key of the management API, and what is seen with it.
func (s *story) operate(ctx context.Context) (err error) {
	if s.key, err = s.firstKey(ctx); err != nil {
		return err
	}
	s.field("API key", "%s (%d characters), made on the machine, shown once", brief(s.key, 24), len(s.key))
	list := "http://" + s.ops + "/v1/payments"
	a, err := s.get(ctx, list, "Authorization", "Bearer "+s.key, "X-Network", "testnet")
	if err != nil {
		return err
	}
	var payments struct {
		Data []struct{ ID, State, AmountDecimal string }
	}
	if err := a.json(&payments); err != nil {
		return err
	}
	s.field("GET", "%s with it: %d %s", list, a.status, http.StatusText(a.status))
	found := false
	for _, p := range payments.Data {
		s.field("", "%s  %s  %s USDC", p.ID, p.State, p.AmountDecimal)
		found = found || p.ID == s.report.PaymentID
	}
	same(s.paper, "it lists both payments", len(payments.Data), 2)
	s.check(found, "the first of them is among these")
	stranger, err := s.get(ctx, list, "X-Network", "testnet")
	if err != nil {
		return err
	}
	same(s.paper, "without a key it lists nothing: 401", stranger.status, http.StatusUnauthorized)
	page, err := s.get(ctx, s.dashboard())
	if err != nil {
		return err
	}
	s.field("GET", "%s, a page for people", s.dashboard())
	same(s.paper, "the dashboard is served", page.status, http.StatusOK)
	return nil
}

// firstKey makes an API key as `caddy x402 apikeys create` does.
func (s *story) firstKey(ctx context.Context) (string, error) {
	body := []byte(`{"label":"the demo","scopes":["payments:read","payments:write","webhooks:manage","keys:manage"]}`)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.admin+"/x402/v1/api-keys", bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("making an API key: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", rand.Text())
	a, err := s.do(r)
	if err != nil {
		return "", err
	}
	var made struct{ Secret string }
	if err := a.json(&made); err != nil {
		return "", err
	}
	if !strings.HasPrefix(made.Secret, "sk_test_") {
		return "", fmt.Errorf("making an API key: the answer is %d without a key for test networks", a.status)
	}
	return made.Secret, nil
}
