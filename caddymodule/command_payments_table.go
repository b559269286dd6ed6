package caddymodule

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// column is one of the table of payments. Pages are printed apart, so that each column has a width from the start.
type column struct {
	name  string
	width int
	align text.Align
	text  func(*operatorPayment) string
}

// columns are the table's columns; those at the end are left out where the terminal is too narrow.
var columns = []column{
	{"created", 20, text.AlignLeft, func(p *operatorPayment) string { return rfc3339(p.CreatedAt) }},
	{"payment", 32, text.AlignLeft, func(p *operatorPayment) string { return client.Printable(p.ID, 64) }},
	{"state", 14, text.AlignLeft, func(p *operatorPayment) string { return string(p.State) }},
	{"amount", 12, text.AlignRight, amountShown},
	{"payer", 13, text.AlignLeft, func(p *operatorPayment) string { return short(p.Payer.Hex()) }},
	{"transaction", 13, text.AlignLeft, func(p *operatorPayment) string { return shortHash(p.Transaction) }},
	{"for", 24, text.AlignLeft, func(p *operatorPayment) string { return client.Printable(boughtShort(&p.Binding), 60) }},
	{"network", 14, text.AlignLeft, func(p *operatorPayment) string { return cmp.Or(x402.V1Name(p.ChainID), p.Network) }},
	{"flow", 13, text.AlignLeft, func(p *operatorPayment) string { return client.Printable(p.Flow, 40) }},
	{"reason", 14, text.AlignLeft, func(p *operatorPayment) string { return client.Printable(p.Reason, 40) }},
}

// refundColumns are those of the table of refunds: why one failed comes before what can be looked up.
var refundColumns = []column{
	columnOf("payment"), columnOf("state"),
	{"reason", 26, text.AlignLeft, func(p *operatorPayment) string { return client.Printable(p.Reason, 60) }},
	columnOf("amount"),
	{"to", 13, text.AlignLeft, func(p *operatorPayment) string { return short(p.Payer.Hex()) }},
	{"paid", 20, text.AlignLeft, func(p *operatorPayment) string { return rfc3339(p.SettledAt) }},
	columnOf("for"), columnOf("network"),
}

// columnOf is the column of that name.
func columnOf(name string) column {
	return columns[slices.IndexFunc(columns, func(c column) bool { return c.name == name })]
}

// fitting gives the columns that a terminal has room for; 0: nobody knows its width.
func fitting(columns []column, width int) []column {
	used := 0
	for i, c := range columns {
		if used += c.width + 2; width > 0 && used > width && i > 2 {
			return columns[:i]
		}
	}
	return columns
}

// tablePages prints a list as one table, page by page.
type tablePages struct {
	o       *operator
	columns []column
	none    string // is said of an empty list
	rows    int
}

func newTablePages(o *operator, columns []column, none string) *tablePages {
	return &tablePages{o: o, columns: fitting(columns, o.width), none: none}
}

func (t *tablePages) page(list []operatorPayment) error {
	if len(list) == 0 {
		return nil
	}
	out := newTable()
	var header table.Row
	var configs []table.ColumnConfig
	for i, c := range t.columns {
		header = append(header, c.name)
		configs = append(configs, table.ColumnConfig{Number: i + 1, WidthMin: c.width, Align: c.align, AlignHeader: c.align})
	}
	out.SetColumnConfigs(configs)
	if t.rows == 0 {
		out.AppendHeader(header)
	}
	for i := range list {
		p := &list[i]
		var row table.Row
		for _, c := range t.columns {
			row = append(row, c.text(p))
		}
		out.AppendRow(row)
	}
	t.rows += len(list)
	return writeTable(t.o.out, out, t.o.width)
}

func (t *tablePages) end(next string) error {
	switch {
	case next != "":
		t.o.say("There are more: repeat the command with --cursor %s, or with --all.", next)
	case t.rows == 0:
		t.o.say("%s", t.none)
	}
	return nil
}

func showStates(w io.Writer, counts *stateCounts) error {
	t := newTable("state", "payments")
	for _, c := range counts.States {
		t.AppendRow(table.Row{c.State, c.Payments})
	}
	t.AppendRow(table.Row{"in all", counts.Total})
	return writeTable(w, t, 0)
}

