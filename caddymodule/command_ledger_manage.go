package caddymodule

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
)

// What changes something goes through the management API of the admin endpoint, whose audit says who did it.

// paymentChange is what became of a payment that an operator has changed.
type paymentChange struct {
	Payment string `json:"payment"`
	State   string `json:"state"`
}

func changedTo(p ledger.Payment, err error) (paymentChange, error) {
	if err != nil {
		return paymentChange{}, err
	}
	return paymentChange{p.ID, string(p.State())}, nil
}

func (d *desk) settle(ctx context.Context, id string) (paymentChange, error) {
	return changedTo(audited(ctx, d, deedSettle, id, func(s *management.Shop) (ledger.Payment, error) { return s.SettlePayment(ctx, id) }))
}

func (d *desk) refund(ctx context.Context, id string) (paymentChange, error) {
	return changedTo(audited(ctx, d, deedRefund, id, func(s *management.Shop) (ledger.Payment, error) { return s.RefundPayment(ctx, id, actorOperator) }))
}

// tokenQuery selects a page of tokens.
type tokenQuery struct {
	Payer  common.Address
	Status string
	Cursor string
	Limit  int
}

// tokenPage is a page of tokens, newest first.
type tokenPage struct {
	Data []management.Token `json:"data"`
	Page management.Page    `json:"page"`
}

func (d *desk) tokens(ctx context.Context, q tokenQuery) (page tokenPage, err error) {
	which := management.Selection{Payer: q.Payer}
	if which.After, err = management.ParseCursor(q.Cursor); err != nil {
		return page, err
	}
	page.Data, page.Page.Next, err = d.shop().Tokens(ctx, which, q.Status, q.Limit)
	return page, err
}

// manage makes a call to the management API of the admin endpoint. into may be nil.
func (c *adminClient) manage(ctx context.Context, method, path string, body, into any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return fmt.Errorf("asking the Caddy at %s: %w", c.listen, err)
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, c.origin+adminV1+path, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("asking the Caddy at %s: %w", c.listen, err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Accept", "application/problem+json, application/json;q=0.9")
	if method != http.MethodGet {
		r.Header.Set("Idempotency-Key", rand.Text())
	}
	if c.network != "" {
		r.Header.Set("X-Network", c.network)
	}
	res, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if into == nil {
		return nil
	}
	return c.read(res.Body, into)
}

// managedList reads all pages of a list of the management API.
func managedList[T any](ctx context.Context, c *adminClient, path string) ([]T, error) {
	all := []T{}
	for next := ""; ; {
		var p struct {
			Data []T             `json:"data"`
			Page management.Page `json:"page"`
		}
		if err := c.manage(ctx, http.MethodGet, path+"?limit=100&cursor="+url.QueryEscape(next), nil, &p); err != nil {
			return nil, err
		}
		all = append(all, p.Data...)
		if next = p.Page.Next; next == "" {
			return all, nil
		}
	}
}

// managed is manage for commands that also look straight into ledgers: their errors have the same codes both ways.
func (c *adminClient) managed(ctx context.Context, method, path string, body, into any) error {
	err := c.manage(ctx, method, path, body, into)
	if e, ok := errors.AsType[*operatorError](err); ok {
		return &operatorError{e.Status, cmp.Or(olderCodes[e.Code], e.Code), e.Detail, e.cause}
	}
	return err
}

// changed has a payment changed.
func (c *adminClient) changed(ctx context.Context, path string) (paymentChange, error) {
	var p management.Payment
	if err := c.managed(ctx, http.MethodPost, path, struct{}{}, &p); err != nil {
		return paymentChange{}, err
	}
	return paymentChange{p.ID, p.State}, nil
}

func (c *adminClient) settle(ctx context.Context, id string) (paymentChange, error) {
	return c.changed(ctx, "payments/"+url.PathEscape(id)+"/settle")
}

func (c *adminClient) refund(ctx context.Context, id string) (paymentChange, error) {
	return c.changed(ctx, "payments/"+url.PathEscape(id)+"/refund")
}

func (c *adminClient) retry(ctx context.Context, id string) (paymentChange, error) {
	return c.changed(ctx, "refunds/"+url.PathEscape(id)+"/retry")
}

func (c *adminClient) revoke(ctx context.Context, payment string) (tokenRevocation, error) {
	var t management.Token
	if err := c.managed(ctx, http.MethodPost, "tokens/"+url.PathEscape(payment)+"/revoke", struct{}{}, &t); err != nil {
		return tokenRevocation{}, err
	}
	return tokenRevocation{Payment: t.Payment, Until: valueOr(t.ExpiresAt)}, nil
}

func (c *adminClient) tokens(ctx context.Context, q tokenQuery) (page tokenPage, err error) {
	v := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	if q.Payer != (common.Address{}) {
		v.Set("payer", strings.ToLower(q.Payer.Hex()))
	}
	if q.Status != "" {
		v.Set("status", q.Status)
	}
	if q.Cursor != "" {
		v.Set("cursor", q.Cursor)
	}
	err = c.managed(ctx, http.MethodGet, "tokens?"+v.Encode(), nil, &page)
	return page, err
}
