package caddymodule

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// The limits of a page.
const (
	defaultPage = 25
	maxPage     = 100
)

// paymentQuery selects a page of payments.
type paymentQuery struct {
	State  ledger.State
	Payer  common.Address
	Cursor string
	Limit  int
}

// parsePaymentQuery reads what values gives.
func parsePaymentQuery(v url.Values) (paymentQuery, error) {
	q := paymentQuery{Cursor: v.Get("cursor")}
	err := onlyParameters(v, "state", "payer", "limit", "cursor")
	if err != nil {
		return q, err
	}
	if q.Limit, err = parseLimit(v, defaultPage); err != nil {
		return q, err
	}
	if q.State, err = parseState(v.Get("state")); err != nil {
		return q, err
	}
	if q.Payer, err = parsePayer(v.Get("payer")); err != nil {
		return q, err
	}
	_, err = management.ParseCursor(q.Cursor)
	return q, err
}

// parseLimit gives how many things a page may have; without a word about it, as many as usual.
func parseLimit(v url.Values, usual int) (int, error) {
	s := v.Get("limit")
	if s == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxPage {
		return 0, invalidRequest("limit must be a number from 1 to %d", maxPage)
	}
	return n, nil
}

// onlyParameters refuses parameters that mean nothing: one that is misspelled would select too much.
func onlyParameters(v url.Values, names ...string) error {
	for name := range v {
		if !slices.Contains(names, name) {
			return invalidRequest("there is no parameter %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	return nil
}

// values is the inverse of parsePaymentQuery.
func (q *paymentQuery) values() url.Values {
	v := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	if q.State != "" {
		v.Set("state", string(q.State))
	}
	if q.Payer != (common.Address{}) {
		v.Set("payer", q.Payer.Hex())
	}
	if q.Cursor != "" {
		v.Set("cursor", q.Cursor)
	}
	return v
}

func parseState(s string) (ledger.State, error) {
	state := ledger.State(strings.ToUpper(strings.ReplaceAll(s, "-", "_")))
	if s != "" && !slices.Contains(ledger.States(), state) {
		var words []string
		for _, w := range ledger.States() {
			words = append(words, string(w))
		}
		return "", invalidRequest("there is no state %q; there are %s", s, strings.Join(words, ", "))
	}
	return state, nil
}

func parsePayer(s string) (common.Address, error) {
	if s == "" {
		return common.Address{}, nil
	}
	b, err := hexutil.Decode(s)
	if err != nil || len(b) != common.AddressLength {
		return common.Address{}, invalidRequest("payer must be an address: 0x and 40 hexadecimal digits")
	}
	return common.BytesToAddress(b), nil
}

// desk answers what operators ask, from a store.
type desk struct {
	store    ledger.Store
	engine   *paywall.Engine // that runs on it in this process; nil in a command
	kind     string          // the name of its module
	networks []x402.Network  // those of the configuration
	forgets  time.Duration   // after which closed payments may be gone; 0: never
}

// shop is what the management API would look after.
func (d *desk) shop() *management.Shop {
	s := &management.Shop{Store: d.store, Networks: d.networks, Revoke: d.store.Revoke}
	if d.engine != nil {
		s.Revoke, s.Update = d.engine.Revoke, d.engine.Update // this instance knows at once, and tells of it
	}
	return s
}

// forgetsAfter is the retention of a store that forgets payments. Those in SQL databases archive what they leave behind.
func forgetsAfter(kind string, retention caddy.Duration) time.Duration {
	if kind == "redis" {
		return time.Duration(retention)
	}
	return 0
}

func (d *desk) list(ctx context.Context, q paymentQuery) (paymentPage, error) {
	after, err := management.ParseCursor(q.Cursor)
	if err != nil {
		return paymentPage{}, err
	}
	found, next, err := d.shop().List(ctx, management.Selection{State: q.State, Payer: q.Payer, After: after}, q.Limit)
	if err != nil {
		return paymentPage{}, err
	}
	page := paymentPage{Payments: []operatorPayment{}, Page: management.Page{Next: next}}
	for i := range found {
		page.Payments = append(page.Payments, newOperatorPayment(&found[i], d.networks))
	}
	return page, nil
}

func (d *desk) show(ctx context.Context, id string) (paymentFile, error) {
	p, err := d.store.Payment(ctx, id)
	if err != nil {
		return paymentFile{}, err
	}
	f := paymentFile{Payment: newOperatorPayment(&p, d.networks), Transactions: []operatorTransaction{}}
	if f.Trail, err = d.store.Audit(ctx, id); err != nil {
		return paymentFile{}, err
	}
	sent, err := d.store.Transactions(ctx, id)
	if err != nil {
		return paymentFile{}, err
	}
	for i := range sent {
		f.Transactions = append(f.Transactions, newOperatorTransaction(&sent[i]))
	}
	return f, nil
}

func (d *desk) states(ctx context.Context) (stateCounts, error) {
	counts, err := d.store.Counts(ctx)
	if err != nil {
		return stateCounts{}, err
	}
	var out stateCounts
	for _, s := range ledger.States() {
		out.States = append(out.States, stateCount{s, counts[s]})
		out.Total += counts[s]
	}
	return out, nil
}