// showPayment prints all there is about a payment.
func showPayment(w io.Writer, f *paymentFile) error {
	t := newTable()
	for _, line := range paymentLines(&f.Payment) {
		if line[1] != "" {
			t.AppendRow(table.Row{line[0], line[1]})
		}
	}
	if err := writeTable(w, t, 0); err != nil {
		return err
	}
	trail := newTable("#", "at", "event", "by", "settlement", "delivery", "refund", "reason", "transaction", "hold")
	for i := range f.Trail {
		e := &f.Trail[i]
		trail.AppendRow(table.Row{
			e.Version, e.At.UTC().Format("2006-01-02T15:04:05.000000Z07:00"), e.Event, e.Actor, e.Settlement, e.Delivery, e.Refund,
			client.Printable(e.Reason, 60), shortHash(e.Transaction), heldUntil(e.Hold),
		})
	}
	fmt.Fprintln(w, "\nAudit trail")
	if err := writeTable(w, trail, 0); err != nil {
		return err
	}
	if len(f.Transactions) == 0 {
		fmt.Fprintln(w, "\nNo transaction was signed for it.")
		return nil
	}
	sent := newTable("signed", "hash", "wallet", "nonce", "payments")
	for i := range f.Transactions {
		x := &f.Transactions[i]
		sent.AppendRow(table.Row{rfc3339(x.CreatedAt), x.Hash.Hex(), x.Wallet.Hex(), x.Nonce, len(x.Payments)})
	}
	fmt.Fprintln(w, "\nTransactions that were signed for it")
	return writeTable(w, sent, 0)
}

// paymentLines are a payment's properties; those without a value are left out.
func paymentLines(p *operatorPayment) [][2]string {
	hash := func(h common.Hash) string {
		if h == (common.Hash{}) {
			return ""
		}
		return h.Hex()
	}
	final := "no"
	if p.Final {
		final = "yes"
	}
	block := ""
	if p.Block > 0 {
		block = fmt.Sprintf("%d %s", p.Block, hash(p.BlockHash))
	}
	amount := p.Amount.Dec() + " atomic units"
	if p.AmountDecimal != "" {
		amount = fmt.Sprintf("%s %s (%s)", p.AmountDecimal, client.Printable(p.Symbol, 20), amount)
	}
	return [][2]string{
		{"payment", client.Printable(p.ID, 64)},
		{"state", string(p.State)},
		{"settlement", string(p.Settlement)},
		{"delivery", string(p.Delivery)},
		{"refund", string(p.Refund)},
		{"reason", client.Printable(p.Reason, 200)},
		{"final", final},
		{"amount", amount},
		{"network", networkName(p)},
		{"asset", p.Asset.Hex()},
		{"payer", p.Payer.Hex()},
		{"pay to", p.PayTo.Hex()},
		{"nonce", p.Nonce.Hex()},
		{"valid before", rfc3339(time.Unix(int64(min(p.ValidBefore, 1<<40)), 0))},
		{"for", client.Printable(bought(&p.Binding), 2000)},
		{"route", client.Printable(p.Binding.Route, 200)},
		{"plan", client.Printable(p.Binding.Plan, 200)},
		{"flow", client.Printable(p.Flow, 40)},
		{"claimed after", fmt.Sprintf("block %d", p.ClaimBlock)},
		{"transaction", hash(p.Transaction)},
		{"block", block},
		{"created", rfc3339(p.CreatedAt)},
		{"settled", rfc3339(p.SettledAt)},
		{"delivered", rfc3339(p.DeliveredAt)},
		{"changed", rfc3339(p.UpdatedAt)},
		{"plan until", rfc3339(p.PlanUntil)},
		{"held until", rfc3339(p.Hold.Until)},
		{"served by", client.Printable(p.ServedBy, 64)},
		{"header hash", hash(p.HeaderHash)},
		{"version", fmt.Sprint(p.Version)},
	}
}

func rfc3339(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func heldUntil(h ledger.Hold) string {
	if h.Until.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d until %s", h.Fence, h.Until.UTC().Format(time.TimeOnly))
}

// short keeps the ends of what is long.
func short(s string) string {
	if len(s) <= 13 {
		return s
	}
	return s[:6] + "…" + s[len(s)-6:]
}

func shortHash(h common.Hash) string {
	if h == (common.Hash{}) {
		return ""
	}
	return short(h.Hex())
}

func amountShown(p *operatorPayment) string {
	if p.AmountDecimal == "" {
		return p.Amount.Dec() + " units"
	}
	return p.AmountDecimal + " " + client.Printable(p.Symbol, 20)
}

func networkName(p *operatorPayment) string {
	if name := x402.V1Name(p.ChainID); name != "" {
		return fmt.Sprintf("%s (%s)", name, p.Network)
	}
	return p.Network
}

func bought(b *ledger.Binding) string {
	return strings.TrimSpace(b.Method + " " + b.Host + b.URI)
}

func boughtShort(b *ledger.Binding) string {
	if b.Plan != "" {
		return "plan " + b.Plan
	}
	return strings.TrimSpace(b.Method + " " + b.URI)
}
