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
	_, err = parseCursor(q.Cursor)
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

// A cursor is the last payment of a page: when it was made, in microseconds, and its id.
func cursorOf(p *ledger.Payment) string {
	return strconv.FormatInt(p.CreatedAt.UnixMicro(), 10) + "-" + p.ID
}

func parseCursor(s string) (ledger.Mark, error) {
	if s == "" {
		return ledger.Mark{}, nil
	}
	at, id, _ := strings.Cut(s, "-")
	micros, err := strconv.ParseInt(at, 10, 64)
	if err != nil || micros <= 0 || id == "" {
		return ledger.Mark{}, invalidRequest("cursor is none; give the next of a page as it is")
	}
	return ledger.Mark{At: time.UnixMicro(micros).UTC(), Payment: id}, nil
}

// desk answers what operators ask, from a store.
type desk struct {
	store    ledger.Store
	engine   *paywall.Engine // that runs on it in this process; nil in a command
	kind     string          // the name of its module
	networks []x402.Network  // those of the configuration
	forgets  time.Duration   // after which closed payments may be gone; 0: never
}

// forgetsAfter is the retention of a store that forgets payments. Those in SQL databases archive what they leave behind.
func forgetsAfter(kind string, retention caddy.Duration) time.Duration {
	if kind == "redis" {
		return time.Duration(retention)
	}
	return 0
}

func (d *desk) list(ctx context.Context, q paymentQuery) (paymentPage, error) {
	before, err := parseCursor(q.Cursor)
	if err != nil {
		return paymentPage{}, err
	}
	found, err := d.store.List(ctx, ledger.Query{State: q.State, Payer: q.Payer, Before: before, Limit: q.Limit + 1})
	if err != nil {
		return paymentPage{}, err
	}
	page := paymentPage{Payments: []operatorPayment{}}
	if len(found) > q.Limit {
		found = found[:q.Limit]
		page.Page.Next = cursorOf(&found[q.Limit-1])
	}
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
