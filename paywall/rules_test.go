package paywall

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/token"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Who takes the first option pays the least: the request's price on each network, then passes by rising price.
func TestOptionsByPrice(t *testing.T) {
	payee := func(name string) *Payee {
		n, ok := x402.LookupNetwork(name)
		if !ok {
			t.Fatal(name)
		}
		return &Payee{Network: n, PayTo: common.Address{9}}
	}
	base, polygon := payee("base"), payee("polygon")
	price := func(y *Payee, n uint64) Price { return Price{Payee: y, Amount: *uint256.NewInt(n)} }
	r := &Route{
		Name: "r", Timeout: 2 * time.Minute, Prices: []Price{price(base, 900), price(polygon, 800)},
		Plans: []Plan{
			{Name: "year", TTL: time.Hour, Prices: []Price{price(base, 500), price(polygon, 400)}},
			{Name: "day", TTL: time.Minute, Prices: []Price{price(base, 30), price(polygon, 20)}},
		},
	}
	if err := r.prepare(nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, a := range r.accepts {
		plan := ""
		if r.options[i].plan != nil {
			plan = r.options[i].plan.Name
		}
		if a.MaxTimeoutSeconds != 120 || a.PayTo != base.PayTo.Hex() || a.Network != r.options[i].price.Payee.Network.ID {
			t.Errorf("option %d is %+v", i, a)
		}
		got = append(got, fmt.Sprintf("%s %s %s", a.Network, a.Amount, plan))
	}
	want := []string{
		"eip155:8453 900 ", "eip155:137 800 ", "eip155:137 20 day", "eip155:8453 30 day", "eip155:137 400 year", "eip155:8453 500 year",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the options are %q, want %q", got, want)
	}
	if err := r.prepare(nil); err != nil || len(r.accepts) != len(want) {
		t.Errorf("prepared twice, there are %d options, %v", len(r.accepts), err)
	}
	if err := (&Route{Name: "r"}).prepare(nil); !errors.Is(err, errNoPrice) {
		t.Errorf("a route that nobody can pay for: %v", err)
	}
}

// What a settler says leads to these steps, and to no others: a settled payment does not fail, an unknown one stays.
func TestOutcomeChanges(t *testing.T) {
	for _, tc := range []struct {
		have  ledger.Settlement
		final bool
		out   settlement.Outcome
		want  []ledger.Event
	}{
		{ledger.Claimed, false, settlement.Outcome{Status: settlement.Settled}, []ledger.Event{ledger.EventSettle}},
		{ledger.Settling, false, settlement.Outcome{Status: settlement.Settled, Final: true}, []ledger.Event{ledger.EventSettle, ledger.EventFinal}},
		{ledger.Failed, false, settlement.Outcome{Status: settlement.Settled}, []ledger.Event{ledger.EventSettle}},
		{ledger.Failed, true, settlement.Outcome{Status: settlement.Settled, Final: true}, []ledger.Event{ledger.EventSettle, ledger.EventFinal}},
		{ledger.Void, false, settlement.Outcome{Status: settlement.Settled}, []ledger.Event{ledger.EventSettle}},
		{ledger.Settled, false, settlement.Outcome{Status: settlement.Settled}, nil},
		{ledger.Settled, false, settlement.Outcome{Status: settlement.Settled, Final: true}, []ledger.Event{ledger.EventFinal}},
		{ledger.Settled, true, settlement.Outcome{Status: settlement.Settled, Final: true}, nil},
		{ledger.Claimed, false, settlement.Outcome{Status: settlement.Failed}, []ledger.Event{ledger.EventFail}},
		{ledger.Settling, false, settlement.Outcome{Status: settlement.Failed, Final: true}, []ledger.Event{ledger.EventFail, ledger.EventFinal}},
		{ledger.Failed, false, settlement.Outcome{Status: settlement.Failed}, nil},
		{ledger.Failed, false, settlement.Outcome{Status: settlement.Failed, Final: true}, []ledger.Event{ledger.EventFinal}},
		{ledger.Void, false, settlement.Outcome{Status: settlement.Failed, Final: true}, []ledger.Event{ledger.EventFinal}},
		{ledger.Settled, false, settlement.Outcome{Status: settlement.Failed, Final: true}, nil},
		{ledger.Claimed, false, settlement.Outcome{}, nil},
		{ledger.Settling, false, settlement.Outcome{Final: true}, nil},
	} {
		tc.out.Transaction, tc.out.Block, tc.out.Reason = common.Hash{1}, 7, "why"
		changes := outcomeChanges(ledger.Payment{Settlement: tc.have, Final: tc.final}, tc.out, "somebody")
		var got []ledger.Event
		for _, c := range changes {
			got = append(got, c.Event)
			if c.Actor != "somebody" || c.Transaction != tc.out.Transaction || c.Block != 7 || c.Reason != "why" {
				t.Errorf("a step lost what it is about: %+v", c)
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s (final: %v) and %s (final: %v) give %v, want %v", tc.have, tc.final, tc.out.Status, tc.out.Final, got, tc.want)
		}
	}
}

// A token that opens nothing is explained if it is ours, and not worth a word if it is the upstream's.
func TestTokenReason(t *testing.T) {
	for err, want := range map[error]x402.Reason{
		token.ErrMalformed: "", token.ErrUnknownKey: "", token.ErrExpired: ReasonTokenExpired, token.ErrRevoked: ReasonTokenRevoked,
		token.ErrWrongAudience: ReasonTokenInvalid, errors.New("anything"): ReasonTokenInvalid,
	} {
		if got := tokenReason(fmt.Errorf("wrapped: %w", err)); got != want {
			t.Errorf("%v gives %q, want %q", err, got, want)
		}
	}
}

// A problem says what happened to programs and people, where to ask, and when to come back; HEAD gets no body.
func TestProblems(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		record := httptest.NewRecorder()
		var told string
		a := &attempt{Gate: &Gate{Config: Config{
			StatusURL: func(id string) string { return "https://h/x402/payments/" + id },
			Decided:   func(_ *http.Request, outcome, reason string) { told = outcome + " " + reason },
		}}, r: httptest.NewRequest(method, "/", nil), w: record}
		a.Logger = slog.New(slog.DiscardHandler)
		if err := a.answer(busy("pay_a").because(errors.New("secret cause"))); err != nil {
			t.Fatal(err)
		}
		h := record.Header()
		if record.Code != 503 || h.Get("Retry-After") != "2" || h.Get("Link") != `<https://h/x402/payments/pay_a>; rel="payment-status"` ||
			h.Get("Cache-Control") != "no-store" || h.Get("Content-Type") != "application/problem+json" || h.Get("X-Payment-Id") != "pay_a" ||
			told != "unavailable payment_pending" {
			t.Errorf("%d %v, told %s", record.Code, h, told)
		}
		if method == http.MethodHead {
			if record.Body.Len() != 0 {
				t.Errorf("HEAD has a body: %s", record.Body)
			}
			continue
		}
		var p problem
		if err := json.Unmarshal(record.Body.Bytes(), &p); err != nil || p.Code != "payment_pending" || p.Payment != "pay_a" || !p.Retryable || p.Status != 503 ||
			p.StatusURL != "https://h/x402/payments/pay_a" || strings.Contains(record.Body.String(), "secret") {
			t.Errorf("%s, %v", record.Body, err)
		}
	}
}

// The status of a payment says what its owner may know.
func TestStatus(t *testing.T) {
	c := newCounter(t)
	p := c.delivering(http.MethodGet, time.Minute)
	s, err := c.engine.Status(t.Context(), p.ID)
	if err != nil || s.State != ledger.StatePaid || s.Amount != "10000" || s.Network != "eip155:84532" || s.Transaction != p.Transaction.Hex() || s.Refund != "" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := c.forward(http.MethodGet, p, answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })); err != nil {
		t.Fatal(err)
	}
	s, err = c.engine.Status(t.Context(), p.ID)
	if err != nil || s.State != ledger.StateRefundPending || s.Refund != "pending" || s.Reason != "upstream_status_500" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := c.engine.Status(t.Context(), "pay_nobody"); !errors.Is(err, ledger.ErrNotFound) {
		t.Error(err)
	}
}
