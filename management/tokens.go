package management

import (
	"context"
	"net/http"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/x402"
)

const tagTokens = "Plans and tokens"

func (a *API) addTokens() {
	add(a, operation{
		rule: rule{id: "listPlans", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/plans", tag: tagTokens,
		summary: "Lists the plans that the configuration sells",
	}, listPlans)
	add(a, operation{
		rule: rule{id: "listTokens", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/tokens", tag: tagTokens,
		summary:     "Lists the tokens of plans that were sold, newest first",
		description: "The tokens themselves are known to their buyers alone. A page may be short, as with payments.",
	}, listTokens)
	add(a, operation{
		rule: rule{id: "revokeToken", method: http.MethodPost, scope: apikey.PaymentsWrite}, path: "/v1/tokens/{id}/revoke", tag: tagTokens,
		summary:     "Takes back the token of the plan that a payment bought",
		description: "The id is the payment's. Every instance refuses the token within a second. Nothing is paid back, and it can't be undone.",
	}, revokeToken)
}

// Plan is a plan that is sold.
type Plan struct {
	Name        string      `json:"name"`
	Routes      string      `json:"routes" doc:"The name of the set of routes that it opens"`
	Description string      `json:"description,omitempty"`
	TTLSeconds  int64       `json:"ttlSeconds"`
	Requests    uint64      `json:"requests,omitempty" doc:"How many it is good for; none: any number"`
	Free        bool        `json:"free"`
	Issuer      bool        `json:"issuer" doc:"Whether somebody else makes what the buyer gets"`
	Prices      []PlanPrice `json:"prices"`
}

// PlanPrice is what a plan costs on a network.
type PlanPrice struct {
	Network string `json:"network"`
	Symbol  string `json:"symbol,omitempty"`
	Amount  string `json:"amount" doc:"In atomic units"`
	Decimal string `json:"amountDecimal,omitempty"`
}

type plansOutput struct {
	Body struct {
		Data []Plan `json:"data"`
	}
}

// about reports whether a network, by its CAIP-2 identifier, is the one that is asked about.
func (x *exchange) about(caip2 string) bool {
	id, err := x402.ParseCAIP2(caip2)
	return x.network == "" || err == nil && x.shop.networkOf(id) == x.network
}

func listPlans(_ context.Context, x *exchange, _ *struct{}) (*plansOutput, error) {
	out := new(plansOutput)
	out.Body.Data = []Plan{}
	for _, p := range x.shop.Plans {
		var prices []PlanPrice
		for _, price := range p.Prices {
			if x.about(price.Network) {
				prices = append(prices, price)
			}
		}
		if p.Prices = prices; len(prices) > 0 {
			out.Body.Data = append(out.Body.Data, p)
		}
	}
	return out, nil
}

// Token is what the buyer of a plan has.
type Token struct {
	Payment   string     `json:"payment" doc:"Its id, and that of the payment that bought it"`
	Plan      string     `json:"plan"`
	Routes    string     `json:"routes"`
	Payer     string     `json:"payer"`
	Network   string     `json:"network"`
	IssuedAt  *time.Time `json:"issuedAt,omitempty"`
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
	Status    string     `json:"status" enum:"active,ended,revoked"`
}

// The words of a token's status.
const (
	tokenActive  = "active"
	tokenEnded   = "ended"
	tokenRevoked = "revoked"
)

type tokensInput struct {
	Payer  string `query:"payer" doc:"Only those of this address"`
	Status string `query:"status" enum:"active,ended,revoked" doc:"Only those with this status"`
	PageInput
}

type tokensOutput struct {
	Body struct {
		Data []Token `json:"data"`
		Page Page    `json:"page"`
	}
}

func listTokens(ctx context.Context, x *exchange, in *tokensInput) (*tokensOutput, error) {
	which := Selection{Network: x.network}
	var err error
	if which.Payer, err = parsePayer(in.Payer); err != nil {
		return nil, err
	}
	if which.After, err = ParseCursor(in.Cursor); err != nil {
		return nil, err
	}
	out := new(tokensOutput)
	out.Body.Data, out.Body.Page.Next, err = x.shop.Tokens(ctx, which, in.Status, in.Limit)
	return out, err
}

// Tokens gives at most limit tokens of the payments that are selected, those with a status or, if it is empty, all, newest first, and the cursor of what
// follows; empty: there is nothing more.
func (s *Shop) Tokens(ctx context.Context, which Selection, status string, limit int) (list []Token, next string, err error) {
	which.State, which.Plans = ledger.StateDelivered, true
	revoked, err := s.revoked(ctx)
	if err != nil {
		return nil, "", err
	}
	now := s.Store.Now()
	list = []Token{}
	last, more, err := s.each(ctx, which, maxScan, func(p *ledger.Payment) error {
		t := token(p, revoked, now)
		if status != "" && t.Status != status {
			return nil
		}
		if len(list) == limit {
			return errEnough
		}
		list = append(list, t)
		return nil
	})
	if more {
		next = cursor(last)
	}
	return list, next, err
}

func token(p *ledger.Payment, revoked map[string]bool, now time.Time) Token {
	t := Token{
		Payment: p.ID, Plan: p.Binding.Plan, Routes: p.Binding.Route, Payer: p.Payer.Hex(), Network: x402.CAIP2(p.ChainID),
		IssuedAt: moment(p.DeliveredAt), ExpiresAt: moment(p.PlanUntil), Status: tokenActive,
	}
	switch {
	case revoked[p.ID]:
		t.Status = tokenRevoked
	case !p.PlanUntil.After(now):
		t.Status = tokenEnded
	}
	return t
}

// revoked are the tokens that were taken back and would not have ended by themselves.
func (s *Shop) revoked(ctx context.Context) (map[string]bool, error) {
	const page = 500
	out := map[string]bool{}
	for after := uint64(0); ; {
		list, err := s.Store.Revoked(ctx, after, page)
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			out[r.ID], after = true, r.Number
		}
		if len(list) < page {
			return out, nil
		}
	}
}

type tokenOutput struct{ Body Token }

func revokeToken(ctx context.Context, x *exchange, in *paymentInput) (*tokenOutput, error) {
	p, err := x.shop.revokeToken(ctx, in.ID, x.network)
	if err != nil {
		return nil, err
	}
	return &tokenOutput{token(&p, map[string]bool{p.ID: true}, x.shop.Store.Now())}, nil
}

// RevokeToken takes back the token of the plan that a payment bought, and gives the payment.
func (s *Shop) RevokeToken(ctx context.Context, payment string) (ledger.Payment, error) {
	return s.revokeToken(ctx, payment, "")
}

func (s *Shop) revokeToken(ctx context.Context, payment, network string) (ledger.Payment, error) {
	p, err := s.find(ctx, payment, network)
	switch {
	case err != nil:
		return p, err
	case p.Binding.Plan == "" || p.Delivery != ledger.Delivered:
		return p, told(http.StatusConflict, CodeNoPlan, "this payment bought no plan, so it has no token", nil)
	case !p.PlanUntil.After(s.Store.Now()):
		return p, told(http.StatusConflict, CodePlanOver, "the plan ended at "+p.PlanUntil.UTC().Format(time.RFC3339)+", and its token with it", nil)
	}
	return p, s.Revoke(ctx, p.ID, p.PlanUntil)
}
