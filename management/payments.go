package management

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/x402"
)

const tagPayments = "Payments"

func (a *API) addPayments() {
	add(a, operation{
		rule: rule{id: "listPayments", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/payments", tag: tagPayments,
		summary:     "Lists payments, newest first",
		description: "A page may hold fewer than `limit`, even none, where few of many match: go on while there is a `next`.",
	}, listPayments)
	add(a, operation{
		rule: rule{id: "countPayments", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/payments/states", tag: tagPayments,
		summary: "Counts payments by state, with what they come to, over a window",
		description: "The window is on when payments were made; the last 30 days if nothing is said. Where more than 100,000 are in it, the newest are counted, " +
			"`complete` is false, and `since` says how far they reach.",
	}, countPayments)
	add(a, operation{
		rule: rule{id: "exportPayments", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/payments/export", tag: tagPayments,
		summary:     "Exports payments as CSV or JSON",
		description: "All that match, newest first. An answer that ends early is cut off: it does not look whole to an HTTP client.",
	}, a.exportPayments)
	add(a, operation{
		rule: rule{id: "getPayment", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/payments/{id}", tag: tagPayments,
		summary: "Shows a payment with its audit trail and its transactions",
	}, showPayment)
	add(a, operation{
		rule: rule{id: "settlePayment", method: http.MethodPost, scope: apikey.PaymentsWrite, keyRequired: true}, path: "/v1/payments/{id}/settle",
		tag: tagPayments, status: http.StatusAccepted, summary: "Has a payment looked after now whose settlement is not known",
		description: "What was signed for it is sent again, and the chain is asked; nothing is paid twice. See the payment for what came of it.",
	}, settlePayment)
	add(a, operation{
		rule: rule{id: "refundPayment", method: http.MethodPost, scope: apikey.PaymentsWrite, keyRequired: true}, path: "/v1/payments/{id}/refund",
		tag: tagPayments, status: http.StatusAccepted, summary: "Gives a payment back that was not delivered",
		description: "One that is PAID, and that nobody is being served with, or whose refund has failed. What was delivered can't be paid back from here: " +
			"no payment is ever both.",
	}, refundPayment)
}

// PageInput selects a page. It is exported for the framework, which looks into embedded structs only so.
type PageInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"25"`
	Cursor string `query:"cursor" doc:"The next of the page before"`
}

// SelectInput selects payments; exported as PageInput is.
type SelectInput struct {
	State string    `query:"state" doc:"Only those in this state, such as REFUND_PENDING"`
	Payer string    `query:"payer" doc:"Only those of this address"`
	Since time.Time `query:"since" doc:"Only those made at this time or later (RFC 3339)"`
	Until time.Time `query:"until" doc:"Only those made before it"`
}

func (in *SelectInput) selection(x *exchange) (s Selection, err error) {
	s.Network, s.Since, s.Until = x.network, in.Since, in.Until
	if s.State, err = parseState(in.State); err != nil {
		return s, err
	}
	s.Payer, err = parsePayer(in.Payer)
	return s, err
}

type paymentsInput struct {
	SelectInput
	PageInput
}

type paymentsOutput struct {
	Body struct {
		Data []Payment `json:"data"`
		Page Page      `json:"page"`
	}
}

func listPayments(ctx context.Context, x *exchange, in *paymentsInput) (*paymentsOutput, error) {
	s, err := in.selection(x)
	if err != nil {
		return nil, err
	}
	if s.After, err = ParseCursor(in.Cursor); err != nil {
		return nil, err
	}
	found, next, err := x.shop.List(ctx, s, in.Limit)
	if err != nil {
		return nil, err
	}
	out := new(paymentsOutput)
	out.Body.Data, out.Body.Page.Next = x.shop.payments(found), next
	return out, nil
}

func (s *Shop) payments(list []ledger.Payment) []Payment {
	out := make([]Payment, len(list))
	for i := range list {
		out[i] = s.payment(&list[i])
	}
	return out
}

type paymentInput struct {
	ID string `path:"id" maxLength:"128"`
}

// PaymentFile is all there is about one payment.
type PaymentFile struct {
	Payment
	Trail        []Step        `json:"trail"`
	Transactions []Transaction `json:"transactions"`
}

type paymentFileOutput struct{ Body PaymentFile }

// find reads a payment of a network, or, if that is empty, of any. That of another is not there.
func (s *Shop) find(ctx context.Context, id, network string) (ledger.Payment, error) {
	if _, ok := ledger.ShardOf(id); !ok {
		return ledger.Payment{}, ledger.ErrNotFound
	}
	p, err := s.Store.Payment(ctx, id)
	if err == nil && network != "" && s.networkOf(p.ChainID) != network {
		err = ledger.ErrNotFound
	}
	return p, err
}

func showPayment(ctx context.Context, x *exchange, in *paymentInput) (*paymentFileOutput, error) {
	p, err := x.shop.find(ctx, in.ID, x.network)
	if err != nil {
		return nil, err
	}
	trail, err := x.shop.Store.Audit(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	sent, err := x.shop.Store.Transactions(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	out := &paymentFileOutput{PaymentFile{Payment: x.shop.payment(&p), Trail: []Step{}, Transactions: []Transaction{}}}
	for i := range trail {
		out.Body.Trail = append(out.Body.Trail, step(&trail[i]))
	}
	for i := range sent {
		out.Body.Transactions = append(out.Body.Transactions, transaction(&sent[i]))
	}
	return out, nil
}

// StateCount says how many payments are in a state, and what they come to.
type StateCount struct {
	State    string  `json:"state"`
	Payments int     `json:"payments"`
	Amounts  []Money `json:"amounts" doc:"By asset"`
}

// Money is an amount of an asset.
type Money struct {
	Network string `json:"network"`
	Asset   string `json:"asset"`
	Symbol  string `json:"symbol,omitempty"`
	Amount  string `json:"amount" doc:"In atomic units"`
	Decimal string `json:"amountDecimal,omitempty"`
}

type countInput struct {
	Since time.Time `query:"since" doc:"The window's begin (RFC 3339). Default: 30 days before its end"`
	Until time.Time `query:"until" doc:"Its end. Default: now"`
}

type countOutput struct {
	Body struct {
		Since    time.Time    `json:"since"`
		Until    time.Time    `json:"until"`
		Complete bool         `json:"complete" doc:"Whether all of the window was counted"`
		Total    int          `json:"total"`
		States   []StateCount `json:"states" doc:"All states, in the order in which a payment meets them"`
	}
}

const (
	defaultWindow = 30 * 24 * time.Hour
	maxCounted    = 100_000
)

// window is the time over which is counted: until now, and the last 30 days of that, if nothing else is said. Times of other years have no JSON.
func window(since, until, now time.Time) (from, to time.Time, err error) {
	from, to = since, until
	if to.IsZero() {
		to = now
	}
	if from.IsZero() {
		from = to.Add(-defaultWindow)
	}
	switch {
	case from.UTC().Year() < 1 || to.UTC().Year() > 9998:
		return from, to, invalid("query.since", "the window must be within the years 1 to 9998")
	case to.Before(from):
		return from, to, errWindow
	}
	return from, to, nil
}

var errWindow = invalid("query.since", "the window ends before it begins")

// coin is an asset of a chain.
type coin struct {
	chainID uint64
	asset   common.Address
}

func countPayments(ctx context.Context, x *exchange, in *countInput) (*countOutput, error) {
	out := new(countOutput)
	b := &out.Body
	var err error
	if b.Since, b.Until, err = window(in.Since, in.Until, x.shop.Store.Now()); err != nil {
		return nil, err
	}
	counts, sums := map[ledger.State]int{}, map[ledger.State]map[coin]*uint256.Int{}
	last, more, err := x.shop.each(ctx, Selection{Network: x.network, Since: b.Since, Until: b.Until}, maxCounted, func(p *ledger.Payment) error {
		state := p.State()
		counts[state]++
		b.Total++
		if sums[state] == nil {
			sums[state] = map[coin]*uint256.Int{}
		}
		return sum(sums[state], p)
	})
	if err != nil {
		return nil, err
	}
	if b.Complete = !more; more {
		b.Since = last.At
	}
	for _, state := range ledger.States() {
		b.States = append(b.States, StateCount{string(state), counts[state], x.shop.money(sums[state])})
	}
	return out, nil
}

// money is what sums of assets come to, in the order of the configuration; assets that it does not have come last.
func (s *Shop) money(sums map[coin]*uint256.Int) []Money {
	out := []Money{}
	show := func(c coin, n *uint256.Int) {
		m := Money{Network: x402.CAIP2(c.chainID), Asset: c.asset.Hex(), Amount: n.Dec()}
		if a := s.asset(c.chainID, c.asset); a != nil {
			m.Symbol, m.Decimal = a.Symbol, x402.FormatAmount(n, a.Decimals)
		}
		out = append(out, m)
	}
	for i := range s.Networks {
		c := coin{s.Networks[i].ChainID, s.Networks[i].Asset.Address}
		if n, ok := sums[c]; ok {
			show(c, n)
			delete(sums, c)
		}
	}
	for c, n := range sums {
		show(c, n)
	}
	return out
}

type paymentOutput struct{ Body Payment }

// settlePayment makes a payment due for the reconciler, which goes on with what is recorded of it.
func settlePayment(ctx context.Context, x *exchange, in *paymentInput) (*paymentOutput, error) {
	return x.view(x.shop.settlePayment(ctx, in.ID, x.network))
}

// SettlePayment makes a payment due for the reconciler whose settlement is not known.
func (s *Shop) SettlePayment(ctx context.Context, id string) (ledger.Payment, error) {
	return s.settlePayment(ctx, id, "")
}

func (s *Shop) settlePayment(ctx context.Context, id, network string) (ledger.Payment, error) {
	p, err := s.find(ctx, id, network)
	if err != nil {
		return p, err
	}
	if !p.Open() || p.Settlement != ledger.Claimed && p.Settlement != ledger.Settling {
		return p, told(http.StatusConflict, CodeNotSettleable, fmt.Sprintf("the payment is %s; only one that is %s can be settled", p.State(), ledger.StateSettling), nil)
	}
	return p, s.Store.Recheck(ctx, p.ID, 0)
}

// reasonOperator is why a payment is not delivered that the operator gives back.
const reasonOperator = "operator_refund"

// refundPayment gives back what was paid and not delivered, or tries again what has failed.
func refundPayment(ctx context.Context, x *exchange, in *paymentInput) (*paymentOutput, error) {
	return x.view(x.shop.refundPayment(ctx, in.ID, x.network, x.actor()))
}

// RefundPayment gives back what was paid and not delivered, or tries again what has failed, in an actor's name.
func (s *Shop) RefundPayment(ctx context.Context, id, actor string) (ledger.Payment, error) {
	return s.refundPayment(ctx, id, "", actor)
}

func (s *Shop) refundPayment(ctx context.Context, id, network, actor string) (ledger.Payment, error) {
	return s.change(ctx, id, network, actor, func(p *ledger.Payment) (ledger.Change, error) {
		switch {
		case p.Refund == ledger.RefundFailed:
			return ledger.Change{Event: ledger.EventRefundRetry}, nil
		case p.State() == ledger.StatePaid && !p.Held(s.Store.Now()):
			return ledger.Change{Event: ledger.EventUndelivered, Reason: reasonOperator}, nil
		}
		return ledger.Change{}, told(http.StatusConflict, CodeNotRefundable,
			fmt.Sprintf("the payment is %s; only one that is paid for, and neither delivered nor being delivered, can be given back", p.State()), nil)
	})
}

// view is the answer with a payment that was changed.
func (x *exchange) view(p ledger.Payment, err error) (*paymentOutput, error) {
	if err != nil {
		return nil, err
	}
	return &paymentOutput{x.shop.payment(&p)}, nil
}

// tries is how often a change is tried against others.
const tries = 10

// change makes a step of a payment, which decide chooses, in an actor's name.
func (s *Shop) change(ctx context.Context, id, network, actor string, decide func(*ledger.Payment) (ledger.Change, error)) (ledger.Payment, error) {
	for range tries {
		p, err := s.find(ctx, id, network)
		if err != nil {
			return p, err
		}
		c, err := decide(&p)
		if err != nil {
			return p, err
		}
		c.Actor = actor
		p, err = s.update(ctx, id, p.Version, c)
		if !errors.Is(err, ledger.ErrConflict) && !errors.Is(err, ledger.ErrTransition) && !errors.Is(err, ledger.ErrFence) {
			return p, err
		}
	}
	return ledger.Payment{}, ledger.ErrConflict
}

func (s *Shop) update(ctx context.Context, id string, version uint64, c ledger.Change) (ledger.Payment, error) {
	if s.Update != nil {
		return s.Update(ctx, id, version, c)
	}
	return s.Store.Update(ctx, id, version, c)
}

// actor is who is written into a payment's trail.
func (x *exchange) actor() string {
	if x.caller.local() {
		return "operator"
	}
	return "operator:" + x.caller.actor
}
